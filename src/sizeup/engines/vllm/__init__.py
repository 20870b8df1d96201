"""vLLM and engines like it: what they read, by checkpoint format."""
