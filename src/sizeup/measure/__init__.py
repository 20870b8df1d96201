"""Bench, quality, monitor, ledger: what was measured, and how far off the estimates were."""
