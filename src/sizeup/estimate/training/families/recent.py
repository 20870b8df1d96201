"""Decoders of the Llama line with parts of their own. Each function says what differs from Llama.

Source: transformers 5.23, `models/<model type>/modeling_*.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.architectures.streams import Streams
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families.common import base, bias, partial, share_of, windows
from sizeup.estimate.training.families.dense import granite
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


def gemma3n_text(cfg: Config) -> DecoderShape:
    """Several residual streams, a low-rank path beside attention, sparse gates, shared keys, an embedding a layer."""
    widths = cfg.data.get("intermediate_size")
    if isinstance(widths, list):
        cfg = Config(cfg.data | {"intermediate_size": max(widths)}, cfg.origin, cfg.path)
    s, b = sizes(cfg), bias(cfg)
    own = list(widths) if isinstance(widths, list) and len(widths) == s.layers else [s.ffn] * s.layers
    kinds = layer_kinds(cfg, s.layers, (SLIDING,) * 4 + (FULL,))
    window = cfg.optional_int("sliding_window", min=0) or None
    modes = _sharing(kinds, cfg.int("num_kv_shared_layers", min=0, default=15))
    gates = _sparse_gates(cfg, s.layers)
    varied = tuple(
        {"caches": mode, "ffn": ffn, "sparse_gate": gate} for mode, ffn, gate in zip(modes, own, gates, strict=True)
    )
    streams = Streams(
        cfg.int("altup_num_inputs", default=4), cfg.int("laurel_rank", default=64),
        scaled=cfg.bool("altup_correct_scale", default=True), clamped=cfg.data.get("altup_coef_clip", 120) is not None,
    )  # fmt: skip
    return base(
        cfg, norm="rms_power", order="gemma3n", qkv="gemma4", output_bias=b, qkv_bias=b, embedding_scale="module",
        tied=cfg.bool("tie_word_embeddings", default=True), activation="gelu_pytorch_tanh", rotary_tables=2,
        logit_softcap=cfg.has("final_logit_softcapping"), varied=varied, streams=streams,
        layer_width=cfg.int("hidden_size_per_layer_input", default=256),
        layer_rows=cfg.int("vocab_size_per_layer_input", default=s.vocabulary),
        windows=tuple(window if kind == SLIDING else None for kind in kinds),
    )  # fmt: skip


def _sparse_gates(cfg: Config, layers: int) -> tuple[bool, ...]:
    """Whether each layer keeps only its largest gates."""
    shares = cfg.data.get("activation_sparsity_pattern")
    if isinstance(shares, list) and len(shares) == layers:
        return tuple(bool(share) for share in shares)
    return tuple(bool(shares) and number < 10 for number in range(layers))


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


def granite_swa(cfg: Config) -> DecoderShape:
    """Granite with windows in most layers and sinks, so eager attention only; some layers' heads may not turn."""
    s = sizes(cfg)
    kinds = tuple(FULL if number % 4 == 0 else SLIDING for number in range(s.layers))
    bases = cfg.data.get("layer_rope_theta")
    numbers = bases if isinstance(bases, list) else []
    return msgspec.structs.replace(
        granite(cfg), windows=windows(cfg, s.layers, kinds), eager_only=True, way=Way(sinks_scale=True),
        rotary_tables=max(1, len({number for number in numbers if number})),
        still=tuple(not number for number in numbers),
    )  # fmt: skip


def afmoe(cfg: Config) -> DecoderShape:
    """Norms around both halves, a gate on the attention's output, windows in most layers, whose heads alone turn."""
    s = sizes(cfg)
    width = cfg.int("moe_intermediate_size")
    m = Mixture(
        experts=cfg.int("num_experts"), chosen=cfg.int("num_experts_per_tok"), width=width,
        shared=width * cfg.int("num_shared_experts", min=0, default=0), shared_first=True, scoring="sigmoid after",
        adapted=True,
    )  # fmt: skip
    dense, b = cfg.int("num_dense_layers", min=0, default=1), bias(cfg)
    found = windows(cfg, s.layers, (SLIDING, SLIDING, SLIDING, FULL))
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="rms_fp32", order="sandwich", qk_norm="head", output_gate="sigmoid",
        mixture=m, sparse=tuple(number >= dense for number in range(s.layers)), windows=found,
        still=tuple(window is None for window in found),
        embedding_scale="model" if cfg.bool("mup_enabled", default=False) else "",
    )  # fmt: skip


def laguna(cfg: Config) -> DecoderShape:
    """Norms on queries and keys, a softplus gate on the output, heads and turned parts that differ by layer."""
    s, b = sizes(cfg), bias(cfg)
    m = Mixture(
        experts=cfg.int("num_experts"), chosen=cfg.int("num_experts_per_tok"), width=cfg.int("moe_intermediate_size"),
        shared=cfg.int("shared_expert_intermediate_size", min=0, default=0), shared_first=True,
        scoring="sigmoid after",
    )  # fmt: skip
    counts = cfg.ints("num_attention_heads_per_layer", min=1) or (s.heads,) * s.layers
    found = windows(cfg, s.layers)
    shares = {window: share_of(cfg, FULL if window is None else SLIDING) for window in set(found)}
    varied = tuple(
        dict[str, Any](head_count=count, rotary=shares[window]) for count, window in zip(counts, found, strict=True)
    )
    kinds = cfg.strs("mlp_layer_types")
    sparse = tuple(kind == "sparse" for kind in kinds) if kinds else (False,) + (True,) * (s.layers - 1)
    each = cfg.data.get("gating", True) in {True, "per-head"}
    dims = tuple(round(s.head_dim * share_of(cfg, kind)) for kind in (SLIDING, FULL))
    return base(
        cfg, qkv_bias=b, output_bias=b, qk_norm="head", output_gate="softplus of heads" if each else "softplus",
        names={"self_attn.gate_proj": "self_attn.g_proj"}, mixture=m, sparse=sparse, windows=found, varied=varied,
        rotary_joined=True, rotary_dims=dims,
    )  # fmt: skip


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
