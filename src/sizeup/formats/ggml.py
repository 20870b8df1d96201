"""GGML tensor types: their ids in GGUF files, and what llama.cpp stores when a row doesn't fit its blocks."""

from __future__ import annotations

from sizeup.errors import BadFile, BadInput
from sizeup.formats.layouts import GGML_REMOVED, GGML_TYPES
from sizeup.formats.storage import STORAGES, Storage

TYPE_IDS: dict[str, int] = {name: type_id for type_id, name, *_ in GGML_TYPES}
_NAMES: dict[int, str] = {type_id: name for type_id, name, *_ in GGML_TYPES}

# The type with smaller blocks that replaces a type when a row isn't a whole number of its blocks.
_SMALLER_BLOCKS = {
    "IQ1_S": "IQ4_NL", "IQ1_M": "IQ4_NL", "IQ2_XXS": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ2_S": "IQ4_NL",
    "IQ3_XXS": "IQ4_NL", "IQ3_S": "IQ4_NL", "IQ4_XS": "IQ4_NL",
    "Q2_0": "Q4_0", "Q2_K": "Q4_0", "Q3_K": "Q4_0", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0",
    "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
}  # fmt: skip


def by_id(type_id: int) -> Storage:
    """The storage of a type id read from a GGUF file.

    Raises BadFile for an id that was removed from GGUF or that isn't known, with the number.
    """
    name = _NAMES.get(type_id)
    if name is not None:
        return STORAGES[name]
    removed = GGML_REMOVED.get(type_id)
    if removed:
        raise BadFile(
            f"GGML type {type_id} ({removed}) was removed from GGUF",
            hint="quantize the model again, for instance to Q4_0",
        )
    raise BadFile(
        f"unknown GGML type {type_id}",
        hint=f"known ids go up to {max(_NAMES)}: the file is newer than this program, or damaged",
    )


def is_quantized(name: str) -> bool:
    """Whether a GGML type packs several values into a block."""
    return STORAGES[name].block_elements > 1


def fallback(name: str, row: int) -> str:
    """The type that llama.cpp's quantizer stores instead of `name` for rows of `row` values (the same if they fit).

    A 256-block type is replaced by a 32-block type of about the next size up; rows that aren't a multiple of 32
    either stay in F16. Raises BadInput for a type that llama.cpp refuses in that case (Q1_0).
    Source: tensor_type_fallback in src/llama-quant.cpp, llama.cpp 0c1e570.
    """
    wanted = STORAGES[name]
    if wanted.fits((row,)):
        return name
    smaller = _SMALLER_BLOCKS.get(name, name if wanted.block_elements <= 32 else None)
    if smaller is None:
        raise BadInput(
            f"llama.cpp can't store rows of {row:,} values as {name}: not a multiple of {wanted.block_elements}",
            hint="choose another quantization, for instance Q4_K_M",
        )
    return smaller if STORAGES[smaller].fits((row,)) else "F16"
