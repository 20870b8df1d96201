"""Encoder-decoders of the BART pattern: a bidirectional encoder, a causal decoder that also attends to its output.

Post-norm or pre-norm makes no difference to the tensors. The families differ in their positions, in the norms around
the layers and in names; `Twist` names what a family changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.parts import Part, Tensors, block, head, linear, norm_tensors, plain_mlp, stack_of, weight
from sizeup.models.anatomy.towers import (
    class_of,
    conv,
    crossing,
    labels_of,
    layer_norm,
    prefixed,
    projected_attention,
    table,
    two_way,
    under,
)
from sizeup.models.config import MAX_EXPERTS, MAX_LAYERS, Config
from sizeup.models.mixers import Attention
from sizeup.models.model import Block, FeedForward
from sizeup.models.tensors import Tensor


class Half(msgspec.Struct, frozen=True):
    """The sizes of the encoder or the decoder. positions: rows of its position table, if it has one."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    positions: int | None


class Twist(msgspec.Struct, frozen=True):
    """What a family changes about BART.

    root: the module that holds both halves. offset: rows of a position table before position 0; None means positions
    without a table. before, after: the norm before and after the layers ('' for none). biases: the projections of
    attention that have one. logits_bias: a stored bias of the logits, a buffer. head: the output projection
    ('' when the decoder holds it).
    words: the word table that both halves share; '' when the decoder alone has words.
    The others are names within a layer.
    """

    root: str = "model"
    offset: int | None = 2
    before: str = "layernorm_embedding"
    after: str = ""
    biases: str = "qkvo"
    logits_bias: bool = True
    head: str = "lm_head"
    words: str = "shared"
    embed: str = "embed_tokens"
    positions: str = "embed_positions"
    projections: tuple[str, str, str, str] = ("q_proj", "k_proj", "v_proj", "out_proj")
    cross: tuple[str, str] = ("encoder_attn", "encoder_attn_layer_norm")
    feed_forward: tuple[str, str, str] = ("fc1", "fc2", "final_layer_norm")


def half(cfg: Config, side: str) -> Half:
    """The sizes of one side, `encoder` or `decoder`."""
    reach = {"encoder": "max_source_positions", "decoder": "max_target_positions"}[side]
    return Half(
        cfg.int("d_model", "hidden_size"),
        cfg.int(f"{side}_layers", f"num_{side}_layers", max=MAX_LAYERS),
        cfg.int(f"{side}_attention_heads", f"num_{side}_attention_heads"),
        cfg.int(f"{side}_ffn_dim"),
        cfg.optional_int(f"max_{side}_position_embeddings", reach, "max_position_embeddings"),
    )


def encoder_layer(h: Half, twist: Twist, *, attention: Part | None = None, forward: Part | None = None) -> list[Part]:
    """Self-attention over the whole input, and a feed-forward."""
    mixer = two_way(h.heads, h.hidden)
    return [
        attention or projected_attention(mixer, h.hidden, names=twist.projections, biases=twist.biases),
        layer_norm("self_attn_layer_norm", h.hidden),
        *_feed_forward(h, twist, forward),
    ]


def decoder_layer(h: Half, twist: Twist, *, extra: Tensors = (), forward: Part | None = None) -> list[Part]:
    """Causal self-attention, cross-attention on the encoder's output, and a feed-forward."""
    size = max(1, h.hidden // h.heads)
    own, cross = Attention(h.heads, h.heads, size, size), crossing(h.heads, h.hidden)
    module, cross_norm = twist.cross
    return [
        projected_attention(own, h.hidden, names=twist.projections, biases=twist.biases, extra=extra),
        layer_norm("self_attn_layer_norm", h.hidden),
        projected_attention(cross, h.hidden, name=module, names=twist.projections, biases=twist.biases),
        layer_norm(cross_norm, h.hidden),
        *_feed_forward(h, twist, forward),
    ]


def _feed_forward(h: Half, twist: Twist, forward: Part | None) -> list[Part]:
    up, down, forward_norm = twist.feed_forward
    return [
        forward or plain_mlp(h.hidden, h.ffn, name="", names=(up, down)),
        layer_norm(forward_norm, h.hidden),
    ]


def frame(prefix: str, h: Half, twist: Twist, extra: Tensors = ()) -> Block:
    """What stands around the layers of one side: its position table, its norms, and `extra`, named from there on."""
    tensors: Tensors = ()
    if twist.offset is not None and h.positions:
        tensors += table(f"{prefix}.{twist.positions}", h.positions + twist.offset, h.hidden)
    for name in (twist.before, twist.after):
        if name:
            tensors += norm_tensors(f"{prefix}.{name}", h.hidden, bias=True)
    side = prefix.rpartition(".")[2]
    return block(f"{side} frame", tensors, under(prefix, extra), stack=side)


def bart_like(
    cfg: Config,
    twist: Twist,
    *,
    encoder_attention: Part | None = None,
    encoder_extra: Tensors = (),
    layer_extra: Tensors = (),
    decoder_extra: tuple[Tensors, Tensors] = ((), ()),
    mixture: Callable[[Half], Part] | None = None,
) -> Anatomy:
    """BART with a twist: the whole, its decoder alone (`…ForCausalLM`), or without the head (`…Model`).

    encoder_attention: the encoder's attention, when it isn't the plain one. encoder_extra, layer_extra: further
    tensors of the encoder and of each of its layers. decoder_extra: of the decoder's attention and of the decoder.
    mixture: the feed-forward of sparse layers, every `encoder_sparse_step` and `decoder_sparse_step` layers.
    """
    name = class_of(cfg, "ForConditionalGeneration")
    alone, bare = name.endswith("ForCausalLM"), name.endswith("Model") and name != "MarianMTModel"
    root = "" if bare else twist.root
    encoder, decoder = half(cfg, "encoder"), half(cfg, "decoder")
    vocabulary = cfg.int("vocab_size")
    tied = cfg.bool("tie_word_embeddings", default=True)

    def sparse(h: Half, kind: str) -> Part | None:
        return mixture(h) if mixture and kind == "mixture" else None

    def encode(kind: str) -> list[Part]:
        layer = encoder_layer(encoder, twist, attention=encoder_attention, forward=sparse(encoder, kind))
        return [*layer, Part(layer_extra)]

    def decode(kind: str) -> list[Part]:
        return decoder_layer(decoder, twist, extra=decoder_extra[0], forward=sparse(decoder, kind))

    words = word_tables(root, twist, vocabulary, decoder.hidden, tied=tied, alone=alone or not twist.words)
    blocks = [block("embedding", words)]
    if not alone:
        blocks += layers_of(cfg, prefixed(root, "encoder"), encoder, encode)
        blocks.append(frame(prefixed(root, "encoder"), encoder, twist, encoder_extra))
    blocks += layers_of(cfg, prefixed(root, "decoder"), decoder, decode)
    blocks.append(frame(prefixed(root, "decoder"), decoder, twist, decoder_extra[1]))
    if name.endswith("ForSequenceClassification"):
        blocks.append(block("output", _classifier(cfg, decoder.hidden)))
    elif not bare and twist.head:
        bias = weight("final_logits_bias", (1, vocabulary), "buffer", "head") if twist.logits_bias and not alone else ()
        blocks.append(block("output", _head(twist.head, words[0], tied=tied), bias))
    return Anatomy(tuple(blocks), decoder.hidden, vocabulary, decoder.positions)


def layers_of(cfg: Config, prefix: str, h: Half, build: Callable[[str], Sequence[Part]]) -> tuple[Block, ...]:
    """The layers of one side; every `…_sparse_step`-th is a mixture."""
    side = prefix.rpartition(".")[2]
    step = cfg.int(f"{side}_sparse_step", min=0, default=0)
    kinds = ["mixture" if step and (layer + 1) % step == 0 else "" for layer in range(h.layers)]
    return stack_of(
        f"{prefix}.layers", kinds, build, stack=side, label=lambda kind: f"{side} {kind} layer".replace("  ", " ")
    )


def word_tables(root: str, twist: Twist, vocabulary: int, hidden: int, *, tied: bool, alone: bool) -> Tensors:
    """The word table, the one with the values first, and its copies in the halves.

    alone: only the decoder has words, in a table of its own unless the family keeps words outside (ProphetNet).
    """
    sides = ("decoder",) if alone else ("encoder", "decoder")
    if alone and twist.words != twist.embed:
        return table(prefixed(root, f"decoder.{twist.embed}"), vocabulary, hidden, "tokens")
    source = prefixed(root, twist.words)
    tied_to = f"{source}.weight" if tied else ""
    copies = [prefixed(root, f"{side}.{twist.embed}") for side in sides]
    tensors = table(source, vocabulary, hidden, "tokens")
    return (*tensors, *(t for name in copies for t in table(name, vocabulary, hidden, "tokens", tied_to=tied_to)))


def _classifier(cfg: Config, hidden: int) -> Tensors:
    name = "classification_head"
    return (
        *linear(f"{name}.dense", hidden, hidden, "head", "transform", bias=True),
        *linear(f"{name}.out_proj", labels_of(cfg, default=3), hidden, "head", "classifier", bias=True),
    )


def _head(name: str, words: Tensor, *, tied: bool) -> Tensors:
    return (Tensor(f"{name}.weight", words.shape, "head", "head", tied_to=words.name if tied else ""),)


def bart(cfg: Config) -> Anatomy:
    """Learned positions, two rows further on than the position; a norm after the embedding."""
    return bart_like(cfg, Twist())


def mbart(cfg: Config) -> Anatomy:
    """BART with a norm after the layers as well."""
    return bart_like(cfg, Twist(after="layer_norm"))


def pegasus(cfg: Config) -> Anatomy:
    """BART with a norm after the layers instead of before them, and positions from row 0 (also Blenderbot)."""
    return bart_like(cfg, Twist(offset=0, before="", after="layer_norm"))


def marian(cfg: Config) -> Anatomy:
    """BART without norms around the layers, and positions from row 0."""
    return bart_like(cfg, Twist(offset=0, before=""))


def blenderbot_small(cfg: Config) -> Anatomy:
    """BART with positions from row 0."""
    return bart_like(cfg, Twist(offset=0))


def m2m_100(cfg: Config) -> Anatomy:
    """BART with computed positions and a norm after the layers instead of before them (also NLLB)."""
    return bart_like(cfg, Twist(offset=None, before="", after="layer_norm", logits_bias=False))


def bigbird_pegasus(cfg: Config) -> Anatomy:
    """BART with block-sparse attention in the encoder and no biases in attention; a lone decoder has its own head."""
    h = half(cfg, "encoder")
    biases = "qkvo" if cfg.bool("use_bias", default=False) else ""
    names = ("self.query", "self.key", "self.value", "output")
    attention = projected_attention(two_way(h.heads, h.hidden), h.hidden, names=names, biases=biases)
    tied = not class_of(cfg, "").endswith("ForCausalLM") and cfg.bool("tie_word_embeddings", default=True)
    return bart_like(
        Config(cfg.data | {"tie_word_embeddings": tied}, cfg.origin, cfg.path),
        Twist(offset=0, biases=biases),
        encoder_attention=attention,
    )


def led(cfg: Config) -> Anatomy:
    """BART with sliding windows in the encoder, and projections of their own for the tokens that see everything."""
    h = half(cfg, "encoder")
    windows = cfg.get("attention_window")
    window = cfg.ints("attention_window") if isinstance(windows, list) else (cfg.int("attention_window", default=512),)
    name = "longformer_self_attn"
    globals_ = tuple(
        tensor
        for part in ("query", "key", "value")
        for tensor in linear(f"self_attn.{name}.{part}_global", h.hidden, h.hidden, "attention", part[0], bias=True)
    )
    attention = projected_attention(
        two_way(h.heads, h.hidden, window=max(window or (512,))),
        h.hidden,
        names=(f"{name}.query", f"{name}.key", f"{name}.value", "output"),
        extra=globals_,
    )
    return bart_like(cfg, Twist(root="led", offset=0), encoder_attention=attention)


def pegasus_x(cfg: Config) -> Anatomy:
    """M2M-100 without biases in attention; the encoder has global tokens with a table and norms of their own."""
    h = half(cfg, "encoder")
    twist = Twist(offset=None, before="", after="layer_norm", logits_bias=False, biases="")
    return bart_like(
        cfg,
        twist,
        encoder_extra=table("embed_global", cfg.int("num_global_tokens"), h.hidden, "tokens"),
        layer_extra=norm_tensors("global_self_attn_layer_norm", h.hidden, bias=True),
    )


def nllb_moe(cfg: Config) -> Anatomy:
    """M2M-100 with a mixture in every fourth layer; two experts for each token."""
    count = cfg.int("num_experts", max=MAX_EXPERTS)

    def mixture(h: Half) -> Part:
        expert = "ffn.experts.expert_{copy}"
        shapes = (("fc1", "up", h.ffn, h.hidden), ("fc2", "down", h.hidden, h.ffn))
        experts = (
            Tensor(f"{expert}.{name}.{kind}", shape, "routed_expert", part, count, min(2, count))
            for name, part, rows, columns in shapes
            for kind, shape in (("weight", (rows, columns)), ("bias", (rows,)))
        )
        router = linear("ffn.router.classifier", count, h.hidden, "router", "router", bias=cfg.bool("router_bias"))
        forward = FeedForward(
            activation="relu", gated=False, experts=count, experts_per_token=min(2, count), expert_width=h.ffn
        )
        return Part((*router, *experts), feed_forward=forward)

    twist = Twist(
        offset=None,
        before="",
        after="layer_norm",
        logits_bias=False,
        cross=("cross_attention", "cross_attention_layer_norm"),
        feed_forward=("ffn.fc1", "ffn.fc2", "ff_layer_norm"),
    )
    return bart_like(cfg, twist, mixture=mixture)


def prophetnet(cfg: Config) -> Anatomy:
    """BART that predicts the next n tokens at once: tables for the n streams and for relative positions."""
    h = half(cfg, "decoder")
    relative = linear(
        "self_attn.relative_pos_embeddings",
        cfg.int("num_buckets") * h.heads,
        h.hidden,
        "attention",
        "relative_bias",
        bias=True,
    )
    twist = Twist(
        root="prophetnet",
        offset=0,
        before="embeddings_layer_norm",
        logits_bias=False,
        words="word_embeddings",
        embed="word_embeddings",
        positions="position_embeddings",
        projections=("query_proj", "key_proj", "value_proj", "out_proj"),
        cross=("cross_attn", "cross_attn_layer_norm"),
        feed_forward=("feed_forward.intermediate", "feed_forward.output", "feed_forward_layer_norm"),
    )
    streams = table("ngram_embeddings", cfg.int("ngram"), h.hidden)
    return bart_like(cfg, twist, decoder_extra=(relative, streams))


def fsmt(cfg: Config) -> Anatomy:
    """BART without norms around the layers, with a vocabulary for each language and a head inside the decoder."""
    h = half(cfg, "decoder")
    target = cfg.int("tgt_vocab_size")
    root = "" if class_of(cfg, "").endswith("Model") else "model"
    words = f"{prefixed(root, 'decoder.embed_tokens')}.weight"
    tied_to = words if cfg.bool("tie_word_embeddings", default=False) else ""
    return bart_like(
        Config(cfg.data | {"vocab_size": target}, cfg.origin, cfg.path),
        Twist(before="", logits_bias=False, words="", head=""),
        encoder_extra=table("embed_tokens", cfg.int("src_vocab_size"), h.hidden, "tokens"),
        decoder_extra=((), head("output_projection", target, h.hidden, tied_to=tied_to)),
    )


def whisper(cfg: Config) -> Anatomy:
    """BART on sound: convolutions before the encoder, words only in the decoder, keys without bias."""
    h = half(cfg, "encoder")
    twist = Twist(offset=0, before="", after="layer_norm", biases="qvo", logits_bias=False, head="proj_out", words="")
    convolutions = (
        *conv("conv1", h.hidden, cfg.int("num_mel_bins"), 3),
        *conv("conv2", h.hidden, h.hidden, 3),
    )
    return bart_like(cfg, twist, encoder_extra=convolutions)


def speech_to_text(cfg: Config) -> Anatomy:
    """M2M-100 on sound: gated convolutions over the features before the encoder, words only in the decoder."""
    h = half(cfg, "encoder")
    kernels = cfg.ints("conv_kernel_sizes") or (5, 5)
    channels = cfg.int("conv_channels")
    first = cfg.int("input_feat_per_channel") * cfg.int("input_channels")
    last = len(kernels) - 1
    convolutions = tuple(
        tensor
        for number, kernel in enumerate(kernels)
        for tensor in conv(
            f"conv.conv_layers.{number}",
            2 * h.hidden if number == last else channels,
            first if number == 0 else channels // 2,
            kernel,
        )
    )
    twist = Twist(offset=None, before="", after="layer_norm", logits_bias=False, words="")
    return bart_like(cfg, twist, encoder_extra=convolutions)


def trocr(cfg: Config) -> Anatomy:
    """BART's decoder alone, over the output of a vision encoder."""
    twist = Twist(
        offset=2 if cfg.bool("use_learned_position_embeddings", default=True) else None,
        before="layernorm_embedding" if cfg.bool("layernorm_embedding", default=True) else "",
        head="output_projection",
    )
    h = half(cfg, "decoder")
    data = {
        "architectures": ["TrOCRForCausalLM"],
        "encoder_layers": 1,
        "encoder_attention_heads": 1,
        "encoder_ffn_dim": 1,
    }
    whole = bart_like(Config(cfg.data | data, cfg.origin, cfg.path), twist)
    return Anatomy(whole.blocks, h.hidden, whole.vocabulary, h.positions)
