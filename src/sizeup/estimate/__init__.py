"""Pure functions: bytes, seconds, loss, money. No I/O, no clock, no environment."""
