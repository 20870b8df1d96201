"""Gemma: scaled embeddings, a GELU gate and a tied head; then windows, shared caches and per-layer embeddings."""

from __future__ import annotations

from sizeup.models.anatomy.dense import llama_like, sliding_pattern
from sizeup.models.anatomy.family import FULL, SLIDING, Anatomy, layer_kinds, sizes
from sizeup.models.config import Config

SANDWICH_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def gemma(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with a GELU gate and a tied head."""
    bias = cfg.bool("attention_bias", default=False)
    return llama_like(cfg, prefix, qkv_bias=bias, output_bias=bias, activation="gelu_tanh", tied=True)


def gemma2(cfg: Config, prefix: str = "model", norms: tuple[str, ...] = SANDWICH_NORMS) -> Anatomy:
    """Gemma with norms before and after each half, soft caps, and a window in every other layer."""
    bias = cfg.bool("attention_bias", default=False)
    return llama_like(
        cfg,
        prefix,
        kinds=layer_kinds(cfg, sizes(cfg).layers, [SLIDING, FULL]),
        qkv_bias=bias,
        output_bias=bias,
        norms=norms,
        activation="gelu_tanh",
        softcap=cfg.optional_float("attn_logit_softcapping"),
        tied=True,
    )


def vaultgemma(cfg: Config, prefix: str = "model") -> Anatomy:
    """Gemma2 without the norms after the halves."""
    return gemma2(cfg, prefix, norms=("input_layernorm", "pre_feedforward_layernorm"))


def gemma3_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Gemma2 with norms on queries and keys instead of the soft cap, and one full layer in six."""
    bias = cfg.bool("attention_bias", default=False)
    return llama_like(
        cfg,
        prefix,
        kinds=layer_kinds(cfg, sizes(cfg).layers, sliding_pattern(cfg, 6)),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="head",
        norms=SANDWICH_NORMS,
        activation="gelu_tanh",
        softcap=cfg.optional_float("attn_logit_softcapping"),
        tied=True,
    )
