"""What an anatomy returns, and the frame that most text decoders share: embedding, layers, final norm, head."""

from __future__ import annotations

import msgspec

from sizeup.models.anatomy.parts import Tensors, block, head, norm, weight
from sizeup.models.config import MAX_LAYERS, Config
from sizeup.models.mixers import Attention
from sizeup.models.model import Block


class Anatomy(msgspec.Struct, frozen=True):
    """The blocks of a model and the sizes that don't follow from them.

    context: the longest sequence the configuration names; None when it names none.
    notes: what a reader of the numbers should know (`multi-token prediction layers are stored, but not built`).
    """

    blocks: tuple[Block, ...]
    hidden: int
    vocabulary: int
    context: int | None = None
    notes: tuple[str, ...] = ()


class Sizes(msgspec.Struct, frozen=True):
    """The sizes that nearly every decoder's configuration names, under the usual names."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    context: int | None


def sizes(cfg: Config) -> Sizes:
    """Read the usual names and their older aliases. head_dim defaults to hidden / heads, kv_heads to heads."""
    hidden = cfg.int("hidden_size", "n_embd", "d_model")
    heads = cfg.int("num_attention_heads", "n_head", "n_heads")
    return Sizes(
        hidden=hidden,
        layers=cfg.int("num_hidden_layers", "n_layer", "n_layers", max=MAX_LAYERS),
        heads=heads,
        kv_heads=cfg.int("num_key_value_heads", "num_kv_heads", default=heads),
        head_dim=cfg.int("head_dim", default=max(1, hidden // heads)),
        ffn=cfg.int("intermediate_size", "n_inner", "ffn_dim", "d_ff", default=4 * hidden),
        vocabulary=cfg.int("vocab_size"),
        context=cfg.optional_int("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length"),
    )


def full_attention(s: Sizes, *, window: int | None = None, softcap: float | None = None) -> Attention:
    """Grouped-query attention of those sizes, over everything or over a sliding window."""
    return Attention(s.heads, s.kv_heads, s.head_dim, s.head_dim, window=window, softcap=softcap)


def layer_kinds(cfg: Config, layers: int, default: str = "full_attention") -> list[str]:
    """The configuration's `layer_types`, one for each layer; all `default` when it has none."""
    kinds = cfg.strs("layer_types")
    if kinds is None:
        return [default] * layers
    if len(kinds) != layers:
        raise cfg.bad("layer_types", f"{len(kinds)} entries", f"one for each of {layers} layers")
    return list(kinds)


def text_frame(
    cfg: Config,
    s: Sizes,
    layers: tuple[Block, ...],
    *,
    prefix: str = "model",
    embedding: str = "embed_tokens",
    final_norm: str = "norm",
    norm_bias: bool = False,
    head_name: str = "lm_head",
    head_bias: bool = False,
    tied: bool = False,
    positions: Tensors = (),
    extra: tuple[Block, ...] = (),
    notes: tuple[str, ...] = (),
) -> Anatomy:
    """Embedding, layers, final norm and head of a text decoder.

    tied: whether the head shares the embedding's values when the configuration doesn't say
    (`tie_word_embeddings`; transformers' class default). positions: learned position tables.
    extra: blocks after the head (multi-token prediction).
    """
    table = f"{prefix}.{embedding}.weight"
    tied_to = table if cfg.bool("tie_word_embeddings", default=tied) else ""
    blocks = (
        block("embedding", weight(table, (s.vocabulary, s.hidden), "embedding", "tokens"), positions),
        *layers,
        block(
            "output",
            norm(f"{prefix}.{final_norm}", s.hidden, bias=norm_bias),
            head(head_name, s.vocabulary, s.hidden, tied_to=tied_to, bias=head_bias),
        ),
        *extra,
    )
    return Anatomy(blocks, s.hidden, s.vocabulary, s.context, notes)
