"""Linear attention and its hybrids: gated delta nets, Kimi's delta attention, lightning, short convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sizeup.models.anatomy.deepseek import latent_mixer
from sizeup.models.anatomy.family import (
    DENSE,
    FULL,
    LINEAR,
    SPARSE,
    Anatomy,
    Sizes,
    decoder,
    full_attention,
    layer_kinds,
    sizes,
    sparse_halves,
)
from sizeup.models.anatomy.mamba import convolution
from sizeup.models.anatomy.moe import (
    MIXTRAL_EXPERT,
    dense_or,
    expert_count,
    experts_per_token,
    qwen_halves,
    qwen_mixture,
    shared_count,
    shared_mlp,
)
from sizeup.models.anatomy.mtp import mtp_count, qwen_mtp
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    attention,
    gated_mlp,
    latent_attention,
    linear,
    mixture,
    norm_tensors,
    weight,
)
from sizeup.models.config import Config
from sizeup.models.mixers import LinearAttention

ROLE = "linear_attention"


def delta_mixer(cfg: Config) -> tuple[LinearAttention, int, int]:
    """A gated delta net, with the widths of all its keys and of all its values together."""
    key_heads, value_heads = cfg.int("linear_num_key_heads"), cfg.int("linear_num_value_heads")
    key_dim, value_dim = cfg.int("linear_key_head_dim"), cfg.int("linear_value_head_dim")
    keys, values = key_heads * key_dim, value_heads * value_dim
    kernel = cfg.int("linear_conv_kernel_dim", default=4)
    mixer = LinearAttention("gated_delta", value_heads, key_dim, value_dim, kernel, 2 * keys + values)
    return mixer, keys, values


def gated_delta(cfg: Config, hidden: int, *, fused: bool) -> Part:
    """Queries, keys and values through one convolution; a decay and a write strength for each value head.

    fused: queries, keys, values and gate in one projection (Qwen3-Next), instead of two (Qwen3.5).
    """
    mixer, keys, values = delta_mixer(cfg)
    name, heads = "linear_attn", mixer.heads
    if fused:
        projections = (
            *linear(f"{name}.in_proj_qkvz", 2 * keys + 2 * values, hidden, ROLE, "qkvz"),
            *linear(f"{name}.in_proj_ba", 2 * heads, hidden, ROLE, "ba"),
        )
    else:
        projections = (
            *linear(f"{name}.in_proj_qkv", 2 * keys + values, hidden, ROLE, "qkv"),
            *linear(f"{name}.in_proj_z", values, hidden, ROLE, "gate"),
            *linear(f"{name}.in_proj_b", heads, hidden, ROLE, "beta"),
            *linear(f"{name}.in_proj_a", heads, hidden, ROLE, "alpha"),
        )
    rest = (
        *convolution(f"{name}.conv1d", mixer.conv_channels, mixer.conv_kernel, bias=False, role=ROLE),
        *weight(f"{name}.A_log", (heads,), ROLE, "a"),
        *weight(f"{name}.dt_bias", (heads,), ROLE, "dt"),
        *norm_tensors(f"{name}.norm", mixer.value_dim),
        *linear(f"{name}.out_proj", hidden, values, ROLE, "out"),
    )
    return Part((*projections, *rest), (mixer,))


def qwen_linear(
    cfg: Config, prefix: str, half: Callable[[str], Part], halves: Sequence[str], *, fused: bool
) -> Anatomy:
    """Gated delta nets with gated full attention in one layer of four; prediction layers perhaps."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    period = cfg.int("full_attention_interval", max=10_000, default=4)

    def mix(kind: str) -> Part:
        if kind != FULL:
            return gated_delta(cfg, s.hidden, fused=fused)
        return attention(full_attention(s), s.hidden, qkv_bias=bias, output_bias=bias, qk_norm="head", output_gate=True)

    anatomy = decoder(
        cfg,
        prefix,
        s=s,
        kinds=layer_kinds(cfg, s.layers, [LINEAR] * (period - 1) + [FULL]),
        halves=halves,
        mix=mix,
        feed_forward=half,
    )
    count = mtp_count(cfg, "mtp_num_hidden_layers", "num_nextn_predict_layers")
    return qwen_mtp(s, anatomy, [mix(FULL), half(halves[-1] if halves else DENSE)], count)


def qwen3_next(cfg: Config, prefix: str = "model") -> Anatomy:
    """Gated delta nets and mixtures with a shared expert behind a gate."""
    s = sizes(cfg)
    half = dense_or(s, lambda: qwen_mixture(cfg, s))
    anatomy = qwen_linear(cfg, prefix, half, qwen_halves(cfg, s), fused=True)
    if any(block.stack == "mtp" for block in anatomy.blocks):
        return anatomy
    note = "published checkpoints also store a multi-token prediction layer that this configuration doesn't mention"
    return msgspec.structs.replace(anatomy, notes=(*anatomy.notes, note))


def qwen3_5_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen3-Next without mixtures, its projections apart."""
    s = sizes(cfg)
    return qwen_linear(cfg, prefix, lambda _: gated_mlp(s.hidden, s.ffn), (), fused=False)


def qwen3_5_moe_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen3.5 with mixtures in every layer."""
    s = sizes(cfg)
    return qwen_linear(cfg, prefix, lambda _: qwen_mixture(cfg, s), [SPARSE] * s.layers, fused=False)


def olmo_hybrid(cfg: Config, prefix: str = "model") -> Anatomy:
    """Gated delta nets with separate convolutions and norms before them; Olmo2's attention in one layer of four."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    key_heads = cfg.int("linear_num_key_heads", default=s.heads)
    value_heads = cfg.int("linear_num_value_heads", default=s.heads)
    key_dim = cfg.int("linear_key_head_dim", default=max(1, 3 * s.hidden // (4 * key_heads)))
    value_dim = cfg.int("linear_value_head_dim", default=2 * key_dim)
    keys, values = key_heads * key_dim, value_heads * value_dim
    mixer = LinearAttention(
        "gated_delta", value_heads, key_dim, value_dim, cfg.int("linear_conv_kernel_dim", default=4), 2 * keys + values
    )
    name = "linear_attn"
    delta = Part(
        (
            *separate_convolutions(name, {"q": keys, "k": keys, "v": values}, mixer.conv_kernel, s.hidden),
            *linear(f"{name}.a_proj", value_heads, s.hidden, ROLE, "alpha"),
            *linear(f"{name}.b_proj", value_heads, s.hidden, ROLE, "beta"),
            *linear(f"{name}.g_proj", values, s.hidden, ROLE, "gate"),
            *weight(f"{name}.A_log", (value_heads,), ROLE, "a"),
            *weight(f"{name}.dt_bias", (value_heads,), ROLE, "dt"),
            *norm_tensors(f"{name}.o_norm", value_dim),
            *linear(f"{name}.o_proj", s.hidden, values, ROLE, "out"),
            *norm_tensors("attention_layer_norm", s.hidden),
            *norm_tensors("feedforward_layer_norm", s.hidden),
        ),
        (mixer,),
    )
    norms = (
        *norm_tensors("feedforward_layer_norm", s.hidden),
        *norm_tensors("post_feedforward_layernorm", s.hidden),
    )
    full = attention(full_attention(s), s.hidden, qkv_bias=bias, output_bias=bias, qk_norm="full", extra=norms)
    kinds = [FULL if layer % 4 == 3 else LINEAR for layer in range(s.layers)]
    if FULL not in kinds:
        kinds[-1] = FULL
    half = gated_mlp(s.hidden, s.ffn)
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=layer_kinds(cfg, s.layers, kinds),
        mix=lambda kind: full if kind == FULL else delta,
        feed_forward=lambda _: half,
        norms=(),
    )


def separate_convolutions(name: str, widths: dict[str, int], kernel: int, hidden: int) -> Tensors:
    """Query, key and value projections with a convolution after each."""
    return tuple(
        tensor
        for side, width in widths.items()
        for tensor in (
            *linear(f"{name}.{side}_proj", width, hidden, ROLE, side),
            *convolution(f"{name}.{side}_conv1d", width, kernel, bias=False, role=ROLE),
        )
    )


def kimi_linear(cfg: Config, prefix: str = "model") -> Anatomy:
    """Kimi's delta attention, which decays every channel on its own; latent attention in one layer of four."""
    s = sizes(cfg)
    kinds = _kimi_kinds(cfg, s)
    inner = cfg.optional_sub("linear_attn_config") or cfg
    heads = inner.int("linear_num_heads", "num_heads", default=s.heads)
    size = inner.int("linear_head_dim", "head_dim", default=128)
    kernel = inner.int("linear_conv_kernel_dim", "short_conv_kernel_size", default=4)
    width = heads * size
    mixer = LinearAttention("kda", heads, size, size, kernel, 3 * width)
    name = "self_attn"
    delta = Part(
        (
            *separate_convolutions(name, {"q": width, "k": width, "v": width}, kernel, s.hidden),
            *weight(f"{name}.A_log", (1, 1, heads, 1), ROLE, "a"),
            *weight(f"{name}.dt_bias", (width,), ROLE, "dt"),
            *linear(f"{name}.f_a_proj", size, s.hidden, ROLE, "decay_a"),
            *linear(f"{name}.f_b_proj", width, size, ROLE, "decay_b"),
            *linear(f"{name}.b_proj", heads, s.hidden, ROLE, "beta"),
            *linear(f"{name}.g_a_proj", size, s.hidden, ROLE, "gate_a"),
            *linear(f"{name}.g_b_proj", width, size, ROLE, "gate_b"),
            *norm_tensors(f"{name}.o_norm", size),
            *linear(f"{name}.o_proj", s.hidden, width, ROLE, "out"),
        ),
        (mixer,),
    )

    def half(kind: str) -> Part:
        if kind == DENSE:
            return gated_mlp(s.hidden, s.ffn, name="block_sparse_moe")
        count, wide = expert_count(cfg, "num_experts", "num_local_experts"), cfg.int("moe_intermediate_size")
        used = experts_per_token(cfg, count, "num_experts_per_token", "num_experts_per_tok")
        return mixture(
            s.hidden,
            wide,
            count,
            used,
            router="block_sparse_moe.gate",
            correction="block_sparse_moe.gate.e_score_correction_bias",
            shared=shared_mlp(s, shared_count(cfg, "num_shared_experts") * wide, "block_sparse_moe.shared_experts"),
            name="block_sparse_moe.experts.{copy}",
            names=MIXTRAL_EXPERT,
        )

    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=kinds,
        halves=sparse_halves(cfg, s.layers, cfg.int("first_k_dense_replace", min=0, default=1)),
        mix=lambda kind: latent_attention(latent_mixer(cfg, s), s.hidden) if kind == FULL else delta,
        feed_forward=half,
    )


def _kimi_kinds(cfg: Config, s: Sizes) -> list[str]:
    """`layer_types`, or the numbers (from 1) that `linear_attn_config` gives the full layers."""
    inner = cfg.optional_sub("linear_attn_config")
    full = inner.ints("full_attn_layers") if inner else None
    if full is not None:
        return [FULL if layer + 1 in full else LINEAR for layer in range(s.layers)]
    return layer_kinds(cfg, s.layers, [FULL if layer and layer % 4 == 0 else LINEAR for layer in range(s.layers)])


def bailing_hybrid(cfg: Config, prefix: str = "model") -> Anatomy:
    """Delta attention like Kimi's with a full decay projection; gated latent attention in one layer of six."""
    s = sizes(cfg)
    size, kernel = s.head_dim, cfg.int("short_conv_kernel_size", default=4)
    if cfg.has("linear_head_dim"):
        size = cfg.int("linear_head_dim")
    width = s.heads * size
    name = "attention"
    mixer = LinearAttention("kda", s.heads, size, size, kernel, 3 * width)
    delta = Part(
        (
            *separate_convolutions(name, {"q": width, "k": width, "v": width}, kernel, s.hidden),
            *weight(f"{name}.A_log", (s.heads,), ROLE, "a"),
            *weight(f"{name}.dt_bias", (width,), ROLE, "dt"),
            *linear(f"{name}.f_proj", width, s.hidden, ROLE, "decay"),
            *linear(f"{name}.b_proj", s.heads, s.hidden, ROLE, "beta"),
            *linear(f"{name}.g_proj", width, s.hidden, ROLE, "gate"),
            *norm_tensors(f"{name}.o_norm", size),
            *linear(f"{name}.dense", s.hidden, width, ROLE, "out"),
        ),
        (mixer,),
    )

    def full() -> Part:
        part = latent_attention(latent_mixer(cfg, s), s.hidden, name=name, output="dense")
        gate = linear(f"{name}.g_proj", s.heads, s.hidden, "attention", "gate")
        return Part((*part.tensors, *gate), part.mixers)

    def sparse() -> Part:
        count, wide = expert_count(cfg, "num_experts", "num_local_experts"), cfg.int("moe_intermediate_size")
        return mixture(
            s.hidden,
            wide,
            count,
            experts_per_token(cfg, count),
            correction="mlp.gate.expert_bias",
            shared=shared_mlp(s, shared_count(cfg, "num_shared_experts") * wide),
        )

    period = cfg.int("layer_group_size", max=10_000, default=6)
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=layer_kinds(cfg, s.layers, [LINEAR] * (period - 1) + [FULL]),
        halves=sparse_halves(cfg, s.layers, cfg.int("first_k_dense_replace", min=0, default=0)),
        mix=lambda kind: full() if kind == FULL else delta,
        feed_forward=dense_or(s, sparse),
        embedding="word_embeddings",
    )


def minimax(cfg: Config, prefix: str = "model") -> Anatomy:
    """Mixtral with lightning attention in every other layer; its decays are stored as buffers, block by block."""
    s = sizes(cfg)
    block, width = cfg.int("block_size", default=256), s.heads * s.head_dim
    mixer = LinearAttention("lightning", s.heads, s.head_dim, s.head_dim)
    name = "self_attn"
    lightning = Part(
        (
            *linear(f"{name}.qkv_proj", 3 * width, s.hidden, ROLE, "qkv"),
            *linear(f"{name}.output_gate", width, s.hidden, ROLE, "gate"),
            *linear(f"{name}.out_proj", s.hidden, width, ROLE, "out"),
            *norm_tensors(f"{name}.norm", width),
            *weight(f"{name}.slope_rate", (s.heads, 1, 1), "buffer", "decay"),
            *weight(f"{name}.query_decay", (s.heads, block, 1), "buffer", "decay"),
            *weight(f"{name}.key_decay", (s.heads, block, 1), "buffer", "decay"),
            *weight(f"{name}.diagonal_decay", (1, s.heads, block, block), "buffer", "decay"),
        ),
        (mixer,),
    )
    count = expert_count(cfg, "num_local_experts")
    half = mixture(
        s.hidden,
        s.ffn,
        count,
        experts_per_token(cfg, count),
        router="block_sparse_moe.gate",
        name="block_sparse_moe.experts.{copy}",
        names=MIXTRAL_EXPERT,
    )
    types = cfg.ints("attn_type_list", min=0, max=1)
    kinds = [FULL if kind else LINEAR for kind in types] if types else [FULL, LINEAR]
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=layer_kinds(cfg, s.layers, kinds),
        halves=[SPARSE] * s.layers,
        mix=lambda kind: attention(full_attention(s), s.hidden) if kind == FULL else lightning,
        feed_forward=lambda _: half,
    )
