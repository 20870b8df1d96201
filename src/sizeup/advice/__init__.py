"""Search over plans, and their ranking against needs."""
