"""The Q-Former: a BERT over a few learned queries that look at an image or at sound, and the models built with it."""

from __future__ import annotations

from sizeup.models.anatomy.compose import composed, parameter, projector, renamed, text_config
from sizeup.models.anatomy.defaults import filled
from sizeup.models.anatomy.family import Anatomy, sizes
from sizeup.models.anatomy.parts import Part, Tensors, linear, norm_tensors, plain_mlp, stack_of
from sizeup.models.anatomy.t5 import t5
from sizeup.models.anatomy.towers import crossing, layer_norm, prefixed, projected_attention, table, tower, two_way
from sizeup.models.anatomy.vision import Blocks, blip2_vision
from sizeup.models.config import Config

PROJECTIONS = ("attention.query", "attention.key", "attention.value", "output.dense")


def qformer(cfg: Config, prefix: str, *, reads: bool = False) -> Blocks:
    """The Q-Former's layers: every `cross_attention_frequency`-th looks at the other sequence.

    reads: it takes text as well (InstructBLIP), with word and position tables and a second feed-forward.
    """
    s = sizes(cfg)
    every, source = cfg.int("cross_attention_frequency", default=2), cfg.int("encoder_hidden_size")

    def layer(kind: str) -> list[Part]:
        own = projected_attention(two_way(s.heads, s.hidden), s.hidden, name="attention", names=PROJECTIONS)
        parts = [own, layer_norm("attention.output.LayerNorm", s.hidden)]
        if kind:
            cross = crossing(s.heads, s.hidden)
            parts.append(projected_attention(cross, s.hidden, name="crossattention", names=PROJECTIONS, source=source))
            parts.append(layer_norm("crossattention.output.LayerNorm", s.hidden))
        for suffix in ("_query", *([""] if reads else [])):
            names = (f"intermediate{suffix}.dense", f"output{suffix}.dense")
            parts.append(plain_mlp(s.hidden, s.ffn, name="", names=names))
            parts.append(layer_norm(f"output{suffix}.LayerNorm", s.hidden))
        return parts

    kinds = ["" if number % every else "cross-attention" for number in range(s.layers)]
    stack = stack_of(prefixed(prefix, "encoder.layer"), kinds, layer, label=lambda kind: f"{kind} query layer".strip())
    embeddings: Tensors = ()
    if reads:
        embeddings += table(f"{prefix}.embeddings.word_embeddings", s.vocabulary, s.hidden, "tokens")
        embeddings += table(f"{prefix}.embeddings.position_embeddings", s.context or 1, s.hidden)
    name = f"{prefix}.embeddings.layernorm" if reads else f"{prefix}.layernorm"
    return (
        *projector(embeddings, norm_tensors(name, s.hidden, bias=True), name="query embedding"),
        *tower("projector", stack),
    )


def blip_2(cfg: Config, *, reads: bool = False) -> Anatomy:
    """A ViT, a Q-Former over its patches, one projection, and an OPT or a T5."""
    asks = cfg.sub("qformer_config")
    width = asks.int("hidden_size")
    text = text_config(cfg, "opt")
    queries = (
        *parameter("query_tokens", 1, cfg.int("num_query_tokens"), width, part="query"),
        *linear("language_projection", text.int("hidden_size", "d_model"), width, "projector", "up", bias=True),
    )
    parts = (
        *blip2_vision(cfg.sub("vision_config"), "vision_model"),
        *qformer(asks, "qformer", reads=reads),
        *projector(queries),
    )
    if text.str("model_type", default="opt") == "t5":
        inner = t5(filled(text, "t5", nested=True))
        blocks = (*parts, *(renamed(part, "", "language_model.") for part in inner.blocks))
        return Anatomy(blocks, inner.hidden, inner.vocabulary, inner.context, inner.notes)
    return composed(cfg, parts, prefix="language_model.model", head="language_model.lm_head", assumed="opt")


def instructblip(cfg: Config) -> Anatomy:
    """BLIP-2 whose Q-Former reads the instruction as well."""
    return blip_2(cfg, reads=True)
