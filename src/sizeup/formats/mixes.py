"""The llama.cpp mixes: `Q4_K_M` and its like name a type for each tensor of a model.

    mix_types(mix, tensors, hparams=…)  the type of each tensor, as `llama-quantize` assigns them
    mix_bytes(…)                        their sum, to the byte

Checked tensor by tensor against llama_model_quantize of llama-cpp-python 0.3.36 (llama.cpp 0c1e570).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    ordered = sorted(range(len(tensors)), key=lambda i: tensors[i].order)
    choice = _Choice(
        chosen,
        hparams,
        with_imatrix=chosen.needs_imatrix if imatrix is None else imatrix,
        source=source,
        embedding=embedding or chosen.ends,
        output=output or chosen.ends,
    )
    types = dict(zip(ordered, choice.types([tensors[i] for i in ordered]), strict=True))
    return [types[i] for i in range(len(tensors))]


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


class _Choice(msgspec.Struct, frozen=True):
    """One run of the quantizer over a file."""

    mix: Mix
    hparams: MixHparams
    with_imatrix: bool
    source: str
    embedding: str
    output: str

    def types(self, tensors: list[GgufTensor]) -> Iterator[str]:
        """The types of tensors that are already in the quantizer's order."""
        traits = self._traits(tensors)
        attention = sum(kind == "attention_v" for _, kind, _ in traits)
        tied = all(kind != "output" for _, kind, _ in traits)
        seen: dict[str, int] = {}
        chosen: dict[tuple[str, Shape, int, int], str] = {}
        for tensor, (inner, kind, touched) in zip(tensors, traits, strict=True):
            if not touched:
                yield converted_type(tensor, self.source)
                continue
            nth = seen.get(kind, 0)
            seen[kind] = nth + 1
            place = (nth, tensor.layer) if depends_on_place(kind, self.mix.name) else (0, 0)
            key = (inner, tensor.shape, *place)
            if key not in chosen:
                spot = self._spot(tensor, nth=nth, of=attention if kind == "attention_v" else self.hparams.block_count)
                chosen[key] = self._type(tensor, kind, spot, tied=tied)
            yield chosen[key]

    def _traits(self, tensors: list[GgufTensor]) -> list[tuple[str, str, bool]]:
        """Name without the layer, kind, and whether the quantizer touches it; every layer has the same few names."""
        known: dict[tuple[str, int], tuple[str, str, bool]] = {}
        traits = []
        for tensor in tensors:
            inner = tensor.inner
            key = (inner, tensor.dimensions)
            if key not in known:
                known[key] = (inner, kind_of(tensor.name), may_quantize(tensor, self.hparams.architecture))
            traits.append(known[key])
        return traits

    def _spot(self, tensor: GgufTensor, *, nth: int, of: int) -> Spot:
        hparams = self.hparams
        return Spot(
            mix=self.mix.name,
            default=self.mix.default,
            architecture=hparams.architecture,
            nth=nth,
            of=of,
            layer=tensor.layer if hparams.expert_count > 1 else nth,
            grouping=hparams.grouping,
            experts=hparams.expert_count,
            imatrix=self.with_imatrix,
            seventy=hparams.seventy,
            experts_merged=len(tensor.shape) > 2 and tensor.shape[-3] > 1,
        )

    def _type(self, tensor: GgufTensor, kind: str, spot: Spot, *, tied: bool) -> str:
        if kind == "embedding" and self.embedding:
            wanted = self.embedding
        elif kind == "output" and self.output:
            wanted = self.output
        elif self.mix.name == "NVFP4":
            wanted = self._nvfp4(tensor, kind)
        elif at_least_q8(tensor.name, spot.architecture):
            wanted = "Q8_0"
        elif kind == "output" or (tied and kind == "embedding"):
            wanted = self.output or output_type(spot, STORAGES[spot.default].fits((tensor.row,)))
        elif kind == "embedding":
            wanted = embedding_type(spot)
        else:
            wanted = matrix_type(kind, spot)
        return fallback(wanted, tensor.row)

    def _nvfp4(self, tensor: GgufTensor, kind: str) -> str:
        inside = tensor.layer >= 0 and kind not in {"embedding", "output"}
        return "NVFP4" if inside and STORAGES["NVFP4"].fits((tensor.row,)) else self.source
