"""Number formats and their exact bytes: blocks, GGML types, llama.cpp mixes, checkpoint quantization, KV elements.

This package knows nothing of models: its functions take names, shapes (row-major, as in checkpoints) and small
descriptors.
"""

from sizeup.formats.storage import Shape, Side, Storage, lookup

__all__ = ["Shape", "Side", "Storage", "lookup"]
