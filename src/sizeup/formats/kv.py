"""The element types of a KV cache and the exact bytes of its rows.

llama.cpp stores K and V in GGML blocks (`--cache-type-k/v`); torch engines store plain floats, or fp8 with a scale.
"""

from __future__ import annotations

from sizeup.errors import BadInput
from sizeup.formats.storage import STORAGES, Storage, lookup

# llama.cpp's choices (common/arg.cpp, October 2026) and fp8 of the torch engines.
KV_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL", "F8_E4M3", "F8_E5M2")
LLAMACPP_KV_TYPES = KV_TYPES[:9]


def kv_storage(name: str) -> Storage:
    """The storage of a KV cache type in any usual spelling. Raises BadInput for one no engine offers."""
    storage = lookup(name)
    if storage.name not in KV_TYPES:
        raise BadInput(f"not a KV cache type: {storage.name}", hint=f"choose one of {', '.join(KV_TYPES).lower()}")
    return storage


def kv_row_bytes(name: str, elements: int) -> int:
    """Bytes of one token's K or V row of `elements` = kv_heads · head_dim values in a layer.

    Raises BadInput when the row isn't a whole number of blocks: llama.cpp refuses such a cache.
    """
    return kv_storage(name).row_bytes(elements)


def kv_types_for(elements: int) -> tuple[str, ...]:
    """The cache types that can hold a row of this many values."""
    return tuple(name for name in KV_TYPES if STORAGES[name].fits((elements,)))
