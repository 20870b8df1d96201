"""MLX: what it reads, by format."""
