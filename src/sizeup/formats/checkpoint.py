"""Quantized Hugging Face checkpoints: which tensors a method really stores for a weight, and their bytes.

scheme_from_config(config)   from a model's config.json (or its quantization_config, or a hf_quant_config.json)
scheme("awq-4bit-g128")      the same by name, for "what if"
scheme.stored(name, shape)   the stored tensors: packed values, scales, zeros, code books
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import msgspec

from sizeup.errors import BadInput
from sizeup.formats.checkpoint_layouts import (
    Affine,
    Awq,
    Bnb4bit,
    BnbInt8,
    Gptq,
    Layout,
    Mxfp4,
    Nvfp4,
    PackedInt,
    Scaled,
    StoredPart,
)
from sizeup.formats.name_patterns import NamePatterns
from sizeup.formats.storage import Shape, lookup, nearest
from sizeup.formats.tensor_kinds import KINDS, kind_of_checkpoint_tensor
from sizeup.quantity import Term, leaf, total


class Group(msgspec.Struct, frozen=True):
    """A layout and the modules that it's for. targets None: every linear layer. layout None: stays as it is."""

    layout: Layout | None
    targets: NamePatterns | None = None


class CheckpointScheme(msgspec.Struct, frozen=True):
    """How a checkpoint stores its weights.

    method, name: the config's `quant_method` and a readable name of the scheme.
    dtype: of what isn't quantized. groups: tried in order; the first whose targets match a module is used.
    ignored: modules that stay as they are. head, embeddings: whether these are quantized like linear layers.
    kv_scales: the dtype of a stored scale for the K and the V cache of each layer; empty when there's none.
    exact: False when the method's files are modelled by bits and groups only.
    """

    name: str
    method: str
    dtype: str = "BF16"
    groups: tuple[Group, ...] = ()
    ignored: NamePatterns = NamePatterns()
    head: bool = False
    embeddings: bool = False
    kv_scales: str = ""
    exact: bool = True

    def layout_for(self, name: str, shape: Shape, kind: str = "") -> Layout | None:
        """The layout of a weight, or None when it stays as it is. kind: one of KINDS; guessed from the name if empty.

        Raises BadInput for an unknown kind.
        """
        kind = kind or kind_of_checkpoint_tensor(name, shape)
        if kind not in KINDS:
            raise BadInput(f"unknown kind of tensor: {kind!r}", hint=f"one of {', '.join(KINDS)}")
        wanted = {"linear": True, "head": self.head, "embedding": self.embeddings}.get(kind, False)
        module = name.removesuffix(".weight")
        if not wanted or len(shape) < 2 or self.ignored.match(module):
            return None
        for group in self.groups:
            if group.targets is None or group.targets.match(module):
                return group.layout
        return None

    def stored(
        self, name: str, shape: Shape, *, kind: str = "", dtype: str = "", in_axis: int = -1
    ) -> tuple[StoredPart, ...]:
        """The tensors stored for one tensor of the model.

        name, shape: as in the unquantized checkpoint, `(…, out, in)`. kind: see layout_for. dtype: of this tensor when
        it isn't quantized and differs from the scheme's. in_axis: -2 for weights stored `(…, in, out)`.
        """
        plain = lookup(dtype or self.dtype).name
        layout = self.layout_for(name, shape, kind)
        if layout is None:
            return (StoredPart(name, plain, shape, prod(shape)),)
        if in_axis == -2:
            shape = (*shape[:-2], shape[-1], shape[-2])
        module = name.removesuffix(".weight")
        parts = layout.parts(module, shape, plain)
        return parts + self._cache_scales(module)

    def _cache_scales(self, module: str) -> tuple[StoredPart, ...]:
        """The scale of a quantized K or V cache: ModelOpt keeps it at the projection, others at the attention."""
        parent, _, projection = module.rpartition(".")
        if not self.kv_scales or projection not in {"k_proj", "v_proj"}:
            return ()
        holder, shape = (module, ()) if self.method == "modelopt" else (parent, (1,))
        return (StoredPart(f"{holder}.{projection[0]}_scale", self.kv_scales, shape),)

    def term(self, name: str, shape: Shape, *, kind: str = "", dtype: str = "", in_axis: int = -1) -> Term:
        """The bytes of one tensor of the model, with their derivation."""
        parts = self.stored(name, shape, kind=kind, dtype=dtype, in_axis=in_axis)
        return total(name, [leaf(part.name, part.bytes, f"{part.dtype} {part.shape}") for part in parts])


def stored_bytes(parts: tuple[StoredPart, ...]) -> int:
    """Σ bytes of stored tensors."""
    return sum(part.bytes for part in parts)


_FP8_ROWS = Scaled(tile=(1, 0), scale_dtype="")
_BY_NAME: dict[str, Layout] = {
    "fp8": _FP8_ROWS,
    "fp8-block128": Scaled(scale="weight_scale_inv", tile=(128, 128)),
    "fp8-tensor": Scaled(input_scale="input_scale"),
    "int8": Scaled(dtype="I8", tile=(1, 0), scale_dtype=""),
    "bnb-int8": BnbInt8(),
    "nf4": Bnb4bit("nf4"),
    "nf4-dq": Bnb4bit("nf4", double=True),
    "bnb-fp4": Bnb4bit("fp4"),
    "bnb-fp4-dq": Bnb4bit("fp4", double=True),
    "nvfp4": Nvfp4(),
    "mxfp4": Mxfp4((".weight_packed", ".weight_scale")),
    "mxfp8": Scaled(scale_dtype="U8", tile=(1, 32)),
    "w4a16": PackedInt(4, 128),
    "w8a16": PackedInt(8, 128),
    "mlx-4bit": Affine(4, 64),
    "mlx-8bit": Affine(8, 64),
}
_PLAIN = {"fp32": "F32", "float32": "F32", "f32": "F32", "bf16": "BF16", "bfloat16": "BF16"}
_PLAIN |= {"fp16": "F16", "float16": "F16", "f16": "F16"}
_WITH_GROUPS: dict[str, Callable[[int, int], Layout]] = {"awq": Awq, "gptq": Gptq, "mlx": Affine}
_OTHER_NAMES = {"awq": "awq-4bit-g128", "gptq": "gptq-4bit-g128", "bnb-nf4": "nf4", "bnb-4bit": "nf4", "w8a8": "int8"}

SCHEMES: tuple[str, ...] = ("fp32", "bf16", "fp16", *_BY_NAME, "awq-4bit-g128", "gptq-4bit-g128", "gptq-8bit-g128")


def scheme(name: str, *, dtype: str = "BF16") -> CheckpointScheme:
    """A scheme by name, for questions about checkpoints that don't exist (yet).

    name: one of SCHEMES, or `awq-{bits}bit-g{group}`, `gptq-…`, `mlx-…` with other bits and groups.
    dtype: of what stays unquantized. Head, embeddings, norms and routers stay (MLX: only norms and vectors).
    Raises BadInput for an unknown name, naming the nearest.
    """
    key = str(name).strip().lower().replace("_", "-")
    key = _OTHER_NAMES.get(key, key)
    if key in _PLAIN:
        return CheckpointScheme(key, "none", _PLAIN[key])
    layout = _BY_NAME.get(key) or _grouped(key)
    if layout is None:
        near = nearest(key, SCHEMES)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(SCHEMES)}"
        raise BadInput(f"unknown checkpoint format: {str(name)[:80]!r}", hint=hint)
    mlx = isinstance(layout, Affine)
    plain = lookup(dtype).name
    return CheckpointScheme(key, key.partition("-")[0], plain, (Group(layout),), head=mlx, embeddings=mlx)


def _grouped(key: str) -> Layout | None:
    """`gptq-8bit-g64` → Gptq(8, 64); None when it isn't of this form."""
    method, _, rest = key.partition("-")
    bits, _, group = rest.partition("-")
    digits = bits.removesuffix("bit")
    width = (group.removeprefix("g") or "128") if group or bits.endswith("bit") else ""
    if method not in _WITH_GROUPS or not digits.isdecimal() or not width.lstrip("-").isdecimal():
        return None
    if int(digits) not in {2, 3, 4, 5, 6, 8} or not (int(width) == -1 or 8 <= int(width) <= 65536):
        return None
    return _WITH_GROUPS[method](int(digits), int(width))
