"""Decoders of 2025 and later with parts of their own. Each function says what differs from Llama.

Source: transformers 5.23, `models/<model type>/modeling_*.py`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families.common import base, bias, share_of, windows
from sizeup.estimate.training.families.dense import cohere2
from sizeup.estimate.training.families.mixtures import deepseek_v3, deepseek_v32, granitemoeshared
from sizeup.estimate.training.families.recent import granite_swa
from sizeup.models.anatomy.family import FULL, SLIDING, sizes
from sizeup.models.config import Config


def _sparse(cfg: Config, layers: int, dense: int = 1) -> tuple[bool, ...]:
    """Which layers have experts: by name, or all after the first ones."""
    kinds = cfg.strs("mlp_layer_types")
    if kinds:
        return tuple(kind == "sparse" for kind in kinds)
    first = cfg.optional_int("first_k_dense_replace", min=0)
    return tuple(number >= (dense if first is None else first) for number in range(layers))


def mimo_v2_flash(cfg: Config) -> DecoderShape:
    """Windows with sinks and twice the key heads in most layers; values shorter than keys, and scaled; eager only."""
    s, b = sizes(cfg), bias(cfg)
    pattern = tuple(FULL if number == 0 or (number + 1) % 6 == 0 else SLIDING for number in range(s.layers))
    found = windows(cfg, s.layers, pattern)
    m = Mixture(
        experts=cfg.int("n_routed_experts", "num_local_experts"), chosen=cfg.int("num_experts_per_tok"),
        width=cfg.int("moe_intermediate_size"), scoring="sigmoid",
        normalised=cfg.bool("norm_topk_prob", default=True),
    )  # fmt: skip
    dims = tuple(int(s.head_dim * share_of(cfg, kind, 0.334)) for kind in (SLIDING, FULL))
    way = Way(less_largest=True, softmax_in_fp32=False)
    sinks = msgspec.structs.replace(way, sinks=True)
    varied = tuple(
        dict[str, Any](rotary=dims[1] / s.head_dim)
        if window is None
        else dict[str, Any](rotary=dims[0] / s.head_dim, kv_heads=2 * s.kv_heads, way=sinks)
        for window in found
    )
    return base(
        cfg, qkv_bias=b, value_dim=cfg.int("v_head_dim", default=s.head_dim), value_scale=True, way=way,
        eager_only=True, windows=found, varied=varied, rotary=dims[1] / s.head_dim, rotary_dims=dims, mixture=m,
        sparse=_sparse(cfg, s.layers),
    )  # fmt: skip


def cohere2_moe(cfg: Config) -> DecoderShape:
    """Cohere 2 with experts beside attention; scores are softmaxed or squashed after the choice."""
    s, shape = sizes(cfg), cohere2(cfg)
    scoring = (
        "softmax after, cast" if cfg.str("expert_selection_fn", default="softmax") == "softmax" else "sigmoid last"
    )
    shared = cfg.int("num_shared_experts", min=0, default=0)
    m = Mixture(
        experts=cfg.int("num_experts"), chosen=cfg.int("num_experts_per_tok"), width=s.ffn, shared=shared * s.ffn,
        scoring=scoring, adapted=True, normalised=scoring == "sigmoid last" and cfg.bool("norm_topk_prob", default=True),
        mean=shared > 0 and cfg.str("shared_expert_combination_strategy", default="sum") == "average",
    )  # fmt: skip
    sparse = _sparse(cfg, s.layers, 0)
    turned = cfg.int("prefix_dense_sliding_window_pattern", default=0, min=0) == 1
    still = tuple(window is None and (mixed or not turned) for window, mixed in zip(shape.windows, sparse, strict=True))
    return msgspec.structs.replace(
        shape, ffn=cfg.int("prefix_dense_intermediate_size", default=s.ffn), mixture=m, sparse=sparse, still=still,
        norm="rms" if cfg.has("rms_norm_eps") else "wide",
    )  # fmt: skip


def axk1(cfg: Config) -> DecoderShape:
    """DeepSeek-V3 with a norm after the experts."""
    shape = deepseek_v3(cfg)
    if shape.mixture is None:
        return shape
    mixed = msgspec.structs.replace(shape.mixture, last_norm=True, adapted=False)
    return msgspec.structs.replace(shape, mixture=mixed, sparse=_sparse(cfg, shape.layers))


def axk2(cfg: Config) -> DecoderShape:
    """DeepSeek-V3.2 with gates of low rank on its norms, and one on the output joined to the query projection."""
    shape = deepseek_v32(cfg)
    if shape.latent is None or shape.mixture is None:
        return shape
    return msgspec.structs.replace(
        shape, order="gated", gate_rank=cfg.int("gated_norm_rank", default=16), sparse=_sparse(cfg, shape.layers),
        latent=msgspec.structs.replace(shape.latent, gate="joined"),
        mixture=msgspec.structs.replace(shape.mixture, adapted=False),
    )  # fmt: skip


def longcat_flash(cfg: Config) -> DecoderShape:
    """Two latent attentions and feed-forwards a layer, experts beside the second; some experts only pass a token."""
    s = sizes(cfg)
    experts = cfg.int("n_routed_experts")
    m = Mixture(
        experts=experts, passing=cfg.int("zero_expert_num", min=0, default=0), chosen=cfg.int("moe_topk"),
        width=cfg.int("expert_ffn_hidden_size"), scoring="softmax in fp32", normalised=False, adapted=True,
    )  # fmt: skip
    shape = deepseek_v3(Config(cfg.data | {"moe_intermediate_size": m.width}, cfg.origin, cfg.path))
    if shape.latent is None:
        return shape
    return msgspec.structs.replace(
        shape, layers=cfg.int("num_layers"), ffn=cfg.int("ffn_hidden_size", default=s.ffn), order="double", mixture=m,
        sparse=(True,) * cfg.int("num_layers"), latent=msgspec.structs.replace(shape.latent, scaled="parts"),
    )  # fmt: skip


def granitemoe_swa(cfg: Config) -> DecoderShape:
    """Granite's experts with sinks, and windows in most layers."""
    shape, mixed = granite_swa(cfg), granitemoeshared(cfg)
    return msgspec.structs.replace(shape, mixture=mixed.mixture, sparse=mixed.sparse)


def kolibri1(cfg: Config) -> DecoderShape:
    """Norms around both halves, on queries and keys; windows in most layers, whose heads alone turn; experts."""
    s = sizes(cfg)
    pattern = (SLIDING,) * 4 + (FULL,)
    found = windows(cfg, s.layers, pattern)
    m = Mixture(
        experts=cfg.int("num_experts"), chosen=cfg.int("num_experts_per_tok"), width=cfg.int("moe_intermediate_size"),
        shared=cfg.int("shared_expert_intermediate_size", default=512), scoring="sigmoid last, wide",
        normalised=cfg.bool("norm_topk_prob", default=True),
    )  # fmt: skip
    return base(
        cfg, qk_norm="head", order="sandwich", mixture=m, sparse=(True,) * s.layers, windows=found,
        still=tuple(window is None for window in found),
    )  # fmt: skip


def flint(cfg: Config) -> DecoderShape:
    """Sinks and scores in fp32 (eager only), windows in most layers, whose heads alone turn; experts and a shared one."""
    s, b = sizes(cfg), bias(cfg)
    last = s.layers - 1
    pattern = tuple(FULL if number < 2 or number % 4 == 1 or number == last else SLIDING for number in range(s.layers))
    found = windows(cfg, s.layers, pattern)
    dense = set(cfg.ints("mlp_only_layers", min=0) or (0, 1))
    step = cfg.int("decoder_sparse_step", default=1)
    m = Mixture(
        experts=cfg.int("num_experts"), chosen=cfg.int("num_experts_per_tok"), width=cfg.int("moe_intermediate_size"),
        shared=cfg.int("shared_expert_intermediate_size", default=1024), scoring="sigmoid in fp32",
        normalised=cfg.bool("norm_topk_prob", default=True),
    )  # fmt: skip
    return base(
        cfg, norm="rms_fp32", qkv_bias=b, output_bias=b, qk_norm="head", eager_only=True, windows=found, mixture=m,
        way=Way(sinks=True, in_fp32=True, sinks_wide=True), still=tuple(window is None for window in found),
        sparse=tuple(number not in dense and (number + 1) % step == 0 for number in range(s.layers)),
    )  # fmt: skip
