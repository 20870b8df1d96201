"""Engines: what each allocates, how it is started, driven, simulated and read."""
