"""Bench: what a running server does, measured from outside, setting by setting."""
