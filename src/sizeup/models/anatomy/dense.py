"""Dense decoders: llama and the families that differ from it by a named twist."""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.models.anatomy.family import Anatomy, Sizes, full_attention, layer_kinds, sizes, text_frame
from sizeup.models.anatomy.parts import Part, attention, gated_mlp, norm, stack_of
from sizeup.models.config import Config

PRE_NORMS = ("input_layernorm", "post_attention_layernorm")
SANDWICH_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def llama_like(
    cfg: Config,
    prefix: str = "model",
    *,
    kinds: Sequence[str] | None = None,
    qkv_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: str | None = None,
    norms: Sequence[str] = PRE_NORMS,
    activation: str = "silu",
    softcap: float | None = None,
    tied: bool = False,
) -> Anatomy:
    """Llama with twists: each keyword is one.

    kinds: `full_attention` or `sliding_attention` for every layer (window from `sliding_window`).
    norms: the norms of a layer, by name. tied: whether the head is tied when the configuration doesn't say.
    """
    s = sizes(cfg)
    window = cfg.optional_int("sliding_window")

    def layer(kind: str) -> list[Part]:
        mixer = full_attention(s, window=window if kind == "sliding_attention" else None, softcap=softcap)
        return [
            attention(mixer, s.hidden, qkv_bias=qkv_bias, output_bias=output_bias, qk_norm=qk_norm),
            gated_mlp(s.hidden, s.ffn, bias=mlp_bias, activation=activation),
            *(norm(name, s.hidden) for name in norms),
        ]

    layers = stack_of(f"{prefix}.layers", kinds or ["full_attention"] * s.layers, layer, label=_label)
    return text_frame(cfg, s, layers, prefix=prefix, tied=tied)


def _label(kind: str) -> str:
    return {"sliding_attention": "sliding-window layer"}.get(kind, "layer")


def llama(cfg: Config, prefix: str = "model") -> Anatomy:
    """The pattern of the others: RMS norm before each half, grouped queries, gated feed-forward."""
    bias = cfg.bool("attention_bias", default=False)
    return llama_like(cfg, prefix, qkv_bias=bias, output_bias=bias, mlp_bias=cfg.bool("mlp_bias", default=False))


def mistral(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with a sliding window in every layer, when `sliding_window` names one."""
    kind = "sliding_attention" if cfg.has("sliding_window") else "full_attention"
    return llama_like(cfg, prefix, kinds=[kind] * sizes(cfg).layers)


def qwen2(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with biases on query, key and value; optionally a window in the layers from `max_window_layers` on."""
    return llama_like(cfg, prefix, kinds=_qwen_kinds(cfg, sizes(cfg)), qkv_bias=True)


def qwen3(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen2 without biases, with an RMS norm on every query and key head."""
    bias = cfg.bool("attention_bias", default=False)
    return llama_like(cfg, prefix, kinds=_qwen_kinds(cfg, sizes(cfg)), qkv_bias=bias, output_bias=bias, qk_norm="head")


def _qwen_kinds(cfg: Config, s: Sizes) -> list[str]:
    if not cfg.bool("use_sliding_window", default=False):
        return ["full_attention"] * s.layers
    first = cfg.int("max_window_layers", min=0, default=s.layers)
    return ["full_attention" if layer < first else "sliding_attention" for layer in range(s.layers)]


def gemma(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with a GELU gate and a tied head."""
    return llama_like(cfg, prefix, activation="gelu_tanh", tied=True)


def gemma2(cfg: Config, prefix: str = "model") -> Anatomy:
    """Gemma with norms before and after each half, soft caps, and a window in every other layer."""
    s = sizes(cfg)
    kinds = (
        layer_kinds(cfg, s.layers)
        if cfg.has("layer_types")
        else ["full_attention" if layer % 2 else "sliding_attention" for layer in range(s.layers)]
    )
    cap = cfg.optional_float("attn_logit_softcapping")
    return llama_like(cfg, prefix, kinds=kinds, norms=SANDWICH_NORMS, activation="gelu_tanh", softcap=cap, tied=True)
