"""Liquid's hybrids: gated short convolutions, and attention in some layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sizeup.models.anatomy.family import (
    DENSE,
    FULL,
    SLIDING,
    Anatomy,
    decoder,
    layer_kinds,
    sizes,
    sparse_halves,
    windowed,
)
from sizeup.models.anatomy.mamba import convolution
from sizeup.models.anatomy.moe import (
    MIXTRAL_EXPERT,
    expert_count,
    experts_per_token,
)
from sizeup.models.anatomy.parts import (
    Part,
    attention,
    gated_mlp,
    linear,
    mixture,
)
from sizeup.models.config import Config
from sizeup.models.mixers import ShortConvolution

OPERATOR_NORMS = ("operator_norm", "ffn_norm")


def short_convolution(hidden: int, kernel: int, *, bias: bool) -> Part:
    """LFM2's operator: three projections of the input, a gated convolution over a few tokens, an output projection."""
    tensors = (
        *linear("conv.in_proj", 3 * hidden, hidden, "state_space", "in", bias=bias),
        *convolution("conv.conv", hidden, kernel, bias=bias),
        *linear("conv.out_proj", hidden, hidden, "state_space", "out", bias=bias),
    )
    return Part(tensors, (ShortConvolution(hidden, kernel),))


def lfm2_width(cfg: Config) -> int:
    """`block_auto_adjust_ff_dim`: two thirds of the given width, times a factor, rounded up to a multiple."""
    width = cfg.int("block_ff_dim", "intermediate_size")
    if not cfg.bool("block_auto_adjust_ff_dim", default=True):
        return width
    width = 2 * width // 3
    if cfg.has("block_ffn_dim_multiplier"):
        width = int(cfg.float("block_ffn_dim_multiplier", min=0, max=1e6) * width)
    multiple = cfg.int("block_multiple_of", default=256)
    return max(1, -(-width // multiple)) * multiple


def lfm2_like(
    cfg: Config, prefix: str, half: Callable[[str], Part], halves: Sequence[str] = (), **twists: Any
) -> Anatomy:
    """Short convolutions with attention in some layers; the final norm is called `embedding_norm`."""
    s = sizes(cfg)
    chosen = cfg.ints("full_attn_idxs", min=0)
    default = twists.pop("default", [FULL if chosen is None or i in chosen else "conv" for i in range(s.layers)])
    operator = short_convolution(
        s.hidden, cfg.int("conv_L_cache", default=3), bias=cfg.bool("conv_bias", default=False)
    )
    names: dict[str, Any] = {
        "names": ("q_proj", "k_proj", "v_proj", "out_proj"),
        "qk_norm_names": ("q_layernorm", "k_layernorm"),
    }
    arguments = names | twists.pop("attention", {})
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=layer_kinds(cfg, s.layers, default),
        halves=halves,
        mix=lambda kind: (
            operator if kind == "conv" else attention(windowed(cfg, s, kind), s.hidden, qk_norm="head", **arguments)
        ),
        feed_forward=half,
        norms=twists.pop("norms", OPERATOR_NORMS),
        final_norm="embedding_norm",
        tied=cfg.bool("tie_embedding", default=True),
        **twists,
    )


def lfm2(cfg: Config, prefix: str = "model") -> Anatomy:
    """Short convolutions and attention with a gated feed-forward."""
    hidden = cfg.int("hidden_size")
    half = gated_mlp(hidden, lfm2_width(cfg), name="feed_forward", names=MIXTRAL_EXPERT)
    return lfm2_like(cfg, prefix, lambda _: half)


def lfm2_moe(cfg: Config, prefix: str = "model") -> Anatomy:
    """LFM2 with mixtures after the first dense layers."""
    s = sizes(cfg)

    def half(kind: str) -> Part:
        if kind == DENSE:
            return gated_mlp(s.hidden, s.ffn, name="feed_forward", names=MIXTRAL_EXPERT)
        count = expert_count(cfg, "num_experts", "num_local_experts")
        return mixture(
            s.hidden,
            cfg.int("moe_intermediate_size"),
            count,
            experts_per_token(cfg, count),
            router="feed_forward.gate",
            correction="feed_forward.expert_bias" if cfg.bool("use_expert_bias", default=True) else None,
            name="feed_forward.experts.{copy}",
            names=MIXTRAL_EXPERT,
        )

    return lfm2_like(cfg, prefix, half, sparse_halves(cfg, s.layers, cfg.int("num_dense_layers", min=0, default=2)))


def lfm3(cfg: Config, prefix: str = "model") -> Anatomy:
    """LFM2 with windows, norms after the halves and a gate per head on the attention's output."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    half = gated_mlp(s.hidden, s.ffn, name="feed_forward", names=MIXTRAL_EXPERT)
    gate = linear("self_attn.gate_proj", s.heads, s.hidden, "attention", "gate")
    names = {
        "names": ("q_proj", "k_proj", "v_proj", "o_proj"),
        "qk_norm_names": ("q_norm", "k_norm"),
        "extra": gate if cfg.bool("use_attn_gate", default=True) else (),
        "qkv_bias": bias,
        "output_bias": bias,
    }
    after = ("post_operator_norm", "post_ffn_norm") if cfg.bool("use_sandwich_norm", default=True) else ()
    pattern = {2: FULL, 0: SLIDING}
    kinds = [pattern.get(layer % 4, "conv") if layer else "conv" for layer in range(s.layers)]
    return lfm2_like(cfg, prefix, lambda _: half, default=kinds, attention=names, norms=(*OPERATOR_NORMS, *after))
