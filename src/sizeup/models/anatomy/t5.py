"""T5 and its relatives: relative positions as a learned bias of attention, RMS norms, no biases elsewhere.

transformers 5 builds every T5 with a tied head. Checkpoints of T5 1.1, mT5 and Flan-T5 (`tie_word_embeddings` false)
store a head of their own, which a note says.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.parts import Part, Tensors, block, gated_mlp, norm, plain_mlp, stack_of
from sizeup.models.anatomy.towers import class_of, projected_attention, table
from sizeup.models.config import MAX_EXPERTS, MAX_LAYERS, Config
from sizeup.models.mixers import Attention
from sizeup.models.model import Block, FeedForward
from sizeup.models.tensors import Tensor

QKVO = ("q", "k", "v", "o")


class T5Sizes(msgspec.Struct, frozen=True):
    """T5's sizes: a head's size is free of hidden / heads, and both stacks share all but their depth."""

    hidden: int
    heads: int
    head_dim: int
    ffn: int
    buckets: int
    vocabulary: int
    encoder_layers: int
    decoder_layers: int


def t5_sizes(cfg: Config) -> T5Sizes:
    """Read T5's names."""
    layers = cfg.int("num_layers", "num_hidden_layers", max=MAX_LAYERS)
    return T5Sizes(
        hidden=cfg.int("d_model", "hidden_size"),
        heads=cfg.int("num_heads", "num_attention_heads"),
        head_dim=cfg.int("d_kv", default=64),
        ffn=cfg.int("d_ff"),
        buckets=cfg.int("relative_attention_num_buckets", default=32),
        vocabulary=cfg.int("vocab_size"),
        encoder_layers=layers,
        decoder_layers=cfg.int("num_decoder_layers", max=MAX_LAYERS, default=layers),
    )


class Twist(msgspec.Struct, frozen=True):
    """What a family changes about T5.

    bias_everywhere: every layer learns its own relative positions, not only the first. encoder_attention: its name;
    window: how far it sees; summaries: whether it also sees summaries of distant blocks. mlp: name of the feed-forward.
    mixture: the feed-forward of sparse layers, every `encoder_sparse_step` and `decoder_sparse_step` layers.
    """

    bias_everywhere: bool = False
    encoder_attention: str = "SelfAttention"
    window: int | None = None
    summaries: bool = False
    mlp: str = "DenseReluDense"
    mixture: Callable[[T5Sizes, str], Part] | None = None


def t5_like(cfg: Config, twist: Twist | None = None, *, extra: Tensors = ()) -> Anatomy:
    """T5 with a twist; the whole model, or its encoder alone (`…EncoderModel`). extra: further embeddings."""
    s, twist = t5_sizes(cfg), twist or Twist()
    name = class_of(cfg, "ForConditionalGeneration")
    encoder_only = name.endswith(("EncoderModel", "ForTokenClassification"))
    blocks = [
        block("embedding", _words(s, encoder_only=encoder_only), extra),
        *_layers(cfg, "encoder", s.encoder_layers, lambda kind: _encoder_layer(cfg, s, twist, kind)),
        block("encoder frame", norm("encoder.final_layer_norm", s.hidden), stack="encoder"),
    ]
    if not encoder_only:
        blocks += _layers(cfg, "decoder", s.decoder_layers, lambda kind: _decoder_layer(cfg, s, twist, kind))
        blocks.append(block("decoder frame", norm("decoder.final_layer_norm", s.hidden), stack="decoder"))
    if name.endswith("ForConditionalGeneration"):
        blocks.append(block("output", _head(cfg, s)))
    return Anatomy(tuple(blocks), s.hidden, s.vocabulary, cfg.optional_int("n_positions"), _notes(cfg, s))


def _encoder_layer(cfg: Config, s: T5Sizes, twist: Twist, kind: str) -> list[Part]:
    """Attention over the whole input, or over a window of it, and a feed-forward."""
    attention = f"layer.0.{twist.encoder_attention}"
    mixer = Attention(s.heads, s.heads, s.head_dim, s.head_dim, window=twist.window, causal=False)
    own: Tensors = ()
    if twist.bias_everywhere or "first" in kind:
        own = _relative(s, attention, "relative_attention_bias")
        if twist.summaries:
            own += _relative(s, attention, "global_relative_attention_bias")
    return [
        projected_attention(mixer, s.hidden, name=attention, names=QKVO, biases="", extra=own),
        *([norm(f"{attention}.global_input_layer_norm", s.hidden)] if twist.summaries else []),
        norm("layer.0.layer_norm", s.hidden),
        _feed_forward(cfg, s, twist, "layer.1", kind),
        norm("layer.1.layer_norm", s.hidden),
    ]


def _decoder_layer(cfg: Config, s: T5Sizes, twist: Twist, kind: str) -> list[Part]:
    """Causal attention, cross-attention on the encoder's output, and a feed-forward."""
    attention = "layer.0.SelfAttention"
    mixer = Attention(s.heads, s.heads, s.head_dim, s.head_dim)
    cross = Attention(s.heads, s.heads, s.head_dim, s.head_dim, cross=True, causal=False)
    first = twist.bias_everywhere or "first" in kind
    own = _relative(s, attention, "relative_attention_bias") if first else ()
    return [
        projected_attention(mixer, s.hidden, name=attention, names=QKVO, biases="", extra=own),
        norm("layer.0.layer_norm", s.hidden),
        projected_attention(cross, s.hidden, name="layer.1.EncDecAttention", names=QKVO, biases=""),
        norm("layer.1.layer_norm", s.hidden),
        _feed_forward(cfg, s, twist, "layer.2", kind),
        norm("layer.2.layer_norm", s.hidden),
    ]


def _feed_forward(cfg: Config, s: T5Sizes, twist: Twist, module: str, kind: str) -> Part:
    name = f"{module}.{twist.mlp}"
    if twist.mixture and "mixture" in kind:
        return twist.mixture(s, name)
    if _gated(cfg):
        return gated_mlp(s.hidden, s.ffn, name=name, names=("wi_0", "wi_1", "wo"))
    return plain_mlp(s.hidden, s.ffn, name=name, names=("wi", "wo"), bias=False, activation="relu")


def _gated(cfg: Config) -> bool:
    """`feed_forward_proj` names a gated feed-forward; old configurations say `is_gated_act` alone."""
    named = cfg.optional_str("feed_forward_proj")
    return named.startswith("gated-") if named else cfg.bool("is_gated_act", default=False)


def _relative(s: T5Sizes, attention: str, name: str) -> Tensors:
    return (Tensor(f"{attention}.{name}.weight", (s.buckets, s.heads), "attention", "relative_bias"),)


def _words(s: T5Sizes, *, encoder_only: bool) -> Tensors:
    copies = ("encoder",) if encoder_only else ("encoder", "decoder")
    tied = (table(f"{side}.embed_tokens", s.vocabulary, s.hidden, "tokens", tied_to="shared.weight") for side in copies)
    return (*table("shared", s.vocabulary, s.hidden, "tokens"), *(tensor for tensors in tied for tensor in tensors))


def _head(cfg: Config, s: T5Sizes) -> Tensors:
    tied = cfg.optional_str("model_type") != "pop2piano"
    return (
        Tensor("lm_head.weight", (s.vocabulary, s.hidden), "head", "head", tied_to="shared.weight" if tied else ""),
    )


def _notes(cfg: Config, s: T5Sizes) -> tuple[str, ...]:
    if cfg.bool("tie_word_embeddings", default=True):
        return ()
    return (
        f"the checkpoint may store a head of its own ({s.vocabulary * s.hidden:,} parameters); transformers ties it",
    )


def _layers(cfg: Config, side: str, layers: int, build: Callable[[str], list[Part]]) -> tuple[Block, ...]:
    sparse = cfg.int(f"num_sparse_{side}_layers", min=0, default=0)
    step = cfg.int(f"{side}_sparse_step", min=0, default=layers // sparse if sparse else 0)
    kinds = [
        " ".join(["first"] * (layer == 0) + ["mixture"] * bool(step and _is_sparse(layer, step)))
        for layer in range(layers)
    ]
    return stack_of(
        f"{side}.block", kinds, build, stack=side, label=lambda kind: " ".join([*kind.split(), side, "layer"])
    )


def _is_sparse(layer: int, step: int) -> bool:
    return layer % step == 1 or step == 1


def t5(cfg: Config) -> Anatomy:
    """Relative positions in the first layer of each stack; a plain ReLU feed-forward, or a gated one from 1.1 on."""
    return t5_like(cfg)


def umt5(cfg: Config) -> Anatomy:
    """T5 with relative positions in every layer."""
    return t5_like(cfg, Twist(bias_everywhere=True))


def longt5(cfg: Config) -> Anatomy:
    """T5 whose encoder sees a window, alone (`local`) or with summaries of distant blocks (`transient-global`)."""
    window = 2 * cfg.int("local_radius", default=127) + 1
    if cfg.str("encoder_attention_type", default="local") == "local":
        return t5_like(cfg, Twist(encoder_attention="LocalSelfAttention", window=window))
    return t5_like(cfg, Twist(encoder_attention="TransientGlobalSelfAttention", window=window, summaries=True))


def switch_transformers(cfg: Config) -> Anatomy:
    """T5 with a mixture in every few layers, one expert for each token."""
    count = cfg.int("num_experts", max=MAX_EXPERTS)

    def mixture(s: T5Sizes, name: str) -> Part:
        experts = (
            Tensor(f"{name}.experts.expert_{{copy}}.{projection}.weight", shape, "routed_expert", part, count, 1)
            for projection, part, shape in (("wi", "up", (s.ffn, s.hidden)), ("wo", "down", (s.hidden, s.ffn)))
        )
        router = Tensor(f"{name}.router.classifier.weight", (count, s.hidden), "router", "router")
        forward = FeedForward(activation="relu", gated=False, experts=count, experts_per_token=1, expert_width=s.ffn)
        return Part((router, *experts), feed_forward=forward)

    return t5_like(cfg, Twist(mlp="mlp", mixture=mixture))


def pop2piano(cfg: Config) -> Anatomy:
    """T5 on sound, with a table of composers and a head of its own."""
    composers = table("mel_conditioner.embedding", cfg.int("composer_vocab_size"), cfg.int("d_model"), "tokens")
    return t5_like(cfg, extra=composers)
