"""What the tensors of a quantized safetensors file stand for: logical weights, and the scales beside them.

    X.qweight + X.scales (+ X.qzeros, X.g_idx)         GPTQ (packed along the inputs), AWQ (along the outputs)
    X.weight_packed + X.weight_scale                   compressed-tensors: int32 words, or two e2m1 values in a byte
    X.weight (U8) + X.weight_scale (+ _scale_2)        NVFP4 and MXFP4
    X_blocks + X_scales                                MXFP4 of gpt-oss
    X.weight (U32) + X.scales + X.biases               MLX
    X.weight (U8) + X.weight.absmax, .quant_state…     bitsandbytes 4 bit: flat, its shape is not in the header
    X.weight (F8, I8) + X.weight_scale(_inv), X.SCB    eight bits: as stored

Names and layouts: see `sizeup.formats.checkpoint_layouts`, which describes the other direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import msgspec

from sizeup.formats import lookup
from sizeup.models.sources.header import StoredTensor

#: Endings of what lies beside a module's packed weight.
_BESIDE_WEIGHT = (
    ".weight_scale_inv", ".weight_scale", ".weight_scale_2", ".weight_scales", ".weight_global_scale",
    ".weight_zero_point", ".weight_shape", ".weight_g_idx", ".weight_format", ".input_scale", ".input_global_scale",
    ".activation_scale", ".output_scale", ".SCB", ".scale", ".k_scale", ".v_scale",
)  # fmt: skip
_BESIDE_WORDS = (".qzeros", ".scales", ".g_idx")
_BESIDE_MLX = (".scales", ".biases")
_BITSANDBYTES = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_ENDINGS = (*_BESIDE_WEIGHT, *_BESIDE_WORDS, *_BESIDE_MLX, "_scales")
_MXFP4_GROUP = 32
_MLX_GROUP = 64
_USUAL_BITS = 4


class Logical(msgspec.Struct, frozen=True):
    """A tensor of the model as a file holds it.

    stored: its format, such that its bytes are those of `shape`. side: it is a scale, zero or code book.
    flat: only the number of its elements is known.
    """

    name: str
    shape: tuple[int, ...]
    stored: str
    side: bool = False
    flat: bool = False


class PackingHints(msgspec.Struct, frozen=True):
    """What a header doesn't say: bits of packed words, and MLX's group size; None when nobody says."""

    bits: int | None = None
    group: int | None = None


def unpack(tensors: Iterable[StoredTensor], hints: PackingHints | None = None) -> list[Logical]:
    """The logical tensors of a file, in its order; their bytes are the file's, to the byte."""
    by_name = {tensor.name: tensor for tensor in tensors}
    hints = hints or PackingHints()
    result: list[Logical] = []
    for tensor in by_name.values():
        if _is_beside(tensor.name, by_name):
            result.append(Logical(tensor.name, tensor.shape, tensor.dtype, side=True))
            continue
        logical = _weight(tensor, by_name, hints)
        result.append(logical)
        padding = tensor.nbytes - lookup(logical.stored).bytes_of(logical.shape)
        if padding > 0:
            result.append(Logical(f"{logical.name} padding", (padding,), "U8", side=True))
    return result


def _is_beside(name: str, by_name: Mapping[str, StoredTensor]) -> bool:
    if not name.endswith(_ENDINGS) and ".weight." not in name:
        return False
    for ending in _BESIDE_WEIGHT:
        if name.endswith(ending):
            module = name.removesuffix(ending)
            return f"{module}.weight" in by_name or f"{module}.weight_packed" in by_name
    for ending in _BESIDE_WORDS:
        if name.endswith(ending) and f"{name.removesuffix(ending)}.qweight" in by_name:
            return True
    for ending in _BESIDE_MLX:
        weight = by_name.get(f"{name.removesuffix(ending)}.weight") if name.endswith(ending) else None
        if weight is not None and weight.dtype == "U32":
            return True
    if ".weight." in name:
        return name.endswith(_BITSANDBYTES) or ".weight.quant_state." in name
    return name.endswith("_scales") and f"{name.removesuffix('_scales')}_blocks" in by_name


def _weight(tensor: StoredTensor, by_name: Mapping[str, StoredTensor], hints: PackingHints) -> Logical:
    name, shape = tensor.name, tensor.shape
    if name.endswith(".qweight"):
        return _words(tensor, by_name)
    if name.endswith(".weight_packed"):
        logical = f"{name.removesuffix('_packed')}"
        if tensor.dtype == "U8":
            return Logical(logical, (*shape[:-1], 2 * shape[-1]), "F4")
        bits = hints.bits or _USUAL_BITS
        return Logical(logical, (*shape[:-1], shape[-1] * 32 // bits), f"I{bits}")
    if name.endswith("_blocks") and f"{name.removesuffix('_blocks')}_scales" in by_name and len(shape) > 2:
        return Logical(name.removesuffix("_blocks"), (*shape[:-2], shape[-2] * shape[-1] * 2), "F4")
    module = name.removesuffix(".weight")
    if f"{name}.absmax" in by_name:
        return Logical(name, (2 * tensor.nbytes,), "F4", flat=True)
    if tensor.dtype == "U8" and f"{module}.weight_scale" in by_name and shape:
        return Logical(name, (*shape[:-1], 2 * shape[-1]), "F4")
    scale = by_name.get(f"{module}.scale")
    if tensor.dtype == "I8" and scale and shape and scale.shape[-1:] == (2 * shape[-1] // _MXFP4_GROUP,):
        return Logical(name, (*shape[:-1], 2 * shape[-1]), "F4")
    scales = by_name.get(f"{module}.scales")
    if tensor.dtype == "U32" and scales is not None and shape and scales.shape and scales.shape[-1]:
        return _mlx(name, shape, scales.shape[-1], hints)
    return Logical(name, shape, tensor.dtype)


def _mlx(name: str, shape: tuple[int, ...], groups: int, hints: PackingHints) -> Logical:
    """MLX's words: by the bits of the scheme where the scales agree, else by the group size (mixed bits)."""
    group = hints.group or _MLX_GROUP
    if hints.bits:
        values = shape[-1] * 32 // hints.bits
        if -(-values // group) == groups:
            return Logical(name, (*shape[:-1], values), f"I{hints.bits}")
    values = groups * group
    return Logical(name, (*shape[:-1], values), f"I{max(1, round(32 * shape[-1] / values))}")


def _words(tensor: StoredTensor, by_name: Mapping[str, StoredTensor]) -> Logical:
    """GPTQ and AWQ: bits and the logical shape (outputs, inputs) follow from the scales' and zeros' shapes."""
    module = tensor.name.removesuffix(".qweight")
    scales, zeros = by_name.get(f"{module}.scales"), by_name.get(f"{module}.qzeros")
    name, bits = f"{module}.weight", 4
    if scales is None or len(tensor.shape) < 2 or len(scales.shape) < 2 or not prod(scales.shape):
        return Logical(name, (tensor.nbytes * 2,), "I4", flat=True)
    *leading, rows, columns = tensor.shape
    outputs = scales.shape[-1]
    if columns == outputs:
        if zeros is not None and zeros.shape and zeros.shape[-1]:
            bits = max(1, round(32 * zeros.shape[-1] / outputs))
        inputs = rows * 32 // bits
    else:
        bits, inputs = max(1, round(32 * columns / outputs)), rows
    return Logical(name, (*leading, outputs, inputs), f"I{bits}")
