"""Hybrids of attention and linear attention: gated delta nets, lightning attention, short convolutions, recurrences.

Source: transformers 5.23, `models/<model type>/modeling_*.py`, where no kernel package is installed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.architectures.gated_attention import GatedAttention
from sizeup.estimate.training.architectures.gated_delta import GatedDelta
from sizeup.estimate.training.families.common import base, bias
from sizeup.models.anatomy.family import FULL, LINEAR, layer_kinds, sizes
from sizeup.models.config import Config


def qwen3_5_text(cfg: Config) -> DecoderShape:
    """Gated delta nets, with gated attention in every fourth layer; positions of three axes."""
    return _gated_delta(cfg, fused=False, axes=True)


def qwen3_5_moe_text(cfg: Config) -> DecoderShape:
    """Qwen3.5 with mixtures in every layer."""
    layers = sizes(cfg).layers
    return msgspec.structs.replace(qwen3_5_text(cfg), mixture=_mixture(cfg), sparse=(True,) * layers)


def qwen3_next(cfg: Config) -> DecoderShape:
    """Gated delta nets of two projections, gated attention in every fourth layer, mixtures."""
    layers = sizes(cfg).layers
    step, dense = cfg.int("decoder_sparse_step", default=1), cfg.ints("mlp_only_layers", min=0) or ()
    sparse = tuple(number not in dense and (number + 1) % step == 0 for number in range(layers))
    mixture = msgspec.structs.replace(_mixture(cfg), adapted=True)
    return msgspec.structs.replace(_gated_delta(cfg, fused=True), mixture=mixture, sparse=sparse)


def _gated_delta(cfg: Config, *, fused: bool, axes: bool = False) -> DecoderShape:
    delta = GatedDelta(
        key_heads=cfg.int("linear_num_key_heads"), value_heads=cfg.int("linear_num_value_heads"),
        key_dim=cfg.int("linear_key_head_dim"), value_dim=cfg.int("linear_value_head_dim"),
        kernel=cfg.int("linear_conv_kernel_dim", default=4), fused=fused,
    )  # fmt: skip
    period = cfg.int("full_attention_interval", max=10_000, default=4)
    kinds = layer_kinds(cfg, sizes(cfg).layers, [LINEAR] * (period - 1) + [FULL])
    full = GatedAttention(bias=bias(cfg))
    varied: tuple[dict[str, Any], ...] = tuple({"mixer": full if kind == FULL else delta} for kind in kinds)
    return base(cfg, norm="rms_offset", rotary=_turned_share(cfg), rotary_joined=True, axes=axes, varied=varied)


def _turned_share(cfg: Config) -> float:
    """Share of a head that turns: a quarter unless it is said."""
    nested = cfg.optional_sub("rope_parameters")
    value = cfg.optional_float("partial_rotary_factor")
    if value is None and nested is not None:
        value = nested.optional_float("partial_rotary_factor")
    return 0.25 if value is None else value


def _mixture(cfg: Config) -> Mixture:
    return Mixture(
        experts=cfg.int("num_experts"), chosen=cfg.int("num_experts_per_tok"), width=cfg.int("moe_intermediate_size"),
        shared=cfg.int("shared_expert_intermediate_size"), shared_gate=True, shared_first=True,
        normalised=cfg.bool("norm_topk_prob", default=True),
    )  # fmt: skip
