"""Mixtures of experts whose router has a correction bias, as DeepSeek-V3's, on llama's attention; and Hunyuan's."""

from __future__ import annotations

from sizeup.models.anatomy.dense import exaone_kinds, llama_like
from sizeup.models.anatomy.family import (
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
from sizeup.models.anatomy.moe import (
    deepseek_mixture,
    dense_or,
    expert_count,
    experts_per_token,
    shared_count,
    shared_mlp,
)
from sizeup.models.anatomy.mtp import deepseek_mtp
from sizeup.models.anatomy.parts import Part, linear, mixture, weight
from sizeup.models.config import MAX_EXPERTS, Config


def dots1(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen3's attention with DeepSeek-V3's mixture."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    first = cfg.int("max_window_layers", min=0, default=s.layers) if cfg.has("sliding_window") else s.layers
    return llama_like(
        cfg,
        prefix,
        kinds=layer_kinds(cfg, s.layers, [FULL if layer < first else SLIDING for layer in range(s.layers)]),
        halves=sparse_halves(cfg, s.layers, cfg.int("first_k_dense_replace", min=0, default=0)),
        feed_forward=dense_or(s, lambda: deepseek_mixture(cfg, s)),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="head",
    )


def glm4_moe(cfg: Config, prefix: str = "model") -> Anatomy:
    """GLM 4.5: DeepSeek-V3's mixture on grouped queries with biases; norms on query and key heads perhaps."""
    s = sizes(cfg)
    qk_norm = "head" if cfg.bool("use_qk_norm", default=False) else None
    anatomy = llama_like(
        cfg,
        prefix,
        halves=sparse_halves(cfg, s.layers, cfg.int("first_k_dense_replace", min=0, default=1)),
        feed_forward=dense_or(s, lambda: deepseek_mixture(cfg, s)),
        qkv_bias=cfg.bool("attention_bias", default=False),
        qk_norm=qk_norm,
    )
    return deepseek_mtp(cfg, s, anatomy, prefix)


def solar_open(cfg: Config, prefix: str = "model") -> Anatomy:
    """GLM 4.5 with mixtures in all layers."""
    s = sizes(cfg)
    return llama_like(
        cfg,
        prefix,
        halves=[SPARSE] * s.layers,
        feed_forward=dense_or(s, lambda: deepseek_mixture(cfg, s)),
        qkv_bias=cfg.bool("attention_bias", default=False),
    )


def exaone_moe(cfg: Config, prefix: str = "model") -> Anatomy:
    """Exaone 4 with DeepSeek-V3's mixture and norms before the halves."""
    s = sizes(cfg)
    count = expert_count(cfg, "num_experts", "num_local_experts")
    width = cfg.int("moe_intermediate_size")
    shared = shared_mlp(s, shared_count(cfg, "num_shared_experts") * width)

    def sparse() -> Part:
        correction = "mlp.e_score_correction_bias"
        return mixture(s.hidden, width, count, experts_per_token(cfg, count), correction=correction, shared=shared)

    return llama_like(
        cfg,
        prefix,
        kinds=exaone_kinds(cfg, s),
        halves=sparse_halves(cfg, s.layers, cfg.int("first_k_dense_replace", min=0, default=1)),
        feed_forward=dense_or(s, sparse),
        qk_norm="head",
    )


def hunyuan_v1_moe(cfg: Config, prefix: str = "model") -> Anatomy:
    """Hunyuan with experts beside a shared feed-forward; counts may be listed layer by layer."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    counts = _per_layer(cfg, s, "num_experts", "num_local_experts")
    used = _per_layer(cfg, s, "moe_topk")
    names = ("query_layernorm", "key_layernorm")

    def half(kind: str) -> Part:
        count, per_token = (int(word) for word in kind.split("/"))
        return mixture(
            s.hidden,
            s.ffn,
            count,
            min(count, per_token),
            router="mlp.gate.wg",
            shared=shared_mlp(s, s.ffn, "mlp.shared_mlp"),
        )

    return llama_like(
        cfg,
        prefix,
        halves=[f"{count}/{per_token}" for count, per_token in zip(counts, used, strict=True)],
        feed_forward=half,
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="head",
        qk_norm_names=names,
    )


def _per_layer(cfg: Config, s: Sizes, *names: str) -> list[int]:
    if not isinstance(cfg.get(*names), list):
        return [cfg.int(*names, max=MAX_EXPERTS, default=1)] * s.layers
    values = cfg.ints(*names, max=MAX_EXPERTS) or ()
    if len(values) < s.layers:
        raise cfg.bad(names[0], f"a list of {len(values)}", f"a list with one entry for each of {s.layers} layers")
    return list(values[: s.layers])


def hy_v3(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen3's attention with DeepSeek-V3's mixture under Hunyuan's names; the first layer is dense."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    count = expert_count(cfg, "num_experts", "num_local_experts")
    width = cfg.int("moe_intermediate_size")

    def sparse() -> Part:
        return mixture(
            s.hidden,
            width,
            count,
            experts_per_token(cfg, count),
            router="mlp.router.gate",
            correction="mlp.expert_bias",
            shared=shared_mlp(s, shared_count(cfg, "num_shared_experts") * width, "mlp.shared_mlp"),
        )

    return llama_like(
        cfg,
        prefix,
        halves=sparse_halves(cfg, s.layers, 1),
        feed_forward=dense_or(s, sparse, bias=cfg.bool("mlp_bias", default=False)),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="head",
    )


def afmoe(cfg: Config, prefix: str = "model") -> Anatomy:
    """Norms before and after the halves, a gate on the attention's output, windows in three layers of four."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    count, width = expert_count(cfg, "num_experts", "num_local_experts"), cfg.int("moe_intermediate_size")
    period = cfg.int("global_attn_every_n_layers", max=10_000, default=4)
    gate = linear("self_attn.gate_proj", s.heads * s.head_dim, s.hidden, "attention", "gate")

    def sparse() -> Part:
        return mixture(
            s.hidden,
            width,
            count,
            experts_per_token(cfg, count),
            router="mlp.router.gate",
            correction="mlp.expert_bias",
            correction_role="router",
            shared=shared_mlp(s, shared_count(cfg, "num_shared_experts") * width),
        )

    return llama_like(
        cfg,
        prefix,
        kinds=layer_kinds(cfg, s.layers, [SLIDING] * (period - 1) + [FULL]),
        halves=sparse_halves(cfg, s.layers, cfg.int("num_dense_layers", min=0, default=1)),
        feed_forward=dense_or(s, sparse),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="head",
        norms=(*PRE_NORMS, "pre_mlp_layernorm", "post_mlp_layernorm"),
        extra=gate,
    )


def beam(cfg: Config, prefix: str = "model") -> Anatomy:
    """Sandwich norms, a gate with a bias per head on the attention's output, one full layer in six."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    kinds = [FULL if (i + 1) % 6 == 0 or i == s.layers - 1 else SLIDING for i in range(s.layers)]
    gate = (
        *linear("self_attn.gate_proj", s.heads * s.head_dim, s.hidden, "attention", "gate"),
        *weight("self_attn.gate_bias", (s.heads,), "attention", "gate"),
    )
    return llama_like(
        cfg,
        prefix,
        kinds=layer_kinds(cfg, s.layers, kinds),
        halves=sparse_halves(cfg, s.layers, 3),
        feed_forward=dense_or(s, lambda: deepseek_mixture(cfg, s)),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="head",
        norms=(*PRE_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm"),
        extra=gate,
    )


def kolibri1(cfg: Config, prefix: str = "model") -> Anatomy:
    """Norms before and after the halves, one full layer in five, a shared expert in every layer."""
    s = sizes(cfg)
    count = expert_count(cfg, "num_local_experts", "num_experts")
    half = mixture(
        s.hidden,
        cfg.int("moe_intermediate_size"),
        count,
        experts_per_token(cfg, count),
        correction="moe.router.expert_bias",
        shared=shared_mlp(s, cfg.int("shared_expert_intermediate_size", min=0, default=0)),
    )
    return llama_like(
        cfg,
        prefix,
        kinds=layer_kinds(cfg, s.layers, [SLIDING] * 4 + [FULL]),
        halves=[SPARSE] * s.layers,
        feed_forward=half,
        qk_norm="head",
        norms=(*PRE_NORMS, "post_attn_norm", "post_ffn_norm"),
    )
