"""Elements to bytes for what a model remembers: keys and values per token, states per sequence. Engine-neutral."""

from __future__ import annotations

from sizeup.errors import BadInput
from sizeup.formats.storage import STORAGES, lookup


def element_storage(name: str) -> str:
    """The storage of cached elements by any usual name (`f16`, `q8_0`, `fp8`). Raises BadInput for an unknown one."""
    return lookup(name).name


def row_bytes(elements: int, dtype: str) -> int:
    """⌈elements / block⌉ · block bytes: one token's keys (or values) of one layer.

    dtype: how they are stored. Raises BadInput when a whole number of blocks doesn't make the row.
    """
    storage = STORAGES[element_storage(dtype)]
    if not storage.fits((elements,)):
        raise BadInput(
            f"{elements:,} cached values a token are not a whole number of {storage.name} blocks"
            f" of {storage.block_elements}",
            hint="use f16 for this model's cache",
        )
    return storage.row_bytes(elements)


def token_cache_bytes(key_elements: int, value_elements: int, key_dtype: str, value_dtype: str) -> int:
    """row(key_elements) + row(value_elements): what one token keeps in one layer."""
    return row_bytes(key_elements, key_dtype) + row_bytes(value_elements, value_dtype)


def state_bytes(elements: int, sequences: int, element_bytes: int = 4) -> int:
    """Elements · sequences · element_bytes: recurrent state of one layer, usually kept in single precision."""
    return elements * sequences * element_bytes
