"""From a GGUF header to a model: every tensor of the file, to the byte."""

from __future__ import annotations

from collections import Counter

import msgspec

from sizeup.formats.ggml import is_quantized
from sizeup.models.gguf_metadata import GgufMetadata
from sizeup.models.gguf_mixers import ENCODERS, GgufMixers
from sizeup.models.gguf_names import GgufName, expert_number, role_of, split_name
from sizeup.models.grouping import LayerKind, Placed, blocks_of, feed_forward_of, layer_name, with_copies
from sizeup.models.mixers import Attention, Mixer
from sizeup.models.model import Block, Facts, Model
from sizeup.models.prompt_template import template_family
from sizeup.models.sources.header import Header, StoredTensor
from sizeup.models.tensors import Tensor

#: `general.file_type` → the mix; include/llama.h, llama.cpp 0c1e570.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
_PLAIN = frozenset({"F32", "F16", "BF16"})

_TOWER_KEYS = {"vision": "vision", "audio": "audio"}


def model_from_gguf(header: Header, name: str = "", origin: str = "") -> Model:
    """The model that a GGUF header describes. Raises BadFile and BadConfig for a header that contradicts itself.

    The sum of `Tensor.stored` bytes over all blocks is the header's `data_bytes`.
    """
    origin = origin or (header.files[0].name if header.files else "the GGUF header")
    meta = GgufMetadata(header, origin)
    reader = _Reader(meta)
    blocks = blocks_of(reader.placed(header.tensors), reader.describe)
    mix = _mix(meta)
    tower = meta.architecture == "clip"
    notes = () if header.complete else ("the file holds no tensor data: sizes are those its header declares",)
    return Model(
        name=name or meta.text("general.name") or origin,
        family=meta.architecture,
        blocks=_with_tied_head(blocks, headless=tower or meta.architecture in ENCODERS),
        hidden=reader.hidden,
        vocabulary=_vocabulary(meta, header),
        context=meta.own.optional_int("context_length", min=0) or None,
        road="gguf header",
        dtype=_main_type(header).lower(),
        scheme=None if mix in _PLAIN else mix,
        architecture=meta.architecture,
        origin=origin,
        notes=notes,
        facts=_facts(meta, tower=tower),
    )


class _Reader:
    """Places tensors in layers, and says what the layers do."""

    def __init__(self, meta: GgufMetadata) -> None:
        self.meta = meta
        self.mixers = GgufMixers(meta)
        self.hidden = meta.own.int(
            "embedding_length", "vision.embedding_length", "audio.embedding_length", min=0, default=0
        )
        self.predicting_from = meta.layers - meta.predicting if meta.predicting else None
        self.active = meta.by_layer("expert_used_count")
        self.widths = meta.by_layer("feed_forward_length")
        self.stems: dict[tuple[str, int], frozenset[str]] = {}

    def placed(self, tensors: tuple[StoredTensor, ...]) -> list[Placed]:
        """Every tensor of the file under its template name, experts gathered."""
        named = [(tensor, split_name(tensor.name)) for tensor in tensors]
        stems: dict[tuple[str, str, int], set[str]] = {}
        for _, name in named:
            if name.layer is not None:
                stems.setdefault((name.stack, name.prefix, name.layer), set()).add(name.stem)
        by_place = {place: frozenset(found) for place, found in stems.items()}
        self.stems = {(stack, layer): found for (stack, _, layer), found in by_place.items()}
        groups: dict[Placed, list[int]] = {}
        for tensor, name in named:
            around = by_place.get((name.stack, name.prefix, name.layer or 0), frozenset())
            one = self._outside(tensor, name) if name.layer is None else self._inside(tensor, name, name.layer, around)
            number = expert_number(name.stem)
            groups.setdefault(one, []).extend([] if number is None else [number])
        return [placed for one, numbers in groups.items() for placed in with_copies(one, numbers)]

    def _outside(self, stored: StoredTensor, name: GgufName) -> Placed:
        role, part = role_of(name, frozenset())
        tensor = Tensor(stored.name, stored.shape, role, part, stored=stored.dtype)
        return Placed(tensor, name.stack, None, _section(name.stack, tensor))

    def _inside(self, stored: StoredTensor, name: GgufName, layer: int, stems: frozenset[str]) -> Placed:
        role, part = role_of(name, stems)
        if role == "attention" and self.mixers.is_linear_layer(layer, stems):
            role = "linear_attention"
        if role == "mlp":
            part = self._fused(part, name.stem, stored.shape, layer)
        tensor = Tensor(name.template, stored.shape, role, part, stored=stored.dtype)
        if role == "routed_expert":
            tensor = self._experts(tensor, layer, stacked=name.stem.endswith("exps"))
        return Placed(tensor, self._stack(name.stack, layer), layer)

    def _stack(self, stack: str, layer: int) -> str:
        if stack == "text" and self.meta.architecture in ENCODERS:
            return "encoder"
        predicting = self.predicting_from is not None and stack == "text" and layer >= self.predicting_from
        return "mtp" if predicting else stack

    def _fused(self, part: str, stem: str, shape: tuple[int, ...], layer: int) -> str:
        """`gate_up` for an up projection that holds both halves of a gated feed-forward (Phi-3, GLM-4)."""
        width = self.widths[layer] if layer < len(self.widths) else 0
        return "gate_up" if stem == "ffn_up" and len(shape) == 2 and width and shape[0] == 2 * width else part

    def _experts(self, tensor: Tensor, layer: int, *, stacked: bool) -> Tensor:
        """How many experts a token uses; a stacked tensor of all experts becomes `copies` of one."""
        used = self.active[layer] if layer < len(self.active) else 0
        if not stacked or not tensor.shape:
            return msgspec.structs.replace(tensor, active=used or None)
        copies, *shape = tensor.shape
        return msgspec.structs.replace(
            tensor, shape=tuple(shape), copies=copies, active=min(used, copies) or None, fused="stacked"
        )

    def describe(self, stack: str, layer: int, tensors: tuple[Tensor, ...]) -> LayerKind:
        """The kind of a layer."""
        if stack in {"vision", "audio", "projector"}:
            return LayerKind(f"{stack} layer", self._tower_mixers(stack))
        stems = self.stems.get((stack, layer)) or self.stems.get(("text", layer), frozenset())
        keys = next((tensor.shape[0] for tensor in tensors if tensor.part == "k" and tensor.is_matrix), 0)
        mixers = self.mixers.of(stack, layer, stems, keys)
        forward = feed_forward_of(tensors, self.hidden) if self.hidden else None
        name = layer_name(mixers, forward, tensors)
        if stack in {"encoder", "decoder"} and self.meta.architecture not in ENCODERS:
            name = f"{stack} {name}"
        return LayerKind(_with_formats(name, tensors), mixers, forward)

    def _tower_mixers(self, stack: str) -> tuple[Mixer, ...]:
        own, key = self.meta.own, _TOWER_KEYS.get(stack, "")
        heads = own.optional_int(f"{key}.attention.head_count")
        width = own.optional_int(f"{key}.embedding_length")
        if not (heads and width):
            return ()
        size = own.int(f"{key}.attention.head_dim", default=max(1, width // heads))
        return (Attention(heads, own.int(f"{key}.attention.head_count_kv", default=heads), size, size, causal=False),)


def _section(stack: str, tensor: Tensor) -> str:
    if stack in {"vision", "audio"}:
        return f"{stack} tower"
    if stack == "projector":
        return "projector"
    if tensor.role in {"head", "norm"} and not tensor.name.startswith("token_embd"):
        return "output"
    return "embedding" if tensor.role != "mtp" else "multi-token prediction"


def _with_formats(name: str, tensors: tuple[Tensor, ...]) -> str:
    """The layer's name, with its quantized formats when it has any: a mix makes several kinds of the same layer."""
    formats = sorted({tensor.stored for tensor in tensors if tensor.stored and is_quantized(tensor.stored)})
    return f"{name} in {' and '.join(formats)}" if formats else name


def _with_tied_head(blocks: tuple[Block, ...], *, headless: bool) -> tuple[Block, ...]:
    """A file without `output.weight` multiplies by the embedding once more: add the tied head."""
    tensors = [tensor for block in blocks for tensor in block.tensors]
    table = next((tensor for tensor in tensors if tensor.name == "token_embd.weight"), None)
    if headless or table is None or any(tensor.role == "head" for tensor in tensors):
        return blocks
    head = Tensor("output.weight", table.shape, "head", "head", tied_to=table.name, stored=table.stored)
    if not any(block.name == "output" for block in blocks):
        return (*blocks, Block("output", (head,)))
    return tuple(
        msgspec.structs.replace(block, tensors=(*block.tensors, head)) if block.name == "output" else block
        for block in blocks
    )


def _vocabulary(meta: GgufMetadata, header: Header) -> int:
    known = meta.vocabulary
    if known is not None:
        return known
    table = next((tensor for tensor in header.tensors if tensor.name == "token_embd.weight"), None)
    return table.shape[0] if table and table.shape else 0


def _mix(meta: GgufMetadata) -> str | None:
    kind = meta.header.metadata.get("general.file_type")
    return _FILE_TYPES.get(kind & 1023) if isinstance(kind, int) else None


def _main_type(header: Header) -> str:
    """The type that holds the most bytes."""
    held: Counter[str] = Counter()
    for tensor in header.tensors:
        held[tensor.dtype] += tensor.nbytes
    return held.most_common(1)[0][0] if held else "F32"


def _facts(meta: GgufMetadata, *, tower: bool) -> Facts:
    template = meta.text("tokenizer.chat_template")
    languages = meta.header.metadata.get("general.languages")
    base = meta.text("general.base_model.0.repo_url") or meta.text("general.base_model.0.name")
    modalities: tuple[str, ...] = ("text",)
    if tower:
        kinds = (("clip.has_vision_encoder", "image"), ("clip.has_audio_encoder", "audio"))
        modalities = tuple(kind for key, kind in kinds if meta.header.metadata.get(key)) or ("image",)
    return Facts(
        licence=meta.text("general.license"),
        base_model=base.removeprefix("https://huggingface.co/") if base else None,
        prompt_template=template_family(template) if template else None,
        languages=tuple(str(item) for item in languages) if isinstance(languages, tuple) else (),
        modalities=modalities,
        source="GGUF metadata",
    )
