"""Decoders of the Llama line with parts of their own. Each function says what differs from Llama.

Source: transformers 5.23, `models/<model type>/modeling_*.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families.common import base, bias, partial, windows
from sizeup.models.anatomy.dense import sliding_pattern
from sizeup.models.anatomy.family import FULL, SLIDING, layer_kinds, sizes
from sizeup.models.anatomy.gemma_shared import global_heads
from sizeup.models.config import Config


def gemma4_text(cfg: Config) -> DecoderShape:
    """Gemma 3 with wider and fewer heads in full layers, shared keys and values, an embedding for every layer."""
    s, b = sizes(cfg), bias(cfg)
    kinds = layer_kinds(cfg, s.layers, sliding_pattern(cfg, 6))
    kinds[-1] = FULL
    window = cfg.optional_int("sliding_window", min=0) or None
    kv_heads, head_dim = global_heads(cfg, s, kinds)
    full: dict[str, Any] = {
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "same_values": cfg.bool("attention_k_eq_v", default=False),
    }
    wide: dict[str, Any] = {"ffn": 2 * s.ffn} if cfg.bool("use_double_wide_mlp", default=False) else {}
    modes = _sharing(kinds, cfg.int("num_kv_shared_layers", min=0, default=0))
    varied = tuple(
        dict[str, Any](caches=mode) | (full if kind == FULL else {}) | (wide if mode == "reuse" else {})
        for kind, mode in zip(kinds, modes, strict=True)
    )
    width = cfg.int("hidden_size_per_layer_input", min=0, default=0)
    mixed = cfg.bool("enable_moe_block", default=False)
    return base(
        cfg, norm="rms_power", order="gemma4", qkv="gemma4", output_bias=b, qkv_bias=b, embedding_scale="module",
        tied=cfg.bool("tie_word_embeddings", default=True), rotary_tables=2, rotary_dims=(s.head_dim, head_dim),
        logit_softcap=cfg.has("final_logit_softcapping"), varied=varied, layer_width=width,
        layer_rows=cfg.int("vocab_size_per_layer_input", default=s.vocabulary) if width else 0,
        windows=tuple(window if kind == SLIDING else None for kind in kinds), mixture=_experts(cfg) if mixed else None,
        sparse=(mixed,) * s.layers,
    )  # fmt: skip


def _experts(cfg: Config) -> Mixture:
    """The experts beside Gemma 4's dense half."""
    return Mixture(
        experts=cfg.int("num_experts"),
        chosen=cfg.int("top_k_experts"),
        width=cfg.int("moe_intermediate_size", "expert_intermediate_size"),
    )


def _sharing(kinds: Sequence[str], shared: int) -> list[str]:
    """What each layer does with its keys and values: the last ones reuse those of the last of their kind before."""
    first = len(kinds) - shared
    modes = ["reuse" if number >= first else "" for number in range(len(kinds))]
    for kind in set(kinds) if shared else ():
        before = [number for number in range(first) if kinds[number] == kind]
        if before:
            modes[before[-1]] = "store"
    return modes


def cwm(cfg: Config) -> DecoderShape:
    """Llama with windows in most layers."""
    return base(cfg, windows=windows(cfg, sizes(cfg).layers, (FULL, SLIDING, SLIDING, SLIDING)))


def jais2(cfg: Config) -> DecoderShape:
    """Layer norms, a plain feed-forward with a squared ReLU, biases."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=True), norm="layer", mlp="plain",
        activation=cfg.str("hidden_act", default="relu2"),
    )  # fmt: skip


def nanochat(cfg: Config) -> DecoderShape:
    """Norms without weights, one of them before the layers; queries and keys normed after they are turned."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="rms_plain", qk_norm="turned", embedding_norm=True, mlp="plain",
        activation=cfg.str("hidden_act", default="relu2"), logit_softcap=cfg.has("final_logit_softcapping"),
        names={"mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"},
    )  # fmt: skip


def bitnet(cfg: Config) -> DecoderShape:
    """Norms before the output and the down projection."""
    return base(cfg, sub_norms=True, activation=cfg.str("hidden_act", default="relu2"))


def hyperclovax(cfg: Config) -> DecoderShape:
    """Granite, with norms after the halves where the configuration says."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False), embedding_scale="model",
        order="sandwich" if cfg.bool("use_post_norm", default=False) else "pre", residual_scale=True, logit_scale=True,
    )  # fmt: skip


def gpt_neox_japanese(cfg: Config) -> DecoderShape:
    """GPT-NeoX one half after the other; only the last layer's attention has a bias. Eager only, kept triangle."""
    p = cfg.float("hidden_dropout", default=0.0)
    hidden = cfg.int("hidden_size")
    return base(
        cfg, ffn=int(hidden * cfg.float("intermediate_multiple_size", default=4)), qkv="selected", norm="layer",
        mlp="plain", rotary=partial(cfg), activation=cfg.str("hidden_act", default="gelu"), eager_only=True,
        residual_dropout=p, attention_dropout=cfg.float("attention_dropout", default=0.1),
        tied=cfg.bool("tie_word_embeddings", default=True), way=Way(softmax_in_fp32=False),
    )  # fmt: skip
