"""The demo model: a small code model trained on this machine, so that everything can be tried without a download."""
