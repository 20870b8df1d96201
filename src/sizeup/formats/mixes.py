"""The llama.cpp mixes: `Q4_K_M` and its like name a type for each tensor of a model.

    mix_types(mix, tensors, hparams=…)  the type of each tensor, as `llama-quantize` assigns them
    mix_bytes(…)                        their sum, to the byte; bytes_by_mix(…) for several mixes at once

Checked tensor by tensor against llama_model_quantize of llama-cpp-python 0.3.36 (llama.cpp 0c1e570).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.errors import BadInput
from sizeup.formats.ggml import fallback, is_quantized
from sizeup.formats.gguf_tensors import GgufTensor, at_least_q8, converted_type, kind_of, may_quantize
from sizeup.formats.mix_rules import (
    DEFAULTS,
    NEEDS_IMATRIX,
    Spot,
    depends_on_place,
    embedding_type,
    matrix_type,
    output_type,
)
from sizeup.formats.storage import STORAGES, Shape, nearest

# Other spellings, and the community's mixes with a better embedding and output head (bartowski's model cards:
# "uses Q8_0 for embed and output weights").
_ALIASES = {"Q2_K_M": "Q2_K", "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}
_WIDE_ENDS = {"Q2_K_L": "Q2_K", "Q3_K_XL": "Q3_K_L", "Q4_K_L": "Q4_K_M", "Q5_K_L": "Q5_K_M", "Q6_K_L": "Q6_K"}
_SPELLINGS = {"FP32": "F32", "FP16": "F16", "BFLOAT16": "BF16", "FLOAT16": "F16", "FLOAT32": "F32"}

# Architectures and layer counts that llama.cpp types as "70B", which raises attn_v in low mixes.
_SEVENTY = {("llama", 80), ("qwen2", 80), ("deci", 80), ("olmo", 80), ("jais2", 68)}


class MixHparams(msgspec.Struct, frozen=True):
    """What the mixes ask of a model, named as in a GGUF header.

    block_count: layers, those of multi-token prediction included.
    head_count, head_count_kv: of the first layer (latent attention has one KV head in GGUF); 0 KV heads when that
    layer has no attention. expert_count: routed experts, 0 for a dense model.
    """

    architecture: str
    block_count: int
    head_count: int = 1
    head_count_kv: int = 1
    expert_count: int = 0

    @property
    def grouping(self) -> int:
        """⌊head_count / head_count_kv⌋; 0 without attention."""
        return self.head_count // self.head_count_kv if self.head_count_kv else 0

    @property
    def seventy(self) -> bool:
        """Whether llama.cpp calls it a 70B: by layer count, and for llama only with grouped heads."""
        grouped = self.head_count != self.head_count_kv or self.architecture != "llama"
        return (self.architecture, self.block_count) in _SEVENTY and grouped


class Mix(msgspec.Struct, frozen=True):
    """A mix by its canonical name, and whether its ends (embedding and output head) are kept at a better type."""

    name: str
    default: str
    ends: str = ""

    @property
    def needs_imatrix(self) -> bool:
        """Whether llama-quantize refuses to make it without an importance matrix."""
        return self.name in NEEDS_IMATRIX


MIXES: tuple[str, ...] = (*DEFAULTS, *_WIDE_ENDS)


def mix(name: str) -> Mix:
    """A mix by any usual spelling. Raises BadInput for an unknown one, naming the nearest."""
    key = str(name).strip().upper().replace("-", "_")
    key = _ALIASES.get(key) or _SPELLINGS.get(key) or key
    if key in _WIDE_ENDS:
        base = _WIDE_ENDS[key]
        return Mix(base, DEFAULTS[base], ends="Q8_0")
    if key in DEFAULTS:
        return Mix(key, DEFAULTS[key])
    if key.startswith("UD_"):
        raise BadInput(
            f"{str(name)[:80]!r} is chosen tensor by tensor by its maker, not by a rule",
            hint="give the GGUF file or its repository: the header says which tensor has which type",
        )
    near = nearest(key, (*MIXES, *_ALIASES))
    hint = f"did you mean {' or '.join(near)}?" if near else f"known mixes: {', '.join(MIXES)}"
    raise BadInput(f"unknown GGUF mix: {str(name)[:80]!r}", hint=hint)


def mix_types(
    name: str,
    tensors: Sequence[GgufTensor],
    *,
    hparams: MixHparams,
    imatrix: bool | None = None,
    source: str = "BF16",
    embedding: str = "",
    output: str = "",
) -> list[str]:
    """The GGML type of each tensor in a file of this mix, in the order of `tensors`.

    imatrix: made with an importance matrix; None means only where the mix can't be made without one.
    source: the type of the converted file; what isn't quantized keeps it (or stays F32, see converted_type).
    embedding, output: as llama-quantize's --token-embedding-type and --output-tensor-type.

    NVFP4 isn't made by llama-quantize: the converter takes it from a checkpoint, whose quantized matrices are those
    inside the layers; the head and the embedding keep the source's type.
    Raises BadInput for an unknown mix and where llama.cpp itself refuses (Q1_0 with odd rows).
    """
    chosen = mix(name)
    if not is_quantized(chosen.default):
        return [converted_type(tensor, chosen.default) for tensor in tensors]
    groups = _alike(tensors, hparams.architecture)
    choice = _choice(chosen, hparams, groups, imatrix, source=source, embedding=embedding, output=output)
    types = [""] * len(tensors)
    for group in groups:
        for spot, kind in zip(group.members, choice.types(group), strict=True):
            types[spot.position] = kind
    return types


def mix_bytes(
    name: str,
    tensors: Sequence[GgufTensor],
    *,
    hparams: MixHparams,
    imatrix: bool | None = None,
    source: str = "BF16",
    embedding: str = "",
    output: str = "",
) -> int:
    """Bytes of all tensors in a file of this mix: Σ rows · blocks · block_bytes; without header and padding."""
    types = mix_types(
        name, tensors, hparams=hparams, imatrix=imatrix, source=source, embedding=embedding, output=output
    )
    return sum(STORAGES[kind].bytes_of(tensor.shape) for kind, tensor in zip(types, tensors, strict=True))


def bytes_by_mix(names: Sequence[str], tensors: Sequence[GgufTensor], *, hparams: MixHparams) -> dict[str, int]:
    """`mix_bytes` of several mixes, for which the tensors are looked at once."""
    groups = _alike(tensors, hparams.architecture)
    return {name: _group_bytes(mix(name), groups, hparams) for name in names}


def _group_bytes(chosen: Mix, groups: tuple[_Alike, ...], hparams: MixHparams) -> int:
    choice = _choice(chosen, hparams, groups)
    amount = 0
    for group in groups:
        if is_quantized(chosen.default):
            types = choice.types(group)
        else:
            types = [converted_type(group.tensor, chosen.default)] * len(group.members)
        for kind in set(types):
            amount += types.count(kind) * STORAGES[kind].bytes_of(group.tensor.shape)
    return amount


class _Member(msgspec.Struct, frozen=True):
    """Where a tensor stands. position: in the list given; nth: among those of its kind that are quantized."""

    position: int
    layer: int
    nth: int


class _Alike(msgspec.Struct, frozen=True):
    """Tensors of many layers that differ only in their place.

    tensor: one of them. kind: the quantizer's category. touched: whether it quantizes them. members: in its order.
    """

    tensor: GgufTensor
    kind: str
    touched: bool
    members: list[_Member]


def _alike(tensors: Sequence[GgufTensor], architecture: str) -> tuple[_Alike, ...]:
    """The tensors by name inside the layer and shape; places are counted in the quantizer's order."""
    placed = [(tensor.layer, tensor.name, position) for position, tensor in enumerate(tensors)]
    placed.sort()
    groups: dict[tuple[str, Shape, str], _Alike] = {}
    seen: dict[str, int] = {}
    for layer, name, position in placed:
        tensor = tensors[position]
        inner = name.split(".", 2)[2] if layer >= 0 else name
        key = (inner, tensor.shape, tensor.stored)
        group = groups.get(key)
        if group is None:
            group = groups[key] = _Alike(tensor, kind_of(name), may_quantize(tensor, architecture), [])
        nth = seen.get(group.kind, 0)
        if group.touched:
            seen[group.kind] = nth + 1
        group.members.append(_Member(position, layer, nth))
    return tuple(groups.values())


def _choice(
    chosen: Mix,
    hparams: MixHparams,
    groups: tuple[_Alike, ...],
    imatrix: bool | None = None,
    *,
    source: str = "BF16",
    embedding: str = "",
    output: str = "",
) -> _Choice:
    return _Choice(
        chosen,
        hparams,
        with_imatrix=chosen.needs_imatrix if imatrix is None else imatrix,
        source=source,
        embedding=embedding or chosen.ends,
        output=output or chosen.ends,
        attention=sum(len(group.members) for group in groups if group.kind == "attention_v"),
        tied=all(group.kind != "output" for group in groups),
    )


class _Choice(msgspec.Struct, frozen=True):
    """One run of the quantizer over a file.

    attention: how many tensors are of the kind `attention_v`. tied: whether the file has no output head.
    """

    mix: Mix
    hparams: MixHparams
    with_imatrix: bool
    source: str
    embedding: str
    output: str
    attention: int
    tied: bool

    def types(self, group: _Alike) -> list[str]:
        """The type of each of its members; one for all where the rule doesn't ask for the place."""
        if not group.touched:
            return [converted_type(group.tensor, self.source)] * len(group.members)
        if depends_on_place(group.kind, self.mix.name):
            return [self._type(group, member) for member in group.members]
        return [self._type(group, group.members[0])] * len(group.members)

    def _spot(self, group: _Alike, member: _Member) -> Spot:
        hparams, shape = self.hparams, group.tensor.shape
        return Spot(
            mix=self.mix.name,
            default=self.mix.default,
            architecture=hparams.architecture,
            nth=member.nth,
            of=self.attention if group.kind == "attention_v" else hparams.block_count,
            layer=member.layer if hparams.expert_count > 1 else member.nth,
            grouping=hparams.grouping,
            experts=hparams.expert_count,
            imatrix=self.with_imatrix,
            seventy=hparams.seventy,
            experts_merged=len(shape) > 2 and shape[-3] > 1,
        )

    def _type(self, group: _Alike, member: _Member) -> str:
        spot, tensor, kind = self._spot(group, member), group.tensor, group.kind
        if kind == "embedding" and self.embedding:
            wanted = self.embedding
        elif kind == "output" and self.output:
            wanted = self.output
        elif self.mix.name == "NVFP4":
            wanted = self._nvfp4(tensor, kind)
        elif at_least_q8(tensor.name, spot.architecture):
            wanted = "Q8_0"
        elif kind == "output" or (self.tied and kind == "embedding"):
            wanted = self.output or output_type(spot, STORAGES[spot.default].fits((tensor.row,)))
        elif kind == "embedding":
            wanted = embedding_type(spot)
        else:
            wanted = matrix_type(kind, spot)
        return fallback(wanted, tensor.row)

    def _nvfp4(self, tensor: GgufTensor, kind: str) -> str:
        inside = tensor.layer >= 0 and kind not in {"embedding", "output"}
        return "NVFP4" if inside and STORAGES["NVFP4"].fits((tensor.row,)) else self.source
