"""Models whose layers scan: Mamba and its hybrids, as transformers runs them without kernel packages.

Source: transformers 5.23, `models/<model type>/modeling_*.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.architectures.mamba import Mamba
from sizeup.estimate.training.architectures.mamba2 import Mamba2
from sizeup.estimate.training.architectures.scan_orders import FeedForward
from sizeup.estimate.training.architectures.zamba import Hybrid, Shared
from sizeup.estimate.training.architectures.zamba_mamba import ZambaMamba
from sizeup.estimate.training.families.common import base, bias
from sizeup.estimate.training.families.dense import granite
from sizeup.estimate.training.families.mixtures import granitemoeshared
from sizeup.estimate.training.tape import Value
from sizeup.models.anatomy.family import FULL, LINEAR, layer_kinds, sizes
from sizeup.models.anatomy.mamba import time_rank
from sizeup.models.config import Config

#: Modules that peft 0.21 refuses to adapt in some of these models (`tuners/tuners_utils.py`).
REFUSED = ("out_proj",)


def bare(cfg: Config, mixer: Mamba | Mamba2, *, tied: bool) -> DecoderShape:
    """Mixers alone, without attention or feed-forwards."""
    return DecoderShape(
        hidden=cfg.int("hidden_size"), layers=cfg.int("num_hidden_layers"), head_count=1, kv_heads=1, head_dim=1,
        ffn=1, vocabulary=cfg.int("vocab_size"), tied=cfg.bool("tie_word_embeddings", default=tied), order="single",
        rotary=0, mixer=mixer, residual_wide=cfg.bool("residual_in_fp32", default=True), logits_wide=True,
        unadapted=REFUSED,
    )  # fmt: skip


def mamba(cfg: Config) -> DecoderShape:
    """Mamba alone in every layer."""
    hidden = cfg.int("hidden_size")
    inner = cfg.optional_int("intermediate_size") or int(cfg.float("expand", default=2) * hidden)
    mixer = Mamba(
        inner=inner, state=cfg.int("state_size", default=16), rank=time_rank(cfg, "time_step_rank", hidden),
        kernel=cfg.int("conv_kernel", default=4), bias=cfg.bool("use_bias", default=False),
        conv_bias=cfg.bool("use_conv_bias", default=True), activation=cfg.str("hidden_act", default="silu"),
    )  # fmt: skip
    return bare(cfg, mixer, tied=True)


def falcon_mamba(cfg: Config) -> DecoderShape:
    """Mamba with norms of the step, B and C that have no weights that train."""
    shape = mamba(cfg)
    if not isinstance(shape.mixer, Mamba):
        return shape
    mixer = msgspec.structs.replace(shape.mixer, norms="plain")
    return msgspec.structs.replace(shape, mixer=mixer)


def mamba2(cfg: Config) -> DecoderShape:
    """Mamba 2 alone in every layer."""
    b = cfg.bool("use_bias", default=False)
    mixer = Mamba2(
        heads=cfg.int("num_heads", default=128), head_dim=cfg.int("head_dim", default=64),
        state=cfg.int("state_size", default=128), groups=cfg.int("n_groups", default=8),
        kernel=cfg.int("conv_kernel", default=4), chunk=cfg.int("chunk_size", default=256), bias=b, out_bias=b,
        conv_bias=cfg.bool("use_conv_bias", default=True), name="mixer",
        activation=cfg.str("hidden_act", default="silu"),
    )  # fmt: skip
    return bare(cfg, mixer, tied=False)


def of_hybrid(cfg: Config, inner: int = 0) -> Mamba2:
    """The Mamba 2 of a hybrid, whose fields begin with `mamba_`."""
    inner = inner or cfg.int("mamba_expand", default=2) * cfg.int("hidden_size")
    heads, b = cfg.int("mamba_n_heads", default=128), cfg.bool("mamba_proj_bias", default=False)
    return Mamba2(
        heads=heads, head_dim=inner // heads, state=cfg.int("mamba_d_state", default=256),
        groups=cfg.int("mamba_n_groups", default=1), kernel=cfg.int("mamba_d_conv", default=4),
        chunk=cfg.int("mamba_chunk_size", default=256), bias=b, out_bias=b,
        conv_bias=cfg.bool("mamba_conv_bias", default=True), activation=cfg.str("hidden_act", default="silu"),
    )  # fmt: skip


def varied(kinds: Sequence[str], mixer: Mamba | Mamba2) -> tuple[dict[str, Any], ...]:
    """Of each layer, the mixer where it scans."""
    return tuple({} if kind == FULL else {"mixer": mixer} for kind in kinds)


def bamba(cfg: Config) -> DecoderShape:
    """Mamba 2, with attention in the layers that are listed; half of a head turns."""
    b = bias(cfg)
    full = set(cfg.ints("attn_layer_indices", min=0) or ())
    kinds = [FULL if number in full else LINEAR for number in range(cfg.int("num_hidden_layers"))]
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False), rotary=0.5,
        varied=varied(kinds, of_hybrid(cfg)),
    )  # fmt: skip


def granitemoehybrid(cfg: Config) -> DecoderShape:
    """Granite with Mamba 2 in most layers, experts (perhaps none) beside a feed-forward, perhaps without positions."""
    plain = not cfg.int("num_local_experts", min=0, default=8)
    shape = granite(cfg) if plain else granitemoeshared(cfg)
    kinds = layer_kinds(cfg, shape.layers, LINEAR, "layer_types", "layers_block_type")
    turns = cfg.optional_str("position_embedding_type") == "rope"
    shape = msgspec.structs.replace(shape, varied=varied(kinds, of_hybrid(cfg)), rotary=1.0 if turns else 0.0)
    if not plain:
        return shape
    return msgspec.structs.replace(
        shape, mlp="fused", ffn=cfg.int("shared_intermediate_size", default=1024),
        names={"mlp.gate_up_proj": "shared_mlp.input_linear", "mlp.down_proj": "shared_mlp.output_linear"},
    )  # fmt: skip


def jamba(cfg: Config) -> DecoderShape:
    """Mamba with attention in one layer of eight, without positions, and experts in every other layer."""
    s = sizes(cfg)
    mixer = Mamba(
        inner=cfg.int("mamba_expand", default=2) * s.hidden, state=cfg.int("mamba_d_state", default=16),
        rank=time_rank(cfg, "mamba_dt_rank", s.hidden), kernel=cfg.int("mamba_d_conv", default=4),
        bias=cfg.bool("mamba_proj_bias", default=False), conv_bias=cfg.bool("mamba_conv_bias", default=True),
        norms="weighted", name="mamba", activation=cfg.str("hidden_act", default="silu"),
    )  # fmt: skip
    full, place = cfg.int("attn_layer_period", default=8), cfg.int("attn_layer_offset", min=0, default=4)
    every, first = cfg.int("expert_layer_period", default=2), cfg.int("expert_layer_offset", min=0, default=1)
    experts = cfg.int("num_experts", "num_local_experts", default=16)
    m = Mixture(experts=experts, chosen=cfg.int("num_experts_per_tok", default=2), width=s.ffn, normalised=False)
    return base(
        cfg, rotary=0, mixture=m, sparse=tuple(experts > 1 and number % every == first for number in range(s.layers)),
        varied=varied([FULL if number % full == place else LINEAR for number in range(s.layers)], mixer),
    )  # fmt: skip


def falcon_h1(cfg: Config) -> DecoderShape:
    """Mamba 2 and attention side by side in every layer, numbers that multiply almost everything."""
    b = bias(cfg)
    normed = cfg.bool("mamba_rms_norm", default=False)
    later = "gated later" if cfg.bool("mamba_norm_before_gate", default=True) else "gated"
    mixer = msgspec.structs.replace(
        of_hybrid(cfg, cfg.optional_int("mamba_d_ssm") or 0), norm=later if normed else "nothing", scaled=True,
        out_bias=cfg.bool("projectors_bias", default=False),
    )  # fmt: skip
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False), order="falcon_h1", mixer=mixer,
        key_scale=True, embedding_scale="model", logit_scale=True, unadapted=REFUSED,
    )  # fmt: skip


#: Letters of a pattern of layers, and names that older configurations use.
NEMOTRON = {"M": LINEAR, "E": "moe", "*": FULL, "-": "mlp", "mamba": LINEAR, "attention": FULL}


def nemotron_h(cfg: Config) -> DecoderShape:
    """Layers of one half each: Mamba 2, attention without positions, a plain feed-forward, or plain experts."""
    listed = cfg.strs("layers_block_type", "layer_types") or cfg.optional_str("hybrid_override_pattern") or "ME*-"
    kinds = [NEMOTRON.get(kind, kind) for kind in listed]
    strange = [kind for kind in kinds if kind not in NEMOTRON.values()]
    if strange:
        raise cfg.bad("layers_block_type", strange[0], f"kinds of {', '.join(sorted(set(NEMOTRON.values())))}")
    b = cfg.bool("use_bias", default=False)
    mixer = Mamba2(
        heads=cfg.int("mamba_num_heads", default=128), head_dim=cfg.int("mamba_head_dim", default=64),
        state=cfg.int("ssm_state_size", default=128), groups=cfg.int("n_groups", "mamba_n_groups", default=8),
        kernel=cfg.int("conv_kernel", "mamba_d_conv", default=4), bias=b, out_bias=b,
        chunk=cfg.int("chunk_size", "mamba_chunk_size", default=128), name="mixer",
        conv_bias=cfg.bool("use_conv_bias", "mamba_conv_bias", default=True),
        activation=cfg.str("mamba_hidden_act", default="silu"),
    )  # fmt: skip
    m = Mixture(
        experts=cfg.int("n_routed_experts", "num_local_experts", default=8), gated=False,
        chosen=cfg.int("num_experts_per_tok", default=2), width=cfg.int("moe_intermediate_size", default=7688),
        shared=cfg.int("moe_shared_expert_intermediate_size", min=0, default=7688), scoring="sigmoid",
        latent=cfg.optional_int("moe_latent_size") or 0, normalised=cfg.bool("norm_topk_prob", default=True),
    )  # fmt: skip
    halves: dict[str, dict[str, Any]] = {
        LINEAR: {"mixer": mixer}, "moe": {"mixer": FeedForward()}, "mlp": {"mixer": FeedForward()}, FULL: {},
    }  # fmt: skip
    whole = Config(cfg.data | {"num_hidden_layers": len(kinds)}, cfg.origin, cfg.path)
    return base(
        whole, head_dim=cfg.int("head_dim", default=128), order="single", norm="rms_wide", rotary=0, mlp="plain",
        mlp_bias=cfg.bool("mlp_bias", default=False), activation=cfg.str("mlp_hidden_act", default="relu2"),
        mixture=m, sparse=tuple(kind == "moe" for kind in kinds), varied=tuple(halves[kind] for kind in kinds),
        logits_wide=True, unadapted=REFUSED,
    )  # fmt: skip


def zamba(cfg: Config) -> DecoderShape:
    """Mamba in every layer, and one transformer that some layers share."""
    hidden = cfg.int("hidden_size")
    mixer = ZambaMamba(
        inner=cfg.int("mamba_expand", default=2) * hidden, heads=cfg.int("n_mamba_heads", default=2),
        state=cfg.int("mamba_d_state", default=16), rank=time_rank(cfg, "mamba_dt_rank", hidden),
        kernel=cfg.int("mamba_d_conv", default=4), bias=cfg.bool("mamba_proj_bias", default=False),
        conv_bias=cfg.bool("mamba_conv_bias", default=True), activation=cfg.str("hidden_mamba_act", default="silu"),
    )  # fmt: skip
    return sharing(cfg, mixer, _zamba_kinds(cfg), 1, rank=0)


def zamba2(cfg: Config) -> DecoderShape:
    """Mamba 2 in every layer, and a few transformers that layers share in turns, with pairs of their own."""
    hidden, heads = cfg.int("hidden_size"), cfg.int("n_mamba_heads", default=8)
    b = cfg.bool("add_bias_linear", default=False)
    mixer = Mamba2(
        heads=heads, head_dim=cfg.int("mamba_expand", default=2) * hidden // heads,
        state=cfg.int("mamba_d_state", default=64), groups=cfg.int("mamba_ngroups", default=1),
        kernel=cfg.int("mamba_d_conv", default=4), chunk=cfg.int("chunk_size", default=256), bias=b, out_bias=b,
    )  # fmt: skip
    shape = sharing(
        cfg, mixer, tuple(cfg.strs("layers_block_type", "layer_types") or ()), cfg.int("num_mem_blocks", default=1),
        rank=cfg.int("adapter_rank", default=128), everywhere=cfg.bool("use_shared_attention_adapter", default=False),
    )  # fmt: skip
    turns = cfg.bool("use_mem_rope", default=False)
    return msgspec.structs.replace(shape, rotary=1.0 if turns else 0.0, mlp_bias=b)


def _zamba_kinds(cfg: Config) -> tuple[str, ...]:
    """`layers_block_type`, or one layer of six after the first three."""
    listed = cfg.strs("layers_block_type", "layer_types")
    if listed:
        return tuple(listed)
    period, offset = cfg.int("attn_layer_period", default=6), cfg.int("attn_layer_offset", min=0, default=4)
    rest = range(max(0, cfg.int("num_hidden_layers") - 3))
    return (LINEAR, LINEAR, "hybrid", *("hybrid" if number % period == offset else LINEAR for number in rest))


def sharing(
    cfg: Config, mixer: Callable[[Any, Value], Value], kinds: tuple[str, ...], blocks: int, *, rank: int,
    everywhere: bool = False,
) -> DecoderShape:  # fmt: skip
    """Layers with that mixer, of which the hybrid ones share transformers in turns. Raises BadConfig without layers."""
    layers = cfg.int("num_hidden_layers")
    if len(kinds) < layers:
        raise cfg.bad("layers_block_type", f"{len(kinds)} kinds", f"one for each of {layers} layers")
    total = sum(kind == "hybrid" for kind in kinds[:layers])
    heads = cfg.int("num_attention_heads")
    width = 2 * cfg.int("hidden_size")
    found: list[dict[str, Any]] = []
    number = 0
    for kind in kinds[:layers]:
        if kind != "hybrid":
            found.append({"mixer": mixer})
            continue
        shared = Shared(
            block=number % blocks, first=number < blocks, last=number >= total - blocks, rank=rank,
            after=min(2, total - 1 - number), pairs_everywhere=everywhere,
            others=len(range(number % blocks, total, blocks)) - 1,
        )  # fmt: skip
        found.append({"mixer": Hybrid(mixer, shared)})
        number += 1
    return base(
        cfg, order="zamba", rotary=0, head_dim=cfg.optional_int("attention_head_dim") or width // heads,
        tied=cfg.bool("tie_word_embeddings", default=True), activation=cfg.str("hidden_act", default="gelu"),
        varied=tuple(found),
    )  # fmt: skip
