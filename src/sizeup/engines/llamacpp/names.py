"""From a model's tensors to those of the GGUF file that llama.cpp's converter writes: names, shapes, merges, splits.

Names come from `stems`; here is what the converter does to shapes: experts are stacked, fused experts and latent
attention's expansion are split, convolutions lose a dimension, towers go to a file of their own, tied heads nowhere.

Source: modify_tensors in conversion/*.py, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sizeup.engines.llamacpp.architectures import architecture_of
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.spelled import KEPT_PARTS, KEPT_WORDS, PREDICTING
from sizeup.engines.llamacpp.stems import PREDICTION, stem_inside, stem_outside
from sizeup.formats.gguf_tensors import GgufTensor
from sizeup.formats.mixes import MixHparams
from sizeup.models.mixers import Attention, LatentAttention, LinearAttention, StateSpace
from sizeup.models.model import Block, Model
from sizeup.models.tensors import Tensor

Shape = tuple[int, ...]

#: Roles that are not in the text model's file: towers go to a projector file (`--mmproj`), buffers and scales nowhere.
_ELSEWHERE = frozenset({"vision", "audio", "projector", "buffer", "scale"})
_TEXT_STACKS = frozenset({"text", "encoder", "decoder", "mtp"})
#: Encoders that llama.cpp uses for embeddings only: heads and poolers are dropped.
HEADLESS = frozenset({"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2",
                      "jina-bert-v3", "eurobert", "t5encoder", "gemma-embedding"})  # fmt: skip
#: Checkpoints that store matrices as (in, out); the file has them the usual way round.
_TRANSPOSED = frozenset({"gpt2", "gpt-sw3", "openai-gpt"})
#: Architectures that expand latent attention instead of absorbing it, and that keep gate and up of experts merged.
EXPANDED = frozenset({"minicpm3", "plm"})
_FUSED_EXPERTS = frozenset({"mistral4", "gemma4"})
_STACK_PREFIXES = {"encoder": "enc.", "decoder": "dec."}


class Written(msgspec.Struct, frozen=True):
    """One tensor of the GGUF file, and what it is for.

    shape: row-major (a GGUF header lists it reversed). layer: -1 outside the layers.
    role, part: of the model's tensor it comes from. stored: its type when a header names it, else empty.
    """

    name: str
    shape: Shape
    layer: int
    role: str
    part: str
    stored: str = ""

    @property
    def gguf(self) -> GgufTensor:
        """The same tensor as the mixes know it."""
        return GgufTensor(self.name, self.shape, self.stored)


@by_model
def gguf_tensors(model: Model) -> tuple[Written, ...]:
    """Every tensor of the GGUF file, in the model's order. Tied heads, buffers and towers are left out."""
    if model.road == "gguf header":
        return tuple(_from_header(model))
    architecture = architecture_of(model)
    written: list[Written] = []
    for block in model.blocks:
        if block.stack == "mtp":
            if architecture in PREDICTING:
                written += _prediction(block, model, architecture)
        elif block.stack in _TEXT_STACKS:
            written += _block(block, architecture, model.family)
    padded = (_padded(tensor, model.vocabulary) for tensor in written)
    return (*padded, *_rotary(model, architecture))


def _padded(tensor: Written, vocabulary: int) -> Written:
    """Gemma 3n's embeddings of layers get empty rows for the tokens that stand for images and sound."""
    if tensor.name != "per_layer_token_embd.weight" or tensor.shape[0] >= vocabulary:
        return tensor
    return msgspec.structs.replace(tensor, shape=(vocabulary, *tensor.shape[1:]))


def _rotary(model: Model, architecture: str) -> Iterator[Written]:
    """Gemma 4's full layers turn a quarter of each head: the file says so in half a head of factors."""
    mixers = (m for b in model.blocks if b.stack == "text" for m in b.mixers if isinstance(m, Attention))
    mixer = next((m for m in mixers if m.reach is None), None)
    if architecture == "gemma4" and mixer:
        yield Written("rope_freqs.weight", (mixer.head_dim // 2,), -1, "buffer", "rope_freqs")


@by_model
def mix_hparams(model: Model) -> MixHparams:
    """What the mixes ask of this model: layers, heads of the first layer, experts."""
    attention = next((m for b in model.blocks for m in b.mixers if isinstance(m, Attention | LatentAttention)), None)
    first = _first_mixer(model)
    kv_heads = 0 if first is None else getattr(first, "kv_heads", 1)
    return MixHparams(
        architecture=architecture_of(model),
        block_count=layer_count(model),
        head_count=attention.heads if attention else 1,
        head_count_kv=kv_heads,
        expert_count=max((b.feed_forward.experts for b in model.blocks if b.feed_forward), default=0),
    )


@by_model
def layer_count(model: Model) -> int:
    """`block_count`: the layers of the text stack and those of multi-token prediction that the file has."""
    if architecture_of(model) not in PREDICTING:
        return model.layers
    return model.layers + sum(len(b.layers) for b in model.blocks if b.stack == "mtp")


def _first_mixer(model: Model) -> Attention | LatentAttention | None:
    """The attention of the first layer; None when that layer has none."""
    first = next((b for b in model.blocks if 0 in b.layers and b.stack in _TEXT_STACKS), None)
    return next((m for m in first.mixers if isinstance(m, Attention | LatentAttention)), None) if first else None


def _from_header(model: Model) -> Iterator[Written]:
    for block in model.blocks:
        for layer in block.layers or (-1,):
            for tensor in block.tensors:
                if tensor.tied_to:
                    continue
                name = tensor.name.replace("{layer}", str(layer))
                shape = (tensor.copies, *tensor.shape) if tensor.copies > 1 else tensor.shape
                yield Written(name, shape, layer, tensor.role, tensor.part, (tensor.stored or model.dtype).upper())


# ── one block ─────────────────────────────────────────────────────────────────────────────────────────────────


class _Piece(msgspec.Struct, frozen=True):
    """A tensor of one layer before the layer's number is put in: stem (`attn_q`), suffix (`.weight`), shape."""

    stem: str
    suffix: str
    shape: Shape
    source: Tensor


def _block(block: Block, architecture: str, family: str) -> Iterator[Written]:
    pieces = [
        piece
        for tensor in block.tensors
        for piece in _pieces(_turned(tensor, family), block, architecture)
        if piece.stem
    ]
    prefix = _STACK_PREFIXES.get(block.stack, "") if architecture.startswith("t5") else ""
    for layer in block.layers or (-1,):
        for piece in pieces:
            name = f"blk.{layer}.{piece.stem}" if layer >= 0 else piece.stem
            stored = "I32" if piece.source.part == "router_table" else ""
            yield Written(
                f"{prefix}{name}{piece.suffix}", piece.shape, layer, piece.source.role, piece.source.part, stored
            )


def _prediction(block: Block, model: Model, architecture: str) -> Iterator[Written]:
    """Layers of multi-token prediction: numbered on after the trunk's, their tensors named like the trunk's."""
    layered = [b for b in model.blocks if b.layers and b.stack == "text"]
    like = {_words(t.name): t for b in sorted(layered, key=lambda b: b.layers[-1]) for t in b.tensors}
    first = model.layers
    numbers = tuple(n if n >= first else first + n for n in block.layers) or (first,)
    for tensor in block.tensors:
        words = _words(tensor.name).removeprefix("mtp.")
        if words not in PREDICTION:
            words = words.removeprefix("full_attention.").removeprefix("moe.")
        if words in PREDICTION:
            pieces = [_Piece(PREDICTION[words], _suffix(tensor), tensor.shape, tensor)]
        elif words in like:
            known = msgspec.structs.replace(tensor, role=like[words].role)
            pieces = [p for p in _pieces(_turned(known, model.family), block, architecture) if p.stem]
        else:
            continue
        for layer in numbers:
            for piece in pieces:
                yield Written(f"blk.{layer}.{piece.stem}{piece.suffix}", piece.shape, layer, "mtp", tensor.part)


def _turned(tensor: Tensor, family: str) -> Tensor:
    """A layer's matrix in the usual orientation, (out, in)."""
    if family not in _TRANSPOSED or tensor.role not in {"attention", "mlp"} or len(tensor.shape) != 2:
        return tensor
    return msgspec.structs.replace(tensor, shape=tensor.shape[::-1])


def _pieces(tensor: Tensor, block: Block, architecture: str) -> Iterator[_Piece]:
    """What one tensor of the model becomes: nothing, itself under another name, or several."""
    words = _words(tensor.name)
    kept = tensor.part in KEPT_PARTS or words in KEPT_WORDS
    if tensor.tied_to or (tensor.role in _ELSEWHERE and not kept):
        return
    if not block.layers:
        if tensor.role != "head" or architecture not in HEADLESS:
            shape = _without_padding_positions(tensor, architecture)
            if tensor.copies > 1:
                shape = (tensor.copies, *shape)
            yield _Piece(stem_outside(tensor, words, architecture), _suffix(tensor), shape, tensor)
        return
    if tensor.part == "kv_b" and architecture not in EXPANDED:
        yield from _split_kv_b(tensor, block)
        return
    if tensor.part == "qkvz":
        yield from _split_qkvz(tensor, block)
        return
    stem = stem_inside(tensor, words, block, architecture)
    if tensor.part == "gate_up" and tensor.role == "routed_expert" and architecture not in _FUSED_EXPERTS:
        yield from _split_gate_up(_stacked(tensor, block), "_exps", axis=1)
        return
    if tensor.part == "gate_up" and tensor.role == "shared_expert":
        yield from _split_gate_up(tensor, "_shexp" if stem.endswith("_shexp") else "", axis=0)
        return
    shape = _stacked(tensor, block).shape if tensor.role == "routed_expert" else _shape(tensor, stem, block)
    yield _Piece(stem, _suffix_inside(tensor, stem, architecture), shape, tensor)


def _words(name: str) -> str:
    """The words that tell what a tensor is: the name without prefix, layer number and `.weight`/`.bias`."""
    tail = name.rsplit("{layer}.", 1)[-1]
    for suffix in (".weight", ".bias"):
        tail = tail.removesuffix(suffix)
    return tail


def _suffix(tensor: Tensor) -> str:
    return ".bias" if tensor.name.endswith((".bias", "_bias")) and tensor.part != "relative_bias" else ".weight"


def _suffix_inside(tensor: Tensor, stem: str, architecture: str) -> str:
    if stem.endswith(".scale"):
        return ""
    if stem == "exp_probs_b":
        return "" if architecture == "hy_v3" else ".bias"
    if stem in {"ssm_a", "ssm_d"} or (stem == "ffn_norm" and architecture == "falcon-h1"):
        return ""
    if stem == "ssm_dt" and len(tensor.shape) == 1:
        return ".bias"
    return ".weight" if stem == "attn_sinks" else _suffix(tensor)


def _without_padding_positions(tensor: Tensor, architecture: str) -> Shape:
    """RoBERTa's position table starts behind its padding token: those two rows are cut off."""
    if architecture == "bert" and tensor.part == "positions" and tensor.shape[0] % 256 == 2:
        return (tensor.shape[0] - 2, *tensor.shape[1:])
    return tensor.shape


def _shape(tensor: Tensor, stem: str, block: Block) -> Shape:
    """The shape in the file: convolutions lose their middle dimension, one value a head becomes a column."""
    shape = tuple(extent for extent in tensor.shape if extent != 1)
    if stem in {"ssm_conv1d", "shortconv.conv", "exp_probs_b"}:
        return shape
    if stem.startswith("ssm_conv1d_"):
        return (1, shape[0], 1, shape[1])
    space = next((m for m in block.mixers if isinstance(m, StateSpace)), None)
    if space and space.version > 1 and stem in {"ssm_a", "ssm_d"}:
        return (*shape, 1)
    if space and space.version > 1 and stem == "ssm_norm":
        return (space.groups, shape[0] // space.groups)
    return tensor.shape


def _stacked(tensor: Tensor, block: Block) -> Tensor:
    """All experts of a projection as one tensor, (experts, out, in); checkpoints for `bmm` have them (in, out)."""
    shape = (tensor.copies, *tensor.shape) if tensor.copies > 1 else tensor.shape
    if block.feed_forward and len(shape) == 3:
        width = block.feed_forward.expert_width
        inner = 2 * width if tensor.part == "gate_up" else width
        place = -2 if tensor.part == "down" else -1
        if shape[place] == inner and shape[-1] != shape[-2]:
            shape = (shape[0], shape[2], shape[1])
    return msgspec.structs.replace(tensor, shape=shape, copies=1)


def _split_kv_b(tensor: Tensor, block: Block) -> Iterator[_Piece]:
    """Latent attention's expansion, split for the absorbed form.

    k_b: (heads, kv_rank, nope_dim), transposed; v_b: (heads, value_dim, kv_rank).
    """
    mixer = next(m for m in block.mixers if isinstance(m, LatentAttention))
    yield _Piece("attn_k_b", ".weight", (mixer.heads, mixer.kv_rank, mixer.nope_dim), tensor)
    yield _Piece("attn_v_b", ".weight", (mixer.heads, mixer.value_dim, mixer.kv_rank), tensor)


def _split_qkvz(tensor: Tensor, block: Block) -> Iterator[_Piece]:
    """A gated delta net's merged projection: queries, keys and values apart from the output gate."""
    mixer = next(m for m in block.mixers if isinstance(m, LinearAttention))
    hidden = tensor.shape[-1]
    yield _Piece("attn_qkv", ".weight", (mixer.conv_channels, hidden), tensor)
    yield _Piece("attn_gate", ".weight", (mixer.heads * mixer.value_dim, hidden), tensor)


def _split_gate_up(tensor: Tensor, ending: str, *, axis: int) -> Iterator[_Piece]:
    """A merged gate and up projection becomes two tensors of half the width."""
    half = tuple(extent // 2 if i == axis else extent for i, extent in enumerate(tensor.shape))
    for stem in (f"ffn_gate{ending}", f"ffn_up{ending}"):
        yield _Piece(stem, _suffix(tensor), half, tensor)
