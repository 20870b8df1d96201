"""transformers as a server."""
