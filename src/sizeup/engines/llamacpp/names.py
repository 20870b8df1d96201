"""From a model's tensors to those of the GGUF file that llama.cpp's converter writes: names, shapes, merges, splits.

The rules go by role and part, so that a new family works by default; what can't be told by role and part (norms,
mostly) goes by the last words of the checkpoint's name. Names are those of TENSOR_NAMES in
gguf-py/gguf/constants.py, transformations those of conversion/*.py, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from sizeup.engines.llamacpp.architectures import architecture_of
from sizeup.engines.llamacpp.memo import by_model
from sizeup.formats.gguf_tensors import GgufTensor
from sizeup.formats.mixes import MixHparams
from sizeup.models.mixers import Attention, LatentAttention
from sizeup.models.model import Block, Model
from sizeup.models.tensors import Tensor

Shape = tuple[int, ...]

#: Roles that are not in the text model's file: towers go to a projector file (`--mmproj`), buffers and scales nowhere.
_ELSEWHERE = frozenset({"vision", "audio", "projector", "buffer", "scale"})
_TEXT_STACKS = frozenset({"text", "encoder", "decoder", "mtp"})


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
        if block.stack in _TEXT_STACKS:
            written += _block(block, architecture)
    return tuple(written)


@by_model
def mix_hparams(model: Model) -> MixHparams:
    """What the mixes ask of this model: layers, heads of the first layer, experts."""
    attention = next((m for b in model.blocks for m in b.mixers if isinstance(m, Attention | LatentAttention)), None)
    first = _first_mixer(model)
    kv_heads = 0 if first is None else getattr(first, "kv_heads", 1)
    return MixHparams(
        architecture=architecture_of(model) if model.road != "gguf header" else model.family,
        block_count=layer_count(model),
        head_count=attention.heads if attention else 1,
        head_count_kv=kv_heads,
        expert_count=max((b.feed_forward.experts for b in model.blocks if b.feed_forward), default=0),
    )


def layer_count(model: Model) -> int:
    """`block_count`: the layers of the text stack and those of multi-token prediction."""
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


def _block(block: Block, architecture: str) -> Iterator[Written]:
    pieces = [piece for tensor in block.tensors for piece in _pieces(tensor, block, architecture)]
    pieces += _extra_pieces(block, architecture)
    prefix = {"encoder": "enc.", "decoder": "dec."}.get(block.stack, "") if architecture in _PREFIXED else ""
    for layer in block.layers or (-1,):
        for piece in pieces:
            name = f"{prefix}blk.{layer}.{piece.stem}{piece.suffix}" if layer >= 0 else f"{piece.stem}{piece.suffix}"
            yield Written(name, piece.shape, layer, piece.source.role, piece.source.part)


_PREFIXED = frozenset({"t5", "t5encoder"})


def _pieces(tensor: Tensor, block: Block, architecture: str) -> Iterator[_Piece]:
    """What one tensor of the model becomes: nothing, itself under another name, or several."""
    if tensor.tied_to or (tensor.role in _ELSEWHERE and tensor.part != "router_correction"):
        return
    leaf = _leaf(tensor.name)
    if tensor.role in {"embedding", "head"} or not block.layers:
        stem = _outside(tensor, leaf)
        if stem:
            yield _Piece(stem, _suffix(tensor), tensor.shape, tensor)
        return
    if tensor.part == "kv_b":
        yield from _split_kv_b(tensor, block)
        return
    if tensor.part == "gate_up" and tensor.role == "routed_expert":
        yield from _split_gate_up(tensor)
        return
    stem = _inside(tensor, leaf, block)
    yield _Piece(stem, _suffix_inside(tensor, stem), _shape(tensor, stem), tensor)


def _suffix(tensor: Tensor) -> str:
    return ".bias" if tensor.name.endswith((".bias", "_bias")) else ".weight"


def _suffix_inside(tensor: Tensor, stem: str) -> str:
    if tensor.part == "router_correction":
        return ".bias"
    if stem in {"ssm_a", "ssm_d"}:
        return ""
    if stem == "ssm_dt" and len(tensor.shape) == 1:
        return ".bias"
    return _suffix(tensor)


def _leaf(name: str) -> str:
    """The words that tell what a tensor is: the name without prefix, layer number and `.weight`/`.bias`."""
    tail = name.rsplit("{layer}.", 1)[-1]
    for suffix in (".weight", ".bias"):
        tail = tail.removesuffix(suffix)
    return tail


def _shape(tensor: Tensor, stem: str) -> Shape:
    """The shape in the file: experts stacked, convolutions without their middle dimension."""
    shape = tensor.shape
    if stem.startswith("ssm_conv1d") or stem == "shortconv.conv":
        shape = tuple(extent for extent in shape if extent != 1)
    return (tensor.copies, *shape) if tensor.copies > 1 else shape


def _split_kv_b(tensor: Tensor, block: Block) -> Iterator[_Piece]:
    """Latent attention's expansion, split for the absorbed form: k_b (heads, kv_rank, nope), v_b (heads, value, kv_rank)."""
    mixer = next(m for m in block.mixers if isinstance(m, LatentAttention))
    yield _Piece("attn_k_b", ".weight", (mixer.heads, mixer.kv_rank, mixer.nope_dim), tensor)
    yield _Piece("attn_v_b", ".weight", (mixer.heads, mixer.value_dim, mixer.kv_rank), tensor)


def _split_gate_up(tensor: Tensor) -> Iterator[_Piece]:
    """A merged gate and up projection of all experts becomes two tensors of half the width."""
    stacked = (tensor.copies, *tensor.shape) if tensor.copies > 1 else tensor.shape
    axis = 1 if len(stacked) > 1 else 0
    half = tuple(extent // 2 if i == axis else extent for i, extent in enumerate(stacked))
    for stem in ("ffn_gate_exps", "ffn_up_exps"):
        yield _Piece(stem, _suffix(tensor), half, tensor)


def _extra_pieces(block: Block, architecture: str) -> Iterable[_Piece]:
    """Tensors that the converter makes up."""
    del block, architecture
    return ()


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────

_OUTSIDE_PARTS = {"tokens": "token_embd", "positions": "position_embd", "types": "token_types", "head": "output"}
_OUTSIDE_WORDS = (
    ("token_type", "token_types"),
    ("position", "position_embd"),
    ("wpe", "position_embd"),
    ("per_layer_projection_norm", "per_layer_proj_norm"),
    ("per_layer_model_projection", "per_layer_model_proj"),
    ("embed_tokens_per_layer", "per_layer_token_embd"),
    ("embedding_norm", "token_embd_norm"),
    ("embeddings.LayerNorm", "token_embd_norm"),
    ("embeddings.layer_norm", "token_embd_norm"),
    ("embeddings_layernorm", "token_embd_norm"),
    ("word_embeddings_layernorm", "token_embd_norm"),
    ("emb_ln", "token_embd_norm"),
)


def _outside(tensor: Tensor, leaf: str) -> str:
    """The stem of a tensor outside the layers; empty for what the converter drops."""
    if tensor.role == "norm":
        return next((stem for word, stem in _OUTSIDE_WORDS if word in leaf), "output_norm")
    if tensor.part in _OUTSIDE_PARTS:
        return _OUTSIDE_PARTS[tensor.part]
    if "pooler" in leaf:
        return ""
    found = next((stem for word, stem in _OUTSIDE_WORDS if word in leaf), None)
    return found or ("token_embd" if tensor.role == "embedding" else "output" if tensor.role == "head" else leaf)


_ATTENTION = {
    "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "qkv": "attn_qkv", "gate": "attn_gate",
    "q_a": "attn_q_a", "q_b": "attn_q_b", "kv_a": "attn_kv_a_mqa", "kv_b": "attn_kv_b", "sinks": "attn_sinks",
    "relative_bias": "attn_rel_b", "relative": "attn_rel_b",
}  # fmt: skip
_CROSS = {"q": "cross_attn_q", "k": "cross_attn_k", "v": "cross_attn_v", "o": "cross_attn_o"}
_DENSE = {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down", "gate_up": "ffn_up"}
_STATE_SPACE = {
    "in": "ssm_in", "conv": "ssm_conv1d", "x": "ssm_x", "dt": "ssm_dt", "a": "ssm_a", "a_log": "ssm_a", "d": "ssm_d",
    "out": "ssm_out", "norm": "ssm_norm", "ba": "ssm_ba", "beta": "ssm_beta", "alpha": "ssm_alpha", "b": "ssm_beta",
    "a_proj": "ssm_alpha", "qkv": "attn_qkv", "z": "attn_gate", "gate": "attn_gate",
}  # fmt: skip

#: The last words of norms' names → stem, when the layer has norms after its halves, and when it hasn't.
_NORMS = (
    (("q_a_layernorm", "q_a_norm"), "attn_q_a_norm"),
    (("kv_a_layernorm", "kv_a_norm"), "attn_kv_a_norm"),
    (("q_norm", "q_layernorm", "query_layernorm", "q_ln"), "attn_q_norm"),
    (("k_norm", "k_layernorm", "key_layernorm", "k_ln"), "attn_k_norm"),
    (("pre_feedforward_layernorm", "pre_mlp_layernorm", "pre_ff_layernorm", "ffn_norm", "mlp_norm", "ln_mlp",
      "norm_2", "ln_2", "post_ln", "norm2"), "ffn_norm"),
    (("post_feedforward_layernorm", "post_mlp_layernorm"), "post_ffw_norm"),
    (("post_self_attn_layernorm",), "post_attention_norm"),
    (("attention.output.LayerNorm", "sa_layer_norm", "attention.output.layernorm"), "attn_output_norm"),
    (("output.LayerNorm", "output_layer_norm"), "layer_output_norm"),
    (("input_layernorm", "attention_norm", "attn_norm", "ln_attn", "ln_1", "norm_1", "norm1", "operator_norm",
      "layer_norm", "input_norm"), "attn_norm"),
)  # fmt: skip
_AFTER = ("post_feedforward_layernorm", "pre_feedforward_layernorm")


def _inside(tensor: Tensor, leaf: str, block: Block) -> str:
    """The stem of a tensor inside a layer, by role and part; the checkpoint's own words when no rule knows it."""
    part = tensor.part
    match tensor.role:
        case "norm":
            return _norm(leaf, part, block)
        case "attention":
            cross = "EncDec" in leaf or "crossattention" in leaf or "cross_attn" in leaf
            return (_CROSS if cross else _ATTENTION).get(part, leaf)
        case "mlp":
            return _DENSE.get(part, leaf)
        case "routed_expert":
            return f"{_DENSE[part]}_exps" if part in _DENSE else leaf
        case "shared_expert":
            return (
                "ffn_gate_inp_shexp" if part == "shared_gate" else f"{_DENSE[part]}_shexp" if part in _DENSE else leaf
            )
        case "router":
            return "ffn_gate_inp"
        case "state_space" | "linear_attention":
            return _STATE_SPACE.get(part, leaf)
    return "exp_probs_b" if part == "router_correction" else leaf


def _norm(leaf: str, part: str, block: Block) -> str:
    if part in {"q_norm", "k_norm", "q_a_norm", "kv_a_norm"}:
        return f"attn_{part}"
    if leaf.endswith("post_attention_layernorm"):
        after = any(word in tensor.name for tensor in block.tensors for word in _AFTER)
        return "post_attention_norm" if after else "ffn_norm"
    for words, stem in _NORMS:
        if leaf.endswith(words):
            return stem
    return "attn_norm" if leaf in {"norm", "ln"} else leaf.replace(".", "_") + "_norm"
