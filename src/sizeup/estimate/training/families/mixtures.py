"""Decoders with experts. Each function says what differs from llama."""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.architectures.latent import Latent
from sizeup.estimate.training.families.common import base, bias, everywhere, partial, windows
from sizeup.models.anatomy.family import sizes
from sizeup.models.config import Config


def _mixed(layers: int, dense: int = 0) -> tuple[bool, ...]:
    return tuple(number >= dense for number in range(layers))


def mixtral(cfg: Config) -> DecoderShape:
    """Mistral with experts in every layer."""
    s = sizes(cfg)
    m = Mixture(experts=cfg.int("num_local_experts"), chosen=cfg.int("num_experts_per_tok"), width=s.ffn, adapted=True)
    return base(cfg, mixture=m, sparse=_mixed(s.layers), windows=everywhere(cfg, s.layers))


def qwen3_moe(cfg: Config) -> DecoderShape:
    """Qwen3 with experts in every layer (or every n-th)."""
    s = sizes(cfg)
    m = Mixture(
        experts=cfg.int("num_experts", "num_local_experts"), chosen=cfg.int("num_experts_per_tok"),
        width=cfg.int("moe_intermediate_size"), normalised=cfg.bool("norm_topk_prob", default=False), adapted=True,
    )  # fmt: skip
    b = bias(cfg)
    return base(
        cfg,
        qkv_bias=b,
        output_bias=b,
        qk_norm="head",
        mixture=m,
        sparse=_sparse_steps(cfg, s.layers),
        windows=everywhere(cfg, s.layers),
    )


def _sparse_steps(cfg: Config, layers: int) -> tuple[bool, ...]:
    step = cfg.int("decoder_sparse_step", default=1)
    dense = set(cfg.ints("mlp_only_layers", min=0) or ())
    return tuple(number not in dense and (number + 1) % step == 0 for number in range(layers))


def qwen2_moe(cfg: Config) -> DecoderShape:
    """Qwen2 with experts and a gated shared one, computed first."""
    s = sizes(cfg)
    m = Mixture(
        experts=cfg.int("num_experts", "num_local_experts"), chosen=cfg.int("num_experts_per_tok"),
        width=cfg.int("moe_intermediate_size"), normalised=cfg.bool("norm_topk_prob", default=False),
        shared=cfg.int("shared_expert_intermediate_size"), shared_gate=True, shared_first=True,
    )  # fmt: skip
    return base(
        cfg,
        qkv_bias=cfg.bool("qkv_bias", default=True),
        mixture=m,
        sparse=_sparse_steps(cfg, s.layers),
        windows=windows(cfg, s.layers),
    )


def olmoe(cfg: Config) -> DecoderShape:
    """Norms over whole queries and keys, experts in every layer."""
    s = sizes(cfg)
    m = Mixture(
        experts=cfg.int("num_experts", "num_local_experts"),
        chosen=cfg.int("num_experts_per_tok"),
        width=s.ffn,
        normalised=cfg.bool("norm_topk_prob", default=False),
        adapted=True,
    )
    b = bias(cfg)
    return base(cfg, qkv_bias=b, output_bias=b, qk_norm="whole", mixture=m, sparse=_mixed(s.layers))


def _routed(cfg: Config, **twists: Any) -> Mixture:
    """DeepSeek-V3's way of routing, with shared experts."""
    width = twists.get("width") or cfg.int("moe_intermediate_size")
    fields: dict[str, Any] = {
        "experts": cfg.int("n_routed_experts", "num_local_experts", "num_experts"),
        "chosen": cfg.int("num_experts_per_tok"),
        "width": width,
        "shared": width * cfg.int("n_shared_experts", "num_shared_experts", min=0, default=0),
        "scoring": "sigmoid",
        "adapted": True,
        "normalised": cfg.bool("norm_topk_prob", default=True),
    }
    return Mixture(**(fields | twists))


def glm4_moe(cfg: Config) -> DecoderShape:
    """GLM-4.5: norms perhaps on queries and keys, experts as in DeepSeek-V3."""
    s = sizes(cfg)
    norm = "head" if cfg.bool("use_qk_norm", default=False) else ""
    dense = cfg.int("first_k_dense_replace", min=0, default=0)
    return base(
        cfg,
        qkv_bias=bias(cfg),
        qk_norm=norm,
        rotary=partial(cfg),
        mixture=_routed(cfg),
        sparse=_mixed(s.layers, dense),
    )


def dots1(cfg: Config) -> DecoderShape:
    """Qwen3 attention, experts as in DeepSeek-V3."""
    s = sizes(cfg)
    b = bias(cfg)
    dense = cfg.int("first_k_dense_replace", min=0, default=0)
    return base(
        cfg, qkv_bias=b, output_bias=b, qk_norm="head", mixture=_routed(cfg), sparse=_mixed(s.layers, dense),
        windows=windows(cfg, s.layers),
    )  # fmt: skip


def minimax_m2(cfg: Config) -> DecoderShape:
    """Norms over whole queries and keys, experts routed by sigmoids in the 16-bit product."""
    s = sizes(cfg)
    m = _routed(cfg, width=s.ffn, shared=0, normalised=True, scoring="sigmoid after")
    return base(cfg, qk_norm="whole", rotary=partial(cfg), rotary_joined=True, mixture=m, sparse=_mixed(s.layers))


def granitemoe(cfg: Config) -> DecoderShape:
    """Granite with experts; the softmax is over the chosen ones."""
    s = sizes(cfg)
    b = bias(cfg)
    m = Mixture(
        experts=cfg.int("num_local_experts"), chosen=cfg.int("num_experts_per_tok"), width=s.ffn,
        scoring="softmax after", normalised=False,
    )  # fmt: skip
    return base(
        cfg, qkv_bias=b, output_bias=b, embedding_scale="model", residual_scale=True, logit_scale=True, mixture=m,
        sparse=_mixed(s.layers),
    )  # fmt: skip


def deepseek_v3(cfg: Config) -> DecoderShape:
    """Latent attention, experts routed by sigmoids, a shared one."""
    s = sizes(cfg)
    latent = Latent(
        cfg.optional_int("q_lora_rank", min=0) or 0, cfg.int("kv_lora_rank"), cfg.int("qk_nope_head_dim"),
        cfg.int("qk_rope_head_dim"), cfg.int("v_head_dim"),
    )  # fmt: skip
    width = cfg.int("moe_intermediate_size")
    m = Mixture(
        experts=cfg.int("n_routed_experts", "num_local_experts"), chosen=cfg.int("num_experts_per_tok"), width=width,
        shared=width * cfg.int("n_shared_experts", min=0, default=0), scoring="sigmoid", adapted=True,
        normalised=cfg.bool("norm_topk_prob", default=True),
    )  # fmt: skip
    dense = cfg.int("first_k_dense_replace", min=0, default=0)
    return base(
        cfg, latent=latent, head_dim=latent.rope_dim, mixture=m, sparse=_mixed(s.layers, dense), interleaved=True
    )


def deepseek_v2(cfg: Config) -> DecoderShape:
    """DeepSeek-V3 routed by a softmax in fp32, positions turned as complex numbers."""
    s = sizes(cfg)
    shape = deepseek_v3(cfg)
    mixed = _routed(cfg, scoring="softmax wide", normalised=False)
    return msgspec.structs.replace(shape, mixture=mixed, rotary_complex=True, layers=s.layers)
