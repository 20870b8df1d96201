"""What the machine and the servers of models on it are doing now."""
