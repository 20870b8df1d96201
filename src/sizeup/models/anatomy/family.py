"""What an anatomy returns, and the frame that most text decoders share: embedding, layers, final norm, head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sizeup.models.anatomy.parts import Part, Tensors, block, head, linear, norm, norm_tensors, stack_of, weight
from sizeup.models.anatomy.towers import labels_of
from sizeup.models.config import MAX_LAYERS, Config
from sizeup.models.mixers import Attention
from sizeup.models.model import Block

FULL = "full_attention"
SLIDING = "sliding_attention"
CHUNKED = "chunked_attention"
LINEAR = "linear_attention"
DENSE = "dense"
SPARSE = "sparse"
LEGACY_KINDS = {"mamba": LINEAR, "attention": FULL}
LABELS = {
    SLIDING: "sliding-window",
    CHUNKED: "chunked",
    LINEAR: "linear-attention",
    SPARSE: "mixture",
    "mamba": "state-space",
    "conv": "convolution",
    "recurrent": "recurrent",
    "hybrid": "hybrid",
}
PRE_NORMS = ("input_layernorm", "post_attention_layernorm")


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
    heads = cfg.int("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
    return Sizes(
        hidden=hidden,
        layers=cfg.int("num_hidden_layers", "n_layer", "n_layers", "num_layers", max=MAX_LAYERS),
        heads=heads,
        kv_heads=cfg.int("num_key_value_heads", "num_kv_heads", default=heads),
        head_dim=cfg.int("head_dim", default=max(1, hidden // heads)),
        ffn=cfg.int("intermediate_size", "n_inner", "ffn_dim", "d_ff", default=4 * hidden),
        vocabulary=cfg.int("vocab_size"),
        context=cfg.optional_int("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length"),
    )


def as_built(cfg: Config, anatomy: Anatomy) -> Anatomy:
    """The anatomy of a text decoder as the class in `architectures` builds it.

    A bare `…Model` (embedding models are published so) has no head, and its names lack the decoder's own prefix. A
    classifier (reward models, rerankers) has a projection to its labels in place of the head.
    """
    name = (cfg.strs("architectures") or ("",))[0]
    if name.endswith(("ForSequenceClassification", "ForTokenClassification")):
        return _classifying(cfg, anatomy, bias=name.endswith("ForTokenClassification"))
    if not name.endswith("Model") or "LMHead" in name:
        return anatomy
    prefix = f"{anatomy.blocks[0].tensors[0].name.partition('.')[0]}."
    blocks = (
        msgspec.structs.replace(
            block,
            tensors=tuple(
                msgspec.structs.replace(
                    tensor, name=tensor.name.removeprefix(prefix), tied_to=tensor.tied_to.removeprefix(prefix)
                )
                for tensor in block.tensors
                if tensor.name.startswith(prefix)
            ),
        )
        for block in anatomy.blocks
    )
    return msgspec.structs.replace(anatomy, blocks=tuple(block for block in blocks if block.tensors))


def _classifying(cfg: Config, anatomy: Anatomy, *, bias: bool) -> Anatomy:
    """The anatomy with `score`, hidden → labels, in place of its head."""
    kept = (
        msgspec.structs.replace(part, tensors=tuple(tensor for tensor in part.tensors if tensor.role != "head"))
        for part in anatomy.blocks
    )
    score = block("classifier", linear("score", labels_of(cfg), anatomy.hidden, "head", "classifier", bias=bias))
    return msgspec.structs.replace(anatomy, blocks=(*(part for part in kept if part.tensors), score))


def full_attention(s: Sizes, **twists: Any) -> Attention:
    """Grouped-query attention of those sizes; twists: further fields of the mixer (window, chunk, sinks, softcap)."""
    return Attention(s.heads, s.kv_heads, s.head_dim, s.head_dim, **twists)


def windowed(cfg: Config, s: Sizes, kind: str, **twists: Any) -> Attention:
    """Full attention, or over `sliding_window` tokens when the kind says so."""
    return full_attention(s, window=cfg.optional_int("sliding_window") if kind == SLIDING else None, **twists)


def layer_kinds(
    cfg: Config, layers: int, default: str | Sequence[str] = FULL, *names: str, known: Sequence[str] = ()
) -> list[str]:
    """The kind of every layer, as the configuration lists them (`layer_types`, or the names given).

    default: without a list, the kind of all layers, or a pattern that repeats. known: the kinds there may be. A list
    may go on with the layers that predict further tokens.
    """
    names = names or ("layer_types",)
    kinds = [LEGACY_KINDS.get(kind, kind) for kind in cfg.strs(*names) or ()]
    if not kinds:
        pattern = [default] if isinstance(default, str) else list(default)
        return [pattern[layer % len(pattern)] for layer in range(layers)]
    if len(kinds) == layers + (cfg.optional_int("num_nextn_predict_layers", min=0) or 0):
        kinds = kinds[:layers]
    if len(kinds) != layers:
        raise cfg.bad(names[0], f"a list of {len(kinds)}", f"a list with one entry for each of {layers} layers")
    for kind in kinds:
        if known and kind not in known:
            raise cfg.bad(names[0], kind, f"a list of {', '.join(known)}")
    return kinds


def sparse_halves(cfg: Config, layers: int, dense: int = 0) -> list[str]:
    """Which layers are mixtures: as `mlp_layer_types` lists them, else all but the first `dense`."""
    default = [DENSE] * min(dense, layers) + [SPARSE] * max(0, layers - dense)
    return layer_kinds(cfg, layers, default, "mlp_layer_types", known=(DENSE, SPARSE))


def every(layers: int, period: int, kind: str, others: str, offset: int = 0) -> list[str]:
    """`kind` in the layers `offset`, `offset` + period, …, and `others` in the rest."""
    return [kind if layer % period == offset % period else others for layer in range(layers)]


def decoder(
    cfg: Config,
    prefix: str,
    *,
    mix: Callable[[str], Part],
    feed_forward: Callable[[str], Part],
    s: Sizes | None = None,
    kinds: Sequence[str] = (),
    halves: Sequence[str] = (),
    norms: Sequence[str] = PRE_NORMS,
    norm_bias: bool = False,
    layers_name: str = "layers",
    **frame: Any,
) -> Anatomy:
    """A stack of layers of two halves, what mixes tokens and a feed-forward, with norms around them.

    kinds: what mixes tokens in every layer; all `full_attention` when left out. halves: the feed-forward of every
    layer; all `dense` when left out. mix, feed_forward: from such a name to the part. norms: those of a layer.
    frame: what `text_frame` takes.
    """
    s = s or sizes(cfg)
    pairs = tuple(zip(kinds or [FULL] * s.layers, halves or [DENSE] * s.layers, strict=True))

    def layer(pair: tuple[str, str]) -> list[Part]:
        return [mix(pair[0]), feed_forward(pair[1]), *(norm(name, s.hidden, bias=norm_bias) for name in norms)]

    layers = stack_of(f"{prefix}.{layers_name}", pairs, layer, label=layer_label)
    return text_frame(cfg, s, layers, prefix=prefix, norm_bias=norm_bias, **frame)


def layer_label(pair: tuple[str, str]) -> str:
    """A layer's name for people: `sliding-window mixture layer`."""
    return " ".join(word for word in (LABELS.get(pair[0], ""), LABELS.get(pair[1], ""), "layer") if word)


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
    may_tie: bool = True,
    positions: Tensors = (),
    before: Tensors = (),
    width: int = 0,
    extra_rows: int = 0,
    extra: tuple[Block, ...] = (),
    notes: tuple[str, ...] = (),
) -> Anatomy:
    """Embedding, layers, final norm and head of a text decoder.

    tied: whether the head shares the embedding's values when the configuration doesn't say
    (`tie_word_embeddings`); may_tie: whether its class ties at all. positions: learned position tables, and norms over
    embeddings. final_norm: empty when it has no weights. width: of embedding and head, when they aren't as wide as the
    layers. extra_rows: of the embedding beyond the vocabulary. before: further tensors in front of the head.
    extra: blocks after it (multi-token prediction).
    """
    table = f"{prefix}.{embedding}.weight"
    tied_to = table if may_tie and cfg.bool("tie_word_embeddings", default=tied) else ""
    blocks = (
        block(
            "embedding", weight(table, (s.vocabulary + extra_rows, width or s.hidden), "embedding", "tokens"), positions
        ),
        *layers,
        block(
            "output",
            norm_tensors(f"{prefix}.{final_norm}", s.hidden, bias=norm_bias) if final_norm else (),
            before,
            head(head_name, s.vocabulary, width or s.hidden, tied_to=tied_to, bias=head_bias),
        ),
        *extra,
    )
    return Anatomy(blocks, s.hidden, s.vocabulary, s.context, notes)
