"""Decoders of 2025 and later with parts of their own. Each function says what differs from Llama.

Source: transformers 5.23, `models/<model type>/modeling_*.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sizeup.estimate.training.architectures.blocks import Blocks
from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.architectures.indexer import Index
from sizeup.estimate.training.architectures.row_experts import RowExperts
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families.common import base, bias, everywhere, share_of, windows
from sizeup.estimate.training.families.dense import cohere2
from sizeup.estimate.training.families.mixtures import deepseek_v3, deepseek_v32, granitemoeshared
from sizeup.estimate.training.families.recent import granite_swa
from sizeup.models.anatomy.family import FULL, SLIDING, layer_kinds, sizes
from sizeup.models.config import Config


def _sparse(cfg: Config, layers: int, dense: int = 1) -> tuple[bool, ...]:
    """Which layers have experts: by name, or all after the first ones."""
    kinds = cfg.strs("mlp_layer_types")
    if kinds:
        return tuple(kind == "sparse" for kind in kinds)
    listed = cfg.data.get("moe_layer_freq")
    if isinstance(listed, list):
        return tuple(bool(each) for each in listed)
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
        scoring=scoring, adapted=True,
        normalised=scoring == "sigmoid last" and cfg.bool("norm_topk_prob", default=True),
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
    layers = cfg.int("num_layers", "num_hidden_layers")
    named = {"moe_intermediate_size": m.width, "num_experts_per_tok": m.chosen, "num_hidden_layers": layers}
    shape = deepseek_v3(Config(cfg.data | named, cfg.origin, cfg.path))
    if shape.latent is None:
        return shape
    return msgspec.structs.replace(
        shape, layers=layers, ffn=cfg.int("ffn_hidden_size", default=s.ffn), order="double", mixture=m,
        sparse=(True,) * layers, latent=msgspec.structs.replace(shape.latent, scaled="parts"),
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
    """Sinks and scores in fp32 (eager only), windows in most layers, whose heads alone turn; experts."""
    s, b = sizes(cfg), bias(cfg)
    last = s.layers - 1
    pattern = tuple(FULL if number < 2 or number % 4 == 1 or number == last else SLIDING for number in range(s.layers))
    found = windows(cfg, s.layers, pattern)
    dense = set(cfg.ints("mlp_only_layers", min=0) or (0, 1))
    step = cfg.int("decoder_sparse_step", default=1)
    m = Mixture(
        experts=cfg.int("num_experts"), chosen=cfg.int("num_experts_per_tok"), width=cfg.int("moe_intermediate_size"),
        shared=cfg.int("shared_expert_intermediate_size", default=1024), scoring="sigmoid in fp32", apart=True,
        normalised=cfg.bool("norm_topk_prob", default=True),
    )  # fmt: skip
    return base(
        cfg, norm="rms_fp32", qkv_bias=b, output_bias=b, qk_norm="head", eager_only=True, windows=found, mixture=m,
        way=Way(sinks=True, in_fp32=True, sinks_wide=True), still=tuple(window is None for window in found),
        sparse=tuple(number not in dense and (number + 1) % step == 0 for number in range(s.layers)),
    )  # fmt: skip


def minimax_m3_vl_text(cfg: Config) -> DecoderShape:
    """Norms on queries and keys, clamped gates, experts; an index of blocks of keys in most layers."""
    s = sizes(cfg)
    m = Mixture(
        experts=cfg.int("num_local_experts"), chosen=cfg.int("num_experts_per_tok"), width=s.ffn,
        shared=cfg.int("shared_intermediate_size"), shared_first=True, scoring="sigmoid after", clamped=True,
        halves=True,
    )  # fmt: skip
    own = cfg.optional_sub("sparse_attention_config")
    where = own if own is not None else cfg
    blocks = Blocks(
        where.int("sparse_num_index_heads", "index_n_heads", default=4),
        where.int("sparse_index_dim", "index_head_dim", default=128),
        where.int("sparse_block_size", "index_block_size", default=128),
        where.int("sparse_topk_blocks", "index_topk_blocks", default=16),
    )  # fmt: skip
    chosen = own.ints("sparse_attention_freq", min=0) if own is not None else None
    kinds = tuple(FULL if not each else "sparse" for each in chosen) if chosen else cfg.strs("layer_types")
    kinds = kinds or (FULL,) * s.layers
    return base(
        cfg, norm="rms_offset", qk_norm="head", rotary=cfg.int("rotary_dim", default=s.head_dim) / s.head_dim,
        rotary_joined=True, mlp="clamped", ffn=cfg.int("dense_intermediate_size", default=s.ffn), mixture=m,
        sparse=_sparse(cfg, s.layers, 0), names={"mlp.gate_up_proj": "mlp.gate_up_proj"},
        varied=tuple({"blocks": None if kind == FULL else blocks} for kind in kinds),
    )  # fmt: skip


def doge(cfg: Config) -> DecoderShape:
    """Norms on queries and keys, a mask that trains, the stream weighed by channel; perhaps experts of one row each."""
    s, b = sizes(cfg), bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False), qk_norm="head", order="weighed",
        dynamic_window=cfg.int("keep_window_size", default=2048), always_masked=True,
        residual_dropout=cfg.float("hidden_dropout", default=0.0), windows=everywhere(cfg, s.layers),
        rows=_rows(cfg) if cfg.bool("is_moe", default=False) else None,
    )  # fmt: skip


def _rows(cfg: Config) -> RowExperts:
    return RowExperts(
        cfg.int("num_experts", default=16384), cfg.int("num_experts_per_tok", default=64),
        cfg.bool("norm_topk_prob", default=False),
    )  # fmt: skip


def dots3_note_text(cfg: Config) -> DecoderShape:
    """Latent attention with gates of heads: an index in some layers, windows and sizes of their own in the others."""
    shape = deepseek_v3(cfg)
    if shape.latent is None or shape.mixture is None:
        return shape
    kinds = cfg.strs("layer_types") or tuple(
        "indexed_attention" if number < 2 or number % 4 == 1 else SLIDING for number in range(shape.layers)
    )
    full = msgspec.structs.replace(shape.latent, scaled="latents", shared_norm=True, gate="head")
    index = Index(
        cfg.int("index_n_heads"), cfg.int("index_head_dim"), cfg.int("qk_rope_head_dim"), cfg.int("index_topk")
    )
    own = _sliding_sizes(cfg, kinds)
    small = msgspec.structs.replace(full, **own) if own else full
    count = _sliding_heads(cfg, kinds, shape.head_count)
    varied = tuple(
        dict[str, Any](latent=small, head_count=count, kv_heads=count)
        if kind == SLIDING
        else {"index": index if kind == "indexed_attention" else None}
        for kind in kinds
    )
    width = cfg.int("shared_experts_intermediate_size", "moe_shared_expert_intermediate_size", default=1536)
    mixed = msgspec.structs.replace(shape.mixture, adapted=False, shared=width * cfg.int("n_shared_experts", default=1))
    window = cfg.int("sliding_window", "sliding_window_size", default=512)
    return msgspec.structs.replace(
        shape, latent=full, varied=varied, mixture=mixed, sparse=_sparse(cfg, shape.layers), rotary_back=True,
        windows=tuple(window if kind == SLIDING else None for kind in kinds), always_masked=True, rotary_wide_full=True,
        rotary_dims=(small.rope_dim, full.rope_dim),
    )  # fmt: skip


_SLIDING_SIZES = {
    "q_rank": "q_lora_rank", "kv_rank": "kv_lora_rank", "nope_dim": "qk_nope_head_dim", "rope_dim": "qk_rope_head_dim",
    "value_dim": "v_head_dim",
}  # fmt: skip


def _own_of(cfg: Config, kinds: Sequence[str]) -> dict[str, Any]:
    """What the configuration gives layers with windows of their own."""
    whole = cfg.data.get("per_layer_config")
    if isinstance(whole, dict):
        found = (whole.get(str(number)) for number, kind in enumerate(kinds) if kind == SLIDING)
        return next((own for own in found if isinstance(own, dict)), {})
    return {name.removeprefix("swa_"): value for name, value in cfg.data.items() if name.startswith("swa_")}


def _sliding_sizes(cfg: Config, kinds: Sequence[str]) -> dict[str, int]:
    own = _own_of(cfg, kinds)
    return {field: own[name] for field, name in _SLIDING_SIZES.items() if isinstance(own.get(name), int)}


def _sliding_heads(cfg: Config, kinds: Sequence[str], count: int) -> int:
    own = _own_of(cfg, kinds).get("num_attention_heads")
    return own if isinstance(own, int) else count


def mistral4(cfg: Config) -> DecoderShape:
    """DeepSeek-V3 routed by a softmax, its queries scaled by position."""
    shape = deepseek_v3(cfg)
    if shape.latent is None or shape.mixture is None:
        return shape
    mixed = msgspec.structs.replace(shape.mixture, scoring="softmax", adapted=False)
    return msgspec.structs.replace(shape, mixture=mixed, latent=msgspec.structs.replace(shape.latent, scaled="query"))


def cohere_compass_text(cfg: Config) -> DecoderShape:
    """Cohere 2 whose heads turn by the tables of their layer's kind, if it has any, and as Llama's do."""
    shape = cohere2(cfg)
    found = windows(cfg, shape.layers)
    tables = cfg.optional_sub("rope_parameters")
    kinds = [SLIDING if window else FULL for window in found]
    still = tuple(tables is not None and kind not in tables.data for kind in kinds)
    return msgspec.structs.replace(
        shape, rotary_cast=False, windows=found, still=still, logit_scale=cfg.has("logit_scale"), axes=True,
        rotary_tables=len(set(kinds)),
    )  # fmt: skip


def modernbert_decoder(cfg: Config) -> DecoderShape:
    """Layer norms, none before the first attention; gate and up in one matrix, windows, a dense layer last."""
    s, b = sizes(cfg), bias(cfg)
    kinds = layer_kinds(cfg, s.layers, (FULL, SLIDING, SLIDING))
    window = cfg.optional_int("local_attention", "sliding_window")
    m, p = cfg.bool("mlp_bias", default=False), cfg.float("attention_dropout", default=0.0)
    names = {"self_attn.o_proj": "attn.Wo", "mlp.gate_up_proj": "mlp.Wi", "mlp.down_proj": "mlp.Wo"}
    return base(
        cfg, kv_heads=s.heads, norm="layer", norm_bias=cfg.bool("norm_bias", default=False), qkv_bias=b, output_bias=b,
        mlp="fused", mlp_bias=m, activation=cfg.str("hidden_activation", default="gelu"), embedding_norm=True,
        embedding_dropout=cfg.float("embedding_dropout", default=0.0), attention_dropout=p, rotary_tables=2,
        windows=tuple(window if kind == SLIDING else None for kind in kinds), names=names,
        varied=tuple({"order": "pre" if number else "bare"} for number in range(s.layers)),
        head_dense=cfg.str("classifier_activation", default="gelu"), head_bias=cfg.bool("decoder_bias", default=True),
        tied=cfg.bool("tie_word_embeddings", default=True),
    )  # fmt: skip


def dbrx(cfg: Config) -> DecoderShape:
    """Layer norms without biases, one clamped matrix for queries, keys and values, experts in every layer.

    Its experts run one after the other; they are counted as grouped products.
    """
    attention, forward = cfg.sub("attn_config"), cfg.sub("ffn_config")
    m = Mixture(
        experts=forward.int("moe_num_experts", default=4), chosen=forward.int("moe_top_k", default=1),
        width=forward.int("ffn_hidden_size", default=3584), normalised=forward.has("moe_normalize_expert_weights"),
    )  # fmt: skip
    s = sizes(cfg)
    return base(
        cfg, kv_heads=attention.int("kv_n_heads", default=1), qkv="split_views", norm="layer", norm_bias=False,
        qkv_clipped=True, mixture=m, sparse=(True,) * s.layers, residual_dropout=cfg.float("resid_pdrop", default=0.0),
        attention_dropout=attention.float("attn_pdrop", default=0.0), activation="silu",
        names={"self_attn.qkv_proj": "norm_attn_norm.attn.Wqkv", "self_attn.o_proj": "norm_attn_norm.attn.out_proj"},
    )  # fmt: skip
