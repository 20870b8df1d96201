"""How each quantization method stores one linear layer's weight in a checkpoint: names, dtypes and shapes.

Shapes are `(…, out_features, in_features)`; `…` are merged experts. A layout's `parts` gives every stored tensor.

Sources: bitsandbytes 0.50 and compressed-tensors 0.20 (measured: their state dicts are the test oracles), AutoAWQ 0.2
`WQLinear_GEMM`, GPTQModel `TorchQuantLinear`, transformers 5.23 `FP8Linear` and `Mxfp4GptOssExperts`, ModelOpt 0.47's
`hf_quant_config`, mlx `nn.quantize`.
"""

from __future__ import annotations

from math import prod
from typing import Protocol

import msgspec

from sizeup.formats.storage import Shape, ceil_div, lookup


class StoredPart(msgspec.Struct, frozen=True):
    """A tensor in a checkpoint file. parameters: how many of the model's weights it carries (0 for scales)."""

    name: str
    dtype: str
    shape: Shape
    parameters: int = 0

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return lookup(self.dtype).bytes_of(self.shape)


class Layout(Protocol):
    """What a method stores for the weight of one module; `dtype` is that of the unquantized model."""

    def parts(self, module: str, shape: Shape, dtype: str) -> tuple[StoredPart, ...]:
        """Every stored tensor of the weight of `module`."""


def _grid(shape: Shape, rows: int, columns: int) -> Shape:
    """⌈out / rows⌉ × ⌈in / columns⌉ tiles; 0 stands for the whole extent."""
    *leading, out, width = shape
    return (*leading, ceil_div(out, rows or out or 1), ceil_div(width, columns or width or 1))


def _packed(shape: Shape, bits: int, word: int) -> Shape:
    """Values packed along the last dimension into words of `word` bits."""
    return (*shape[:-1], ceil_div(shape[-1] * bits, word))


class Plain(msgspec.Struct, frozen=True):
    """One tensor of one dtype."""

    dtype: str

    def parts(self, module: str, shape: Shape, dtype: str) -> tuple[StoredPart, ...]:  # noqa: ARG002
        """The weight alone."""
        return (StoredPart(f"{module}.weight", self.dtype, shape, prod(shape)),)


class Scaled(msgspec.Struct, frozen=True):
    """8 bit values with scales beside them: fp8 and int8 of several methods.

    tile: (rows, columns) of one scale, 0 for the whole extent; None for one scale of shape `single` for all.
    scale_dtype: empty for the model's own. zeros: asymmetric, with zero points of the values' dtype.
    input_scale: the name of a stored (static) activation scale, of shape `single`; empty when dynamic.
    """

    dtype: str = "F8_E4M3"
    scale: str = "weight_scale"
    scale_dtype: str = "F32"
    tile: tuple[int, int] | None = None
    single: Shape = ()
    zeros: bool = False
    input_scale: str = ""

    def parts(self, module: str, shape: Shape, dtype: str) -> tuple[StoredPart, ...]:
        """Weight and its scale; zero points and the activation's scale where there are any."""
        scale_dtype = self.scale_dtype or dtype
        grid = self.single if self.tile is None else _grid(shape, *self.tile)
        stored = [
            StoredPart(f"{module}.weight", self.dtype, shape, prod(shape)),
            StoredPart(f"{module}.{self.scale}", scale_dtype, grid),
        ]
        if self.zeros:
            stored.append(StoredPart(f"{module}.weight_zero_point", self.dtype, grid))
        if self.input_scale:
            stored.append(StoredPart(f"{module}.{self.input_scale}", scale_dtype, self.single))
        return tuple(stored)


class BnbInt8(msgspec.Struct, frozen=True):
    """bitsandbytes LLM.int8(): int8 rows, one fp32 absmax a row (SCB), one byte that names the layout.

    Outliers are split off from the activations at run time; nothing more is stored for them.
    """

    def parts(self, module: str, shape: Shape, dtype: str) -> tuple[StoredPart, ...]:  # noqa: ARG002
        """weight, SCB, weight_format."""
        return (
            StoredPart(f"{module}.weight", "I8", shape, prod(shape)),
            StoredPart(f"{module}.SCB", "F32", shape[:-1]),
            StoredPart(f"{module}.weight_format", "U8", ()),
        )


class Bnb4bit(msgspec.Struct, frozen=True):
    """bitsandbytes NF4 and FP4: two values in a byte, an absmax for every 64 values, a table of 16 code values.

    double: the absmax are themselves stored in 8 bit, in blocks of 256 with an fp32 absmax each, a table of 256 values
    and an offset. The quantization state is JSON in a byte tensor; the digits of its offset depend on the weights, so
    its length is known to a few bytes only (20 digits are assumed).
    """

    kind: str = "nf4"
    double: bool = False
    storage: str = "U8"
    block: int = 64
    nested_block: int = 256

    def parts(self, module: str, shape: Shape, dtype: str) -> tuple[StoredPart, ...]:
        """weight, absmax, quant_map, the nested ones, quant_state."""
        count = prod(shape)
        blocks = ceil_div(count, self.block)
        weight = f"{module}.weight"
        words = ceil_div(ceil_div(count, 2), lookup(self.storage).block_bytes)
        stored = [
            StoredPart(weight, self.storage, (words, 1), count),
            StoredPart(f"{weight}.absmax", "U8" if self.double else "F32", (blocks,)),
            StoredPart(f"{weight}.quant_map", "F32", (16,)),
        ]
        if self.double:
            stored.append(StoredPart(f"{weight}.nested_absmax", "F32", (ceil_div(blocks, self.nested_block),)))
            stored.append(StoredPart(f"{weight}.nested_quant_map", "F32", (256,)))
        state = StoredPart(f"{weight}.quant_state.bitsandbytes__{self.kind}", "U8", (self._state_bytes(shape, dtype),))
        return (*stored, state)

    def _state_bytes(self, shape: Shape, dtype: str) -> int:
        name = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}.get(dtype, dtype)
        text = f'{{"quant_type": "{self.kind}", "blocksize": {self.block}, "dtype": "{name}", "shape": {list(shape)}'
        if self.double:
            offset = "0." + 18 * "0"
            text += f', "nested_blocksize": {self.nested_block}, "nested_dtype": "float32", "nested_offset": {offset}'
        return len(text) + 1


class Awq(msgspec.Struct, frozen=True):
    """AWQ (GEMM layout): int32 words along the outputs, zeros packed alike, fp16 scales; stored transposed.

    group: input values for each scale; -1 for a whole row.
    """

    bits: int = 4
    group: int = 128

    def parts(self, module: str, shape: Shape, dtype: str) -> tuple[StoredPart, ...]:  # noqa: ARG002
        """Qweight (in, out·bits/32), qzeros (groups, out·bits/32), scales (groups, out)."""
        *leading, out, width = shape
        groups = ceil_div(width, self.group if self.group > 0 else width)
        words = ceil_div(out * self.bits, 32)
        return (
            StoredPart(f"{module}.qweight", "I32", (*leading, width, words), prod(shape)),
            StoredPart(f"{module}.qzeros", "I32", (*leading, groups, words)),
            StoredPart(f"{module}.scales", "F16", (*leading, groups, out)),
        )


class Gptq(msgspec.Struct, frozen=True):
    """GPTQ: int32 words along the inputs, packed zeros, fp16 scales, and the group of each input (g_idx).

    g_idx is stored whether or not the activations are ordered (desc_act); AutoRound leaves it out.
    """

    bits: int = 4
    group: int = 128
    group_index: bool = True

    def parts(self, module: str, shape: Shape, dtype: str) -> tuple[StoredPart, ...]:  # noqa: ARG002
        """Qweight (in·bits/32, out), qzeros (groups, out·bits/32), scales (groups, out), g_idx (in)."""
        *leading, out, width = shape
        groups = ceil_div(width, self.group if self.group > 0 else width)
        stored = (
            StoredPart(f"{module}.qweight", "I32", (*leading, ceil_div(width * self.bits, 32), out), prod(shape)),
            StoredPart(f"{module}.qzeros", "I32", (*leading, groups, ceil_div(out * self.bits, 32))),
            StoredPart(f"{module}.scales", "F16", (*leading, groups, out)),
        )
        index = StoredPart(f"{module}.g_idx", "I32", (*leading, width))
        return (*stored, index) if self.group_index else stored


class Nvfp4(msgspec.Struct, frozen=True):
    """NVFP4: two e2m1 values in a byte, an e4m3 scale for 16 of them, an fp32 scale for the tensor.

    names: of values, block scales, tensor scale and (empty when dynamic) input scale. single: shape of the fp32 ones.
    """

    names: tuple[str, str, str, str] = ("weight", "weight_scale", "weight_scale_2", "input_scale")
    single: Shape = ()

    def parts(self, module: str, shape: Shape, dtype: str) -> tuple[StoredPart, ...]:  # noqa: ARG002
        """The packed values and the two or three levels of scales."""
        values, blocks, tensor, activation = self.names
        singles = [StoredPart(f"{module}.{name}", "F32", self.single) for name in (tensor, activation) if name]
        return (
            StoredPart(f"{module}.{values}", "U8", _packed(shape, 4, 8), prod(shape)),
            StoredPart(f"{module}.{blocks}", "F8_E4M3", _grid(shape, 1, 16)),
            *singles,
        )


class Mxfp4(msgspec.Struct, frozen=True):
    """MXFP4: two e2m1 values in a byte, a power-of-two scale for 32 of them.

    names: of values and scales; gpt-oss appends `_blocks` and `_scales` to the parameter's own name and keeps the
    blocks as a dimension of 16 bytes.
    """

    names: tuple[str, str] = ("_blocks", "_scales")
    scale_dtype: str = "U8"

    def parts(self, module: str, shape: Shape, dtype: str) -> tuple[StoredPart, ...]:  # noqa: ARG002
        """The packed values and the scales."""
        scales = _grid(shape, 1, 32)
        values = (*scales, 16) if self.names[0] == "_blocks" else _packed(shape, 4, 8)
        return (
            StoredPart(module + self.names[0], "U8", values, prod(shape)),
            StoredPart(module + self.names[1], self.scale_dtype, scales),
        )


class PackedInt(msgspec.Struct, frozen=True):
    """compressed-tensors `pack-quantized`: integers packed along the inputs into int32 words, the shape beside them.

    group: input values for each scale; 0 for one scale a row, -1 for one for all. zeros: asymmetric. group_index: the
    group of each input (activation order).
    """

    bits: int = 4
    group: int = 128
    zeros: bool = False
    group_index: bool = False

    def parts(self, module: str, shape: Shape, dtype: str) -> tuple[StoredPart, ...]:
        """weight_packed, weight_scale, weight_shape; weight_zero_point and weight_g_idx where there are any."""
        scales = (1,) if self.group < 0 else _grid(shape, 1, self.group)
        stored = [
            StoredPart(f"{module}.weight_packed", "I32", _packed(shape, self.bits, 32), prod(shape)),
            StoredPart(f"{module}.weight_scale", dtype, scales),
            StoredPart(f"{module}.weight_shape", "I64", (len(shape),)),
        ]
        if self.zeros and len(scales) > 1:
            words = ceil_div(scales[-2] * self.bits, 32)
            stored.append(StoredPart(f"{module}.weight_zero_point", "I32", (*scales[:-2], words, scales[-1])))
        if self.group_index:
            stored.append(StoredPart(f"{module}.weight_g_idx", "I32", (shape[-1],)))
        return tuple(stored)


class Affine(msgspec.Struct, frozen=True):
    """MLX: unsigned integers packed along the inputs into uint32 words, a scale and a bias for each group."""

    bits: int = 4
    group: int = 64

    def parts(self, module: str, shape: Shape, dtype: str) -> tuple[StoredPart, ...]:
        """weight, scales, biases."""
        groups = _grid(shape, 1, self.group)
        return (
            StoredPart(f"{module}.weight", "U32", _packed(shape, self.bits, 32), prod(shape)),
            StoredPart(f"{module}.scales", dtype, groups),
            StoredPart(f"{module}.biases", dtype, groups),
        )


class Generic(msgspec.Struct, frozen=True):
    """A method whose files aren't modelled tensor by tensor: bits, a scale and perhaps a zero for each group."""

    bits: int = 4
    group: int = 64
    zeros: bool = True

    def parts(self, module: str, shape: Shape, dtype: str) -> tuple[StoredPart, ...]:
        """Packed values, scales and zeros, with generic names."""
        scales = StoredPart(f"{module}.weight_scale", dtype, _grid(shape, 1, self.group))
        zeros = StoredPart(f"{module}.weight_zero", dtype, scales.shape)
        values = StoredPart(f"{module}.weight", "U8", (ceil_div(prod(shape) * self.bits, 8),), prod(shape))
        return (values, scales, zeros) if self.zeros else (values, scales)
