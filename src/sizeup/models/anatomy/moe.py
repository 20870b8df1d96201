"""Mixtures of experts on llama's attention, each expert stored under its own name.

The families differ in what routes (a correction bias, a gate on the shared experts), which layers are dense, and in
the twists that their dense relatives have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sizeup.models.anatomy.dense import POST_NORMS, llama_like, qwen_kinds, sliding_pattern, window_kinds
from sizeup.models.anatomy.family import (
    DENSE,
    FULL,
    PRE_NORMS,
    SLIDING,
    SPARSE,
    Anatomy,
    Sizes,
    layer_kinds,
    sizes,
    sparse_halves,
)
from sizeup.models.anatomy.parts import Part, gated_mlp, mixture, weight
from sizeup.models.config import MAX_EXPERTS, Config

MIXTRAL_EXPERT = ("w1", "w3", "w2")
CORRECTION = "mlp.gate.e_score_correction_bias"


def experts_per_token(cfg: Config, count: int, *names: str) -> int:
    """How many experts a token uses; never more than there are."""
    return cfg.int(*(names or ("num_experts_per_tok",)), max=count)


def expert_count(cfg: Config, *names: str) -> int:
    """How many routed experts a layer has, under the first of the names that is there."""
    return cfg.int(*names, max=MAX_EXPERTS)


def shared_count(cfg: Config, *names: str) -> int:
    """How many shared experts a layer has; 0 when the configuration names none."""
    return cfg.int(*names, min=0, max=MAX_EXPERTS, default=0)


def shared_mlp(s: Sizes, width: int, name: str = "mlp.shared_experts") -> Part | None:
    """Shared experts of that width together; None for width 0."""
    return gated_mlp(s.hidden, width, name=name, role="shared_expert") if width else None


def dense_or(s: Sizes, sparse: Callable[[], Part], *, bias: bool = False) -> Callable[[str], Part]:
    """From a half's name to its part: a gated feed-forward, or the mixture."""
    return lambda half: gated_mlp(s.hidden, s.ffn, bias=bias) if half == DENSE else sparse()


def mixtral(cfg: Config, prefix: str = "model", **twists: Any) -> Anatomy:
    """Mistral with 8 experts in place of the feed-forward, under names of its own."""
    s = sizes(cfg)
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
    kinds = window_kinds(cfg, s)
    return llama_like(cfg, prefix, kinds=kinds, halves=[SPARSE] * s.layers, feed_forward=half, **twists)


def phimoe(cfg: Config, prefix: str = "model") -> Anatomy:
    """Mixtral with layer norms that have biases, and perhaps biases on projections and head."""
    bias = cfg.bool("attention_bias", default=False)
    head_bias = cfg.bool("lm_head_bias", default=False)
    return mixtral(cfg, prefix, qkv_bias=bias, output_bias=bias, norm_bias=True, head_bias=head_bias)


def minimax_m2(cfg: Config, prefix: str = "model") -> Anatomy:
    """Mixtral with a correction bias on the router and norms over whole query and key projections."""
    s = sizes(cfg)
    count = expert_count(cfg, "num_local_experts")
    half = mixture(
        s.hidden,
        s.ffn,
        count,
        experts_per_token(cfg, count),
        router="block_sparse_moe.gate",
        correction="block_sparse_moe.e_score_correction_bias",
        name="block_sparse_moe.experts.{copy}",
        names=MIXTRAL_EXPERT,
    )
    return llama_like(cfg, prefix, halves=[SPARSE] * s.layers, feed_forward=half, qk_norm="full")


def qwen_halves(cfg: Config, s: Sizes) -> list[str]:
    """Mixtures in every `decoder_sparse_step`-th layer that `mlp_only_layers` doesn't list."""
    step = cfg.int("decoder_sparse_step", default=1)
    dense = set(cfg.ints("mlp_only_layers", min=0) or ())
    return [SPARSE if (layer + 1) % step == 0 and layer not in dense else DENSE for layer in range(s.layers)]


def qwen_mixture(cfg: Config, s: Sizes) -> Part:
    """Qwen's mixture: softmax router; perhaps a shared expert behind a gate of its own."""
    count = expert_count(cfg, "num_experts", "num_local_experts")
    shared = shared_mlp(s, cfg.int("shared_expert_intermediate_size", min=0, default=0), name="mlp.shared_expert")
    return mixture(
        s.hidden,
        cfg.int("moe_intermediate_size"),
        count,
        experts_per_token(cfg, count),
        shared=shared,
        shared_gate="mlp.shared_expert_gate" if shared else None,
    )


def qwen2_moe(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen2 with mixtures, and a shared expert behind a gate of its own."""
    s = sizes(cfg)
    return llama_like(
        cfg,
        prefix,
        kinds=qwen_kinds(cfg, s),
        halves=qwen_halves(cfg, s),
        feed_forward=dense_or(s, lambda: qwen_mixture(cfg, s)),
        qkv_bias=cfg.bool("qkv_bias", default=True),
    )


def qwen3_moe(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen3 with mixtures and no shared expert."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    count = expert_count(cfg, "num_experts", "num_local_experts")
    width, used = cfg.int("moe_intermediate_size"), experts_per_token(cfg, count)
    kind = SLIDING if cfg.bool("use_sliding_window", default=False) and cfg.has("sliding_window") else FULL
    return llama_like(
        cfg,
        prefix,
        kinds=[kind] * s.layers,
        halves=qwen_halves(cfg, s),
        feed_forward=dense_or(s, lambda: mixture(s.hidden, width, count, used)),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="head",
    )


def olmoe(cfg: Config, prefix: str = "model", norms: tuple[str, ...] = PRE_NORMS) -> Anatomy:
    """Experts everywhere, as wide as `intermediate_size`; norms over whole query and key projections."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    count = expert_count(cfg, "num_experts", "num_local_experts")
    half = mixture(s.hidden, s.ffn, count, experts_per_token(cfg, count))
    halves = [SPARSE] * s.layers
    return llama_like(
        cfg,
        prefix,
        halves=halves,
        feed_forward=half,
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="full",
        norms=norms,
    )


def flex_olmo(cfg: Config, prefix: str = "model") -> Anatomy:
    """Olmo2 with experts: norms after the halves."""
    return olmoe(cfg, prefix, norms=POST_NORMS)


def mellum(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen3's mixture with windows in the layers that `layer_types` names."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    count = expert_count(cfg, "num_local_experts", "num_experts")
    width, used = cfg.int("moe_intermediate_size"), experts_per_token(cfg, count)
    return llama_like(
        cfg,
        prefix,
        kinds=layer_kinds(cfg, s.layers),
        halves=sparse_halves(cfg, s.layers),
        feed_forward=dense_or(s, lambda: mixture(s.hidden, width, count, used)),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="head",
    )


def flint(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen3's mixture with a shared expert, windows in three layers of four, and a learned softmax offset per head."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    count = expert_count(cfg, "num_experts", "num_local_experts")
    dense = set(cfg.ints("mlp_only_layers", min=0) or (() if cfg.has("mlp_only_layers") else (0, 1)))
    step = cfg.int("decoder_sparse_step", default=1)
    full = [layer < 2 or layer % 4 == 1 or layer == s.layers - 1 for layer in range(s.layers)]

    def sparse() -> Part:
        shared = shared_mlp(s, cfg.int("shared_expert_intermediate_size", min=0, default=0), "mlp.shared_expert")
        return mixture(s.hidden, cfg.int("moe_intermediate_size"), count, experts_per_token(cfg, count), shared=shared)

    return llama_like(
        cfg,
        prefix,
        kinds=layer_kinds(cfg, s.layers, [FULL if is_full else SLIDING for is_full in full]),
        halves=[SPARSE if (i + 1) % step == 0 and i not in dense else DENSE for i in range(s.layers)],
        feed_forward=dense_or(s, sparse),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="head",
        sinks=True,
        extra=weight("self_attn.softmax_offset", (s.heads,), "attention", "sinks"),
    )


def cohere2_moe(cfg: Config, prefix: str = "model") -> Anatomy:
    """Cohere2 with mixtures after the first layers; shared experts perhaps."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    count = expert_count(cfg, "num_experts", "num_local_experts")
    dense = cfg.int("first_k_dense_replace", min=0, default=0)
    leading = cfg.int("prefix_dense_sliding_window_pattern", default=1)
    kinds = [SLIDING if (layer + 1) % leading else FULL for layer in range(min(dense, s.layers))]
    pattern = sliding_pattern(cfg, 4)
    kinds += [pattern[layer % len(pattern)] for layer in range(s.layers - len(kinds))]
    shared = shared_mlp(s, shared_count(cfg, "num_shared_experts") * s.ffn)

    def half(kind: str) -> Part:
        if kind == DENSE:
            return gated_mlp(s.hidden, cfg.int("prefix_dense_intermediate_size", default=s.ffn))
        return mixture(s.hidden, s.ffn, count, experts_per_token(cfg, count), shared=shared)

    return llama_like(
        cfg,
        prefix,
        kinds=layer_kinds(cfg, s.layers, kinds),
        halves=sparse_halves(cfg, s.layers, dense),
        feed_forward=half,
        qkv_bias=bias,
        output_bias=bias,
        norms=PRE_NORMS[:1],
        tied=True,
    )


def ernie4_5_moe(cfg: Config, prefix: str = "model") -> Anatomy:
    """Ernie 4.5 with mixtures in a range of layers; the router's correction is a parameter."""
    s = sizes(cfg)
    bias = cfg.bool("use_bias", default=False)
    count = expert_count(cfg, "moe_num_experts")
    width = cfg.int("moe_intermediate_size")
    first = cfg.int("moe_layer_start_index", min=0, default=1)
    last = cfg.int("moe_layer_end_index", min=-1, default=-1)
    step = cfg.int("moe_layer_interval", default=1)
    last = s.layers - 1 if last == -1 else last
    halves = [SPARSE if (i + 1) % step == 0 and first <= i <= last else DENSE for i in range(s.layers)]

    def sparse() -> Part:
        part = mixture(
            s.hidden,
            width,
            count,
            experts_per_token(cfg, count, "moe_k"),
            shared=shared_mlp(s, shared_count(cfg, "moe_num_shared_experts") * width),
        )
        bias_row = weight("mlp.moe_statics.e_score_correction_bias", (1, count), "router", "router_correction")
        return Part((*part.tensors, *bias_row), feed_forward=part.feed_forward)

    return llama_like(
        cfg,
        prefix,
        halves=halves,
        feed_forward=dense_or(s, sparse, bias=bias),
        qkv_bias=bias,
        output_bias=bias,
    )


def deepseek_mixture(cfg: Config, s: Sizes, *, correction: str | None = CORRECTION) -> Part:
    """The mixture that DeepSeek-V3 made common: a correction bias on the router, shared experts without a gate."""
    count = expert_count(cfg, "n_routed_experts", "num_experts", "num_local_experts")
    width = cfg.int("moe_intermediate_size")
    return mixture(
        s.hidden,
        width,
        count,
        experts_per_token(cfg, count),
        correction=correction,
        shared=shared_mlp(s, shared_count(cfg, "n_shared_experts") * width),
    )


def arctic(cfg: Config, prefix: str = "model") -> Anatomy:
    """Mixtral with a dense feed-forward as wide as the hidden state beside the mixture, behind a norm of its own."""
    s = sizes(cfg)
    if cfg.int("moe_layer_frequency", default=1) != 1:
        raise cfg.bad("moe_layer_frequency", cfg.get("moe_layer_frequency"), "1, as in every published model")
    count = expert_count(cfg, "num_local_experts")
    beside = gated_mlp(s.hidden, s.hidden, name="residual_mlp", names=MIXTRAL_EXPERT, role="shared_expert")
    half = mixture(
        s.hidden,
        s.ffn,
        count,
        experts_per_token(cfg, count),
        router="block_sparse_moe.gate",
        name="block_sparse_moe.experts.{copy}",
        names=MIXTRAL_EXPERT,
        shared=beside,
    )
    norms = (*PRE_NORMS, "residual_layernorm")
    return llama_like(cfg, prefix, halves=[SPARSE] * s.layers, feed_forward=half, norms=norms)
