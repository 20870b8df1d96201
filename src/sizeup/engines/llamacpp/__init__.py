"""llama.cpp: what it allocates, how it is placed, started and simulated."""
