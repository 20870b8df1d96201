"""Number formats and their exact bytes: blocks, GGML types, llama.cpp mixes, checkpoint quantization, KV elements.

This package knows nothing of models: its functions take names, shapes (row-major, as in checkpoints) and small
descriptors. Each room is imported where it's needed, so that a command pays for what it uses:

    storage      Storage, lookup: the bytes of a tensor in one format
    ggml         GGML type ids, and the fallback for rows that don't fit
    mixes        `Q4_K_M` and its like: a type for every tensor of a GGUF file
    checkpoint   AWQ, GPTQ, bitsandbytes, fp8, NVFP4 …: the tensors that a weight is stored as
    checkpoint_configs   the same from a config.json
    kv           KV cache element types
"""

from sizeup.formats.storage import Shape, Side, Storage, lookup

__all__ = ["Shape", "Side", "Storage", "lookup"]
