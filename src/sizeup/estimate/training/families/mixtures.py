"""Decoders with experts. Each function says what differs from llama."""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.architectures.indexer import Index
from sizeup.estimate.training.architectures.latent import Latent
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families.common import base, bias, everywhere, partial, windows
from sizeup.models.anatomy.family import FULL, SLIDING, sizes
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
    return base(
        cfg, qkv_bias=b, output_bias=b, qk_norm="whole", mixture=m, sparse=_mixed(s.layers), gathered=("attention",)
    )


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
    return base(
        cfg, qk_norm="whole", rotary=partial(cfg), rotary_joined=True, mixture=m, sparse=_mixed(s.layers),
        gathered=("attention",),
    )  # fmt: skip


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


def granitemoeshared(cfg: Config) -> DecoderShape:
    """Granite's experts, and a shared one with gate and up in one matrix."""
    shape = granitemoe(cfg)
    shared = cfg.int("shared_intermediate_size", min=0, default=0)
    if shape.mixture is None:
        return shape
    mixed = msgspec.structs.replace(shape.mixture, shared=shared, shared_fused=True)
    return msgspec.structs.replace(shape, mixture=mixed)


def gpt_oss(cfg: Config) -> DecoderShape:
    """Sinks in the attention (eager only), biases everywhere, clamped gates, windows in every other layer."""
    s = sizes(cfg)
    m = Mixture(
        experts=cfg.int("num_local_experts", "num_experts"), chosen=cfg.int("num_experts_per_tok"), width=s.ffn,
        scoring="softmax after, low", normalised=False, bias=True, clamped=True,
    )  # fmt: skip
    b = cfg.bool("attention_bias", default=True)
    return base(
        cfg, norm="rms_fp32", qkv_bias=b, output_bias=b, eager_only=True,
        way=Way(sinks=True, less_largest=True, softmax_in_fp32=False),
        mixture=m,
        sparse=_mixed(s.layers), windows=windows(cfg, s.layers, (SLIDING, FULL)), rotary_halved=True,
    )  # fmt: skip


def flex_olmo(cfg: Config) -> DecoderShape:
    """OLMoE with norms after the halves."""
    return msgspec.structs.replace(olmoe(cfg), order="post", norm="rms_fp32", rotary_back=True, rotary_wide=True)


def ernie4_5_moe(cfg: Config) -> DecoderShape:
    """ERNIE 4.5 with experts routed in fp32, the shared one first."""
    s = sizes(cfg)
    b = cfg.bool("use_bias", default=False)
    width = cfg.int("moe_intermediate_size")
    m = Mixture(
        experts=cfg.int("moe_num_experts"), chosen=cfg.int("moe_k"), width=width,
        shared=width * cfg.int("moe_num_shared_experts", min=0, default=0), shared_first=True, scoring="softmax wide",
        apart=True,
        normalised=True, adapted=True,
    )  # fmt: skip
    kinds = cfg.strs("mlp_layer_types")
    sparse = tuple(kind == "sparse" for kind in kinds) if kinds else _mixed(s.layers, 1)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=b, rotary_back=True, rotary_wide=True,
        rotary_repeats="layer", mixture=m, sparse=sparse,
    )  # fmt: skip


def hunyuan_v1_moe(cfg: Config) -> DecoderShape:
    """HunYuan with experts and a shared feed-forward of the dense width, computed first."""
    s = sizes(cfg)
    b = bias(cfg)
    chosen = cfg.data.get("moe_topk")
    m = Mixture(
        experts=cfg.int("num_experts"), chosen=chosen if isinstance(chosen, int) else 1, width=s.ffn, shared=s.ffn,
        shared_first=True, scoring="softmax in fp32", adapted=True,
    )  # fmt: skip
    return base(
        cfg, qkv_bias=b, output_bias=b, qk_norm="turned", mixture=m, sparse=_mixed(s.layers),
    )  # fmt: skip


def exaone_moe(cfg: Config) -> DecoderShape:
    """Norms on queries and keys, windows in most layers whose heads alone are turned, DeepSeek-V3's experts."""
    s = sizes(cfg)
    found = windows(cfg, s.layers, (SLIDING, SLIDING, SLIDING, FULL))
    kinds = cfg.strs("mlp_layer_types")
    sparse = tuple(kind == "sparse" for kind in kinds) if kinds else _mixed(s.layers, 1)
    return base(
        cfg, qk_norm="head", mixture=_routed(cfg), sparse=sparse, windows=found,
        still=tuple(window is None for window in found) if any(found) else (),
    )  # fmt: skip


def solar_open(cfg: Config) -> DecoderShape:
    """Llama with DeepSeek-V3's experts in every layer."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, rotary=partial(cfg), mixture=_routed(cfg), sparse=_mixed(sizes(cfg).layers)
    )


def mellum(cfg: Config) -> DecoderShape:
    """Qwen3's experts with windows in most layers."""
    shape = qwen3_moe(cfg)
    return msgspec.structs.replace(shape, windows=windows(cfg, shape.layers))


def hy_v3(cfg: Config) -> DecoderShape:
    """Qwen3's attention, DeepSeek-V3's experts, summed with the shared one in fp32."""
    s = sizes(cfg)
    kinds = cfg.strs("mlp_layer_types")
    sparse = tuple(kind == "sparse" for kind in kinds) if kinds else _mixed(s.layers, 1)
    wide = cfg.bool("enable_moe_fp32_combine", default=False)
    return base(cfg, qk_norm="head", mixture=_routed(cfg, wide_sum=wide, adapted=False), sparse=sparse)


def llama4_text(cfg: Config) -> DecoderShape:
    """Every expert computes every token; positions turned as complex numbers, masks by chunks."""
    s = sizes(cfg)
    m = Mixture(
        experts=cfg.int("num_local_experts"), chosen=cfg.int("num_experts_per_tok", default=1), width=s.ffn,
        shared=s.ffn, scoring="sigmoid of the chosen", normalised=False,
    )  # fmt: skip
    chunk = cfg.optional_int("attention_chunk_size")
    step = cfg.int("interleave_moe_layer_step", default=1)
    numbers = cfg.ints("moe_layers", min=0) or range(step - 1, s.layers, step)
    every = cfg.int("no_rope_layer_interval", default=4)
    turned = cfg.ints("no_rope_layers", min=0) or tuple((number + 1) % every for number in range(s.layers))
    kinds = cfg.strs("layer_types") or tuple("chunked_attention" if turn else "full_attention" for turn in turned)
    norm = "plain" if cfg.bool("use_qk_norm", default=True) else ""
    b = bias(cfg)
    return base(
        cfg, ffn=cfg.int("intermediate_size_mlp", default=s.ffn), qkv_bias=b, output_bias=b, mixture=m,
        rotary_wide=True, rotary_back=True, qk_norm=norm, way=Way(softmax_in_fp32=False), order="named",
        sparse=tuple(number in set(numbers) for number in range(s.layers)),
        windows=tuple(chunk if kind == "chunked_attention" else None for kind in kinds),
        still=tuple(not turn for turn in turned),
    )  # fmt: skip


def youtu(cfg: Config) -> DecoderShape:
    """Latent attention with dense feed-forwards."""
    return base(cfg, latent=_latent(cfg), head_dim=cfg.int("qk_rope_head_dim"))


def aria_text(cfg: Config) -> DecoderShape:
    """Llama with experts, a softmax over the chosen ones, and shared ones."""
    s = sizes(cfg)
    m = Mixture(
        experts=cfg.int("moe_num_experts"), chosen=cfg.int("moe_topk"), width=s.ffn,
        shared=s.ffn * cfg.int("moe_num_shared_experts", min=0, default=0), scoring="softmax after", normalised=False,
    )  # fmt: skip
    b = bias(cfg)
    return base(cfg, qkv_bias=b, output_bias=b, mixture=m, sparse=_mixed(s.layers))


def phimoe(cfg: Config) -> DecoderShape:
    """Layer norms, biases, two experts chosen one after the other (SparseMixer, counted as a softmax)."""
    s = sizes(cfg)
    m = Mixture(experts=cfg.int("num_local_experts"), chosen=2, width=s.ffn, scoring="sparse mixer", normalised=False)
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="layer", head_bias=cfg.bool("lm_head_bias", default=False), mixture=m,
        sparse=_mixed(s.layers), windows=everywhere(cfg, s.layers),
    )  # fmt: skip


def minicpm3(cfg: Config) -> DecoderShape:
    """Latent attention, plain rotation, multipliers on embeddings, halves and hidden states."""
    latent = _latent(cfg)
    return base(
        cfg, latent=latent, head_dim=latent.rope_dim, embedding_scale="module", residual_scale=True, hidden_scale=True
    )


def glm4_moe_lite(cfg: Config) -> DecoderShape:
    """DeepSeek-V3 with its layers' kinds by name."""
    shape = deepseek_v3(cfg)
    kinds = cfg.strs("mlp_layer_types")
    return msgspec.structs.replace(shape, sparse=tuple(kind == "sparse" for kind in kinds)) if kinds else shape


def _latent(cfg: Config) -> Latent:
    return Latent(
        cfg.optional_int("q_lora_rank", min=0) or 0, cfg.int("kv_lora_rank"), cfg.int("qk_nope_head_dim"),
        cfg.int("qk_rope_head_dim"), cfg.int("v_head_dim"),
    )  # fmt: skip


def deepseek_v3(cfg: Config) -> DecoderShape:
    """Latent attention, experts routed by sigmoids, a shared one."""
    s = sizes(cfg)
    latent = _latent(cfg)
    width = cfg.int("moe_intermediate_size")
    m = Mixture(
        experts=cfg.int("n_routed_experts", "num_local_experts"), chosen=cfg.int("num_experts_per_tok"), width=width,
        shared=width * cfg.int("n_shared_experts", min=0, default=0), scoring="sigmoid", adapted=True,
        normalised=cfg.bool("norm_topk_prob", default=True),
    )  # fmt: skip
    dense = cfg.int("first_k_dense_replace", min=0, default=0)
    return base(cfg, latent=latent, head_dim=latent.rope_dim, mixture=m, sparse=_mixed(s.layers, dense))


def deepseek_v2(cfg: Config) -> DecoderShape:
    """DeepSeek-V3 routed by a softmax in fp32, positions turned as complex numbers."""
    s = sizes(cfg)
    shape = deepseek_v3(cfg)
    mixed = _routed(cfg, scoring="softmax wide", normalised=False)
    return msgspec.structs.replace(shape, mixture=mixed, layers=s.layers)


def deepseek_v32(cfg: Config) -> DecoderShape:
    """DeepSeek-V3 whose queries see the keys that an index of each layer chooses."""
    index = Index(
        cfg.int("index_n_heads"), cfg.int("index_head_dim"), cfg.int("qk_rope_head_dim"), cfg.int("index_topk")
    )
    kinds = cfg.strs("mlp_layer_types")
    shape = msgspec.structs.replace(deepseek_v3(cfg), index=index, always_masked=True)
    return msgspec.structs.replace(shape, sparse=tuple(kind == "sparse" for kind in kinds)) if kinds else shape


def glm_moe_dsa(cfg: Config) -> DecoderShape:
    """DeepSeek-V3.2 with layers that share the choice of the one before."""
    shape = deepseek_v32(cfg)
    varied = tuple({"index": shape.index if full else None} for full in _full_indexers(cfg, shape.layers))
    return msgspec.structs.replace(shape, varied=varied)


def _full_indexers(cfg: Config, layers: int) -> list[bool]:
    """Whether each layer chooses keys itself: by name, by a pattern of F and S, or every n-th after the first ones."""
    kinds = cfg.strs("indexer_types")
    pattern = cfg.optional_str("index_topk_pattern")
    if kinds or pattern:
        return [kind in {"full", "F"} for kind in kinds or pattern or ""]
    every, offset = cfg.int("index_topk_freq", default=1), cfg.int("index_skip_topk_offset", min=0, default=2)
    return [max(number - offset + 1, 0) % every == 0 for number in range(layers)]
