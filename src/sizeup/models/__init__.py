"""Models: tensors, blocks, mixers; anatomy, sources, catalogue."""
