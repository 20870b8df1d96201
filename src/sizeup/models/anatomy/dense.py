"""Dense decoders in the shape of llama, and the families that differ from it by a named twist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sizeup.models.anatomy.family import (
    FULL,
    PRE_NORMS,
    SLIDING,
    Anatomy,
    Sizes,
    decoder,
    layer_kinds,
    sizes,
    windowed,
)
from sizeup.models.anatomy.parts import Part, Tensors, attention, fused_attention, gated_mlp, weight
from sizeup.models.config import Config

POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")


def llama_like(
    cfg: Config,
    prefix: str = "model",
    *,
    kinds: Sequence[str] = (),
    qkv_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: str | None = None,
    qk_norm_names: Sequence[str] = ("q_norm", "k_norm"),
    norms: Sequence[str] = PRE_NORMS,
    norm_bias: bool = False,
    activation: str = "silu",
    sinks: bool = False,
    softcap: float | None = None,
    feed_forward: Part | Callable[[str], Part] | None = None,
    halves: Sequence[str] = (),
    extra: Tensors = (),
    **frame: Any,
) -> Anatomy:
    """Llama with twists: each keyword is one.

    kinds: `full_attention` or `sliding_attention` for every layer (window from `sliding_window`).
    qk_norm: over each `head` of queries and keys, or over the `full` projection. norms: the norms of a layer.
    feed_forward: in place of the gated one; with `halves`, from the name of a layer's half to its part.
    extra: further tensors of the attention. frame: what `text_frame` takes.
    """
    s = sizes(cfg)

    def mix(kind: str) -> Part:
        return attention(
            windowed(cfg, s, kind, sinks=sinks, softcap=softcap),
            s.hidden,
            qkv_bias=qkv_bias,
            output_bias=output_bias,
            qk_norm=qk_norm,
            qk_norm_names=qk_norm_names,
            extra=extra,
        )

    def half(kind: str) -> Part:
        if isinstance(feed_forward, Part):
            return feed_forward
        if feed_forward:
            return feed_forward(kind)
        return gated_mlp(s.hidden, s.ffn, bias=mlp_bias, activation=activation)

    return decoder(
        cfg,
        prefix,
        s=s,
        mix=mix,
        feed_forward=half,
        halves=halves,
        kinds=kinds,
        norms=norms,
        norm_bias=norm_bias,
        **frame,
    )


def biased(cfg: Config) -> dict[str, Any]:
    """The switches of llama's own configuration: biases on all projections of a half."""
    bias = cfg.bool("attention_bias", default=False)
    return {"qkv_bias": bias, "output_bias": bias, "mlp_bias": cfg.bool("mlp_bias", default=False)}


def window_kinds(cfg: Config, s: Sizes) -> list[str]:
    """The kinds that `layer_types` lists; without it, a window everywhere when `sliding_window` names one."""
    return layer_kinds(cfg, s.layers, SLIDING if cfg.has("sliding_window") else FULL)


def llama(cfg: Config, prefix: str = "model") -> Anatomy:
    """The pattern of the others: RMS norm before each half, grouped queries, gated feed-forward."""
    return llama_like(cfg, prefix, **biased(cfg))


def mistral(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with a sliding window in every layer, when `sliding_window` names one."""
    return llama_like(cfg, prefix, kinds=window_kinds(cfg, sizes(cfg)))


def qwen2(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with biases on query, key and value; optionally a window in the layers from `max_window_layers` on."""
    return llama_like(cfg, prefix, kinds=qwen_kinds(cfg, sizes(cfg)), qkv_bias=True)


def qwen3(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen2 without biases, with an RMS norm on every query and key head."""
    return llama_like(cfg, prefix, kinds=qwen_kinds(cfg, sizes(cfg)), qk_norm="head", **biased(cfg))


def qwen_kinds(cfg: Config, s: Sizes) -> list[str]:
    """Windows only when `use_sliding_window` says so, in the layers from `max_window_layers` on."""
    if not cfg.bool("use_sliding_window", default=False):
        return [FULL] * s.layers
    first = cfg.int("max_window_layers", min=0, default=s.layers)
    return layer_kinds(cfg, s.layers, [FULL if layer < first else SLIDING for layer in range(s.layers)])


def seed_oss(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with separate switches for the biases of queries, keys and values and of the output."""
    return llama_like(
        cfg,
        prefix,
        qkv_bias=cfg.bool("attention_bias", default=False),
        output_bias=cfg.bool("attention_out_bias", default=False),
        mlp_bias=cfg.bool("mlp_bias", default=False),
    )


def smollm3(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama that leaves rotary positions out in every fourth layer; perhaps windows in the others."""
    return llama_like(cfg, prefix, kinds=layer_kinds(cfg, sizes(cfg).layers), **biased(cfg))


def ernie4_5(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with one switch for all biases."""
    bias = cfg.bool("use_bias", default=False)
    return llama_like(cfg, prefix, qkv_bias=bias, output_bias=bias, mlp_bias=bias)


def cwm(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with full attention in every fourth layer and windows in between."""
    pattern = [FULL, SLIDING, SLIDING, SLIDING]
    return llama_like(cfg, prefix, kinds=layer_kinds(cfg, sizes(cfg).layers, pattern))


def granite_swa(cfg: Config, prefix: str = "model") -> Anatomy:
    """Granite with windows between full layers, and a learned sink for every head."""
    s = sizes(cfg)
    kinds = layer_kinds(cfg, s.layers, [FULL, SLIDING, SLIDING, SLIDING])
    sinks = weight("self_attn.sinks", (s.heads,), "attention", "sinks")
    return llama_like(cfg, prefix, kinds=kinds, sinks=True, extra=sinks, **biased(cfg))


def hyperclovax(cfg: Config, prefix: str = "model") -> Anatomy:
    """Granite with two further norms, after each half, when `use_post_norm` says so."""
    after = ("post_norm1", "post_norm2") if cfg.bool("use_post_norm", default=False) else ()
    return llama_like(cfg, prefix, norms=(*PRE_NORMS, *after), **biased(cfg))


def stablelm(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with layer norms that have biases; perhaps a norm for every query and key head, and parallel halves."""
    s = sizes(cfg)
    per_head: Tensors = ()
    if cfg.bool("qk_layernorm", default=False):
        per_head = tuple(
            tensor
            for side, heads in (("q", s.heads), ("k", s.kv_heads))
            for head in range(heads)
            for tensor in weight(
                f"self_attn.{side}_layernorm.norms.{head}.weight", (s.head_dim,), "norm", f"{side}_norm"
            )
        )
    parallel = cfg.bool("use_parallel_residual", default=False)
    return llama_like(
        cfg,
        prefix,
        qkv_bias=cfg.bool("use_qkv_bias", default=False),
        norms=PRE_NORMS[:1] if parallel else PRE_NORMS,
        norm_bias=True,
        extra=per_head,
    )


def cohere(cfg: Config, prefix: str = "model") -> Anatomy:
    """One norm before both halves, which run in parallel; a tied head. `use_qk_norm`: norms over (heads, head_dim)."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    qk_norms: Tensors = ()
    if cfg.bool("use_qk_norm", default=False):
        qk_norms = (
            *weight("self_attn.q_norm.weight", (s.heads, s.head_dim), "norm", "q_norm"),
            *weight("self_attn.k_norm.weight", (s.kv_heads, s.head_dim), "norm", "k_norm"),
        )
    return llama_like(cfg, prefix, qkv_bias=bias, output_bias=bias, norms=PRE_NORMS[:1], extra=qk_norms, tied=True)


def cohere2(cfg: Config, prefix: str = "model") -> Anatomy:
    """Cohere with windows in three layers of four."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    kinds = layer_kinds(cfg, s.layers, sliding_pattern(cfg, 4))
    return llama_like(cfg, prefix, kinds=kinds, qkv_bias=bias, output_bias=bias, norms=PRE_NORMS[:1], tied=True)


def cohere_compass_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Cohere2 with full attention everywhere unless `layer_types` says otherwise."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    kinds = layer_kinds(cfg, s.layers)
    return llama_like(cfg, prefix, kinds=kinds, qkv_bias=bias, output_bias=bias, norms=PRE_NORMS[:1], tied=True)


def sliding_pattern(cfg: Config, default: int) -> list[str]:
    """Windows in all layers of `sliding_window_pattern` but the last, which is full."""
    period = cfg.int("sliding_window_pattern", "_sliding_window_pattern", max=10_000, default=default)
    return [SLIDING] * (period - 1) + [FULL]


def olmo(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama whose layer norms have no weights."""
    bias = cfg.bool("attention_bias", default=False)
    return llama_like(cfg, prefix, qkv_bias=bias, output_bias=bias, norms=(), final_norm="")


def olmo2(cfg: Config, prefix: str = "model") -> Anatomy:
    """Norms after the halves instead of before, and norms over whole query and key projections."""
    bias = cfg.bool("attention_bias", default=False)
    return llama_like(cfg, prefix, qkv_bias=bias, output_bias=bias, qk_norm="full", norms=POST_NORMS)


def olmo3(cfg: Config, prefix: str = "model") -> Anatomy:
    """Olmo2 with windows in three layers of four."""
    bias = cfg.bool("attention_bias", default=False)
    kinds = layer_kinds(cfg, sizes(cfg).layers, [SLIDING, SLIDING, SLIDING, FULL])
    return llama_like(cfg, prefix, kinds=kinds, qkv_bias=bias, output_bias=bias, qk_norm="full", norms=POST_NORMS)


def exaone4(cfg: Config, prefix: str = "model") -> Anatomy:
    """Olmo3's norms after the halves, with norms on every query and key head."""
    return llama_like(cfg, prefix, kinds=exaone_kinds(cfg, sizes(cfg)), qk_norm="head", norms=POST_NORMS)


def exaone_kinds(cfg: Config, s: Sizes) -> list[str]:
    """Windows in three layers of four, when there is a window; a pattern may also be spelled `LLLG`."""
    if not cfg.has("sliding_window"):
        return layer_kinds(cfg, s.layers)
    pattern = cfg.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:
        return layer_kinds(cfg, s.layers, [SLIDING if letter == "L" else FULL for letter in pattern])
    return layer_kinds(cfg, s.layers, sliding_pattern(cfg, 4))


def hunyuan_v1_dense(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with norms on every query and key head, under names of its own."""
    names = ("query_layernorm", "key_layernorm")
    return llama_like(cfg, prefix, qk_norm="head", qk_norm_names=names, **biased(cfg) | {"mlp_bias": False})


def bitnet(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with a norm before each output projection, and a squared ReLU."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    inner = weight("self_attn.attn_sub_norm.weight", (s.hidden,), "norm", "attn_sub_norm")
    half = gated_mlp(s.hidden, s.ffn, activation="relu2")
    sub_norm = weight("mlp.ffn_sub_norm.weight", (s.ffn,), "norm", "ffn_sub_norm")
    half = Part((*half.tensors, *sub_norm), feed_forward=half.feed_forward)
    return llama_like(cfg, prefix, qkv_bias=bias, output_bias=bias, extra=inner, feed_forward=half)


def diffllama(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with the difference of two attentions, weighed by learned lambdas (values are shared in pairs)."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    lambdas = tuple(
        tensor
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")
        for tensor in weight(f"self_attn.{name}", (s.head_dim,), "attention", "lambda")
    )
    return llama_like(cfg, prefix, qkv_bias=bias, output_bias=bias, extra=lambdas)


def phi3(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with queries, keys and values in one matrix, gate and up in another; perhaps a window everywhere."""
    s = sizes(cfg)
    kind = SLIDING if cfg.has("sliding_window") else FULL
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=[kind] * s.layers,
        mix=lambda kind: fused_attention(windowed(cfg, s, kind), s.hidden),
        feed_forward=lambda _: gated_mlp(s.hidden, s.ffn, fused="gate_up_proj"),
    )


def glm(cfg: Config, prefix: str = "model", norms: Sequence[str] = PRE_NORMS) -> Anatomy:
    """Llama with biases on query, key and value, and gate and up in one matrix."""
    s = sizes(cfg)
    half = gated_mlp(s.hidden, s.ffn, fused="gate_up_proj")
    bias = cfg.bool("attention_bias", default=False)
    return llama_like(cfg, prefix, qkv_bias=bias, feed_forward=half, norms=norms)


def glm4(cfg: Config, prefix: str = "model") -> Anatomy:
    """GLM with norms after the halves as well."""
    return glm(cfg, prefix, norms=(*PRE_NORMS, "post_self_attn_layernorm", "post_mlp_layernorm"))
