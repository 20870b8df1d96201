"""From a configuration to the shape of a decoder, by model type. Each function says what differs from llama."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.architectures.latent import Latent
from sizeup.estimate.training.architectures.t5 import T5Shape
from sizeup.models.anatomy.family import FULL, SLIDING, layer_kinds, sizes
from sizeup.models.config import Config


def base(cfg: Config, **twists: Any) -> DecoderShape:
    """Llama, with what differs."""
    s = sizes(cfg)
    fields: dict[str, Any] = {
        "hidden": s.hidden,
        "layers": s.layers,
        "head_count": s.heads,
        "kv_heads": s.kv_heads,
        "head_dim": s.head_dim,
        "ffn": s.ffn,
        "vocabulary": s.vocabulary,
        "tied": cfg.bool("tie_word_embeddings", default=False),
        "activation": cfg.str("hidden_act", "activation_function", "hidden_activation", default="silu"),
        "attention_dropout": cfg.float("attention_dropout", default=0.0),
    }
    shape = DecoderShape(**(fields | twists))
    return shape


def windows(cfg: Config, layers: int, default: str | tuple[str, ...] = FULL) -> tuple[int | None, ...]:
    """The window of each layer, from `layer_types` and `sliding_window`."""
    window = cfg.optional_int("sliding_window", min=0) or None
    kinds = layer_kinds(cfg, layers, default)
    return tuple(window if kind == SLIDING else None for kind in kinds)


def everywhere(cfg: Config, layers: int) -> tuple[int | None, ...]:
    """The same window in every layer, if the configuration has one."""
    window = cfg.optional_int("sliding_window", min=0) or None
    return (window,) * layers if window else ()


def bias(cfg: Config) -> bool:
    """`attention_bias`."""
    return cfg.bool("attention_bias", default=False)


def partial(cfg: Config) -> float:
    """Share of a head that turns."""
    nested = cfg.optional_sub("rope_parameters")
    value = cfg.optional_float("partial_rotary_factor", "rotary_pct")
    if value is None and nested is not None:
        value = nested.optional_float("partial_rotary_factor")
    return 1.0 if value is None else value


def llama(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False))


def mistral(cfg: Config) -> DecoderShape:
    return base(cfg, windows=everywhere(cfg, sizes(cfg).layers))


def internlm3(cfg: Config) -> DecoderShape:
    b = cfg.bool("bias", default=False)
    return base(cfg, qkv_bias=cfg.bool("qkv_bias", default=False), output_bias=b, mlp_bias=b)


def qwen2(cfg: Config) -> DecoderShape:
    return base(cfg, qkv_bias=True, windows=windows(cfg, sizes(cfg).layers))


def qwen3(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(cfg, qkv_bias=b, output_bias=b, qk_norm="head", windows=windows(cfg, sizes(cfg).layers))


def granite(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False),
        embedding_scale=True, residual_scale=True, logit_scale=True,
    )  # fmt: skip


def gemma(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(
        cfg,
        qkv_bias=b,
        output_bias=b,
        norm="rms_offset",
        activation="gelu_pytorch_tanh",
        embedding_scale=True,
        tied=True,
    )


def gemma2(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="rms_offset", order="sandwich", activation="gelu_pytorch_tanh",
        embedding_scale=True, tied=True, eager_only=True,
        attention_softcap=cfg.has("attn_logit_softcapping"), logit_softcap=cfg.has("final_logit_softcapping"),
        windows=windows(cfg, sizes(cfg).layers, (SLIDING, FULL)),
    )  # fmt: skip


def gemma3(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="rms_offset", order="sandwich", activation="gelu_pytorch_tanh",
        embedding_scale=True, tied=True, qk_norm="head", rotary_tables=2,
        logit_softcap=cfg.has("final_logit_softcapping"),
        windows=windows(cfg, sizes(cfg).layers, (SLIDING,) * 5 + (FULL,)),
    )  # fmt: skip


def phi3(cfg: Config) -> DecoderShape:
    return base(
        cfg, qkv="sliced", mlp="fused", rotary_joined=True, residual_dropout=cfg.float("resid_pdrop", default=0.0),
        embedding_dropout=0.0, rotary=partial(cfg), windows=everywhere(cfg, sizes(cfg).layers),
    )  # fmt: skip


def olmo(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(cfg, qkv_bias=b, output_bias=b, norm="layer_plain", rotary_back=True, rotary_wide=True)


def olmo2(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="rms_fp32", order="post", qk_norm="whole", rotary_back=True, rotary_wide=True,
        windows=windows(cfg, sizes(cfg).layers) if cfg.has("sliding_window") else (),
    )  # fmt: skip


def cohere(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="wide", order="parallel", interleaved=True, rotary_back=True,
        qk_norm="per_head" if cfg.bool("use_qk_norm", default=False) else "", logit_scale=True,
        tied=cfg.bool("tie_word_embeddings", default=True),
    )  # fmt: skip


def stablelm(cfg: Config) -> DecoderShape:
    b = cfg.bool("use_qkv_bias", default=False)
    order = "parallel" if cfg.bool("use_parallel_residual", default=False) else "pre"
    return base(
        cfg,
        qkv_bias=b,
        norm="layer",
        order=order,
        rotary=partial(cfg),
        residual_dropout=cfg.float("hidden_dropout", default=0.0),
    )


def starcoder2(cfg: Config) -> DecoderShape:
    b = cfg.bool("use_bias", default=True)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=b, norm="layer", mlp="plain",
        activation=cfg.str("hidden_act", default="gelu_pytorch_tanh"), tied=cfg.bool("tie_word_embeddings", default=True),
        residual_dropout=cfg.float("residual_dropout", default=0.0),
        embedding_dropout=cfg.float("embedding_dropout", default=0.0), windows=everywhere(cfg, sizes(cfg).layers),
    )  # fmt: skip


def gpt_neox(cfg: Config) -> DecoderShape:
    b = cfg.bool("attention_bias", default=True)
    p = cfg.float("hidden_dropout", default=0.0)
    order = "parallel2" if cfg.bool("use_parallel_residual", default=True) else "pre"
    return base(
        cfg, qkv="chunked", qkv_bias=b, output_bias=b, mlp_bias=True, norm="layer", order=order, mlp="plain",
        rotary=partial(cfg), activation=cfg.str("hidden_act", default="gelu"), residual_dropout=p, embedding_dropout=p,
    )  # fmt: skip


def phi(cfg: Config) -> DecoderShape:
    return base(
        cfg, qkv_bias=True, output_bias=True, mlp_bias=True, norm="layer", order="parallel", mlp="plain",
        rotary=partial(cfg), activation=cfg.str("hidden_act", default="gelu_new"), head_bias=True,
        residual_dropout=cfg.float("resid_pdrop", default=0.0), embedding_dropout=cfg.float("embd_pdrop", default=0.0),
    )  # fmt: skip


def nemotron(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False), norm="layer_lowered", mlp="plain",
        activation=cfg.str("hidden_act", default="relu2"), rotary=partial(cfg),
    )  # fmt: skip


def opt(cfg: Config) -> DecoderShape:
    b = cfg.bool("enable_bias", default=True)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=b, norm="layer", mlp="plain", rotary=0.0, query_scale=True,
        activation=cfg.str("activation_function", default="relu"), residual_dropout=cfg.float("dropout", default=0.1),
        attention_dropout=cfg.float("attention_dropout", default=0.0), tied=cfg.bool("tie_word_embeddings", default=True),
        position_table=cfg.int("max_position_embeddings") + 2,
    )  # fmt: skip


def glm(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(cfg, qkv_bias=b, mlp="fused", rotary=partial(cfg), interleaved=True, rotary_repeats=True)


def glm4(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, mlp="fused", rotary=partial(cfg), interleaved=True, rotary_repeats=True, order="sandwich"
    )


def _mixed(cfg: Config, layers: int, dense: int = 0) -> tuple[bool, ...]:
    return tuple(number >= dense for number in range(layers))


def mixtral(cfg: Config) -> DecoderShape:
    s = sizes(cfg)
    m = Mixture(experts=cfg.int("num_local_experts"), chosen=cfg.int("num_experts_per_tok"), width=s.ffn, adapted=True)
    return base(cfg, mixture=m, sparse=_mixed(cfg, s.layers), windows=everywhere(cfg, s.layers))


def qwen3_moe(cfg: Config) -> DecoderShape:
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
    s = sizes(cfg)
    m = Mixture(
        experts=cfg.int("num_experts", "num_local_experts"),
        chosen=cfg.int("num_experts_per_tok"),
        width=s.ffn,
        normalised=cfg.bool("norm_topk_prob", default=False),
        adapted=True,
    )
    b = bias(cfg)
    return base(cfg, qkv_bias=b, output_bias=b, qk_norm="whole", mixture=m, sparse=_mixed(cfg, s.layers))


def gpt2(cfg: Config) -> DecoderShape:
    p = cfg.float("resid_pdrop", default=0.1)
    hidden = cfg.int("n_embd", "hidden_size")
    return base(
        cfg, ffn=cfg.int("n_inner", default=4 * hidden), qkv="split_views", qkv_bias=True, output_bias=True, mlp_bias=True,
        norm="layer", mlp="plain", activation=cfg.str("activation_function", default="gelu_new"), rotary=0.0,
        residual_dropout=p, embedding_dropout=cfg.float("embd_pdrop", default=0.1),
        attention_dropout=cfg.float("attn_pdrop", default=0.1), position_table=cfg.int("n_positions", "max_position_embeddings"),
        tied=cfg.bool("tie_word_embeddings", default=True), softmax_in_fp32=False,
    )  # fmt: skip


def deepseek_v3(cfg: Config) -> DecoderShape:
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
        cfg, latent=latent, head_dim=latent.rope_dim, mixture=m, sparse=_mixed(cfg, s.layers, dense), interleaved=True
    )


def seed_oss(cfg: Config) -> DecoderShape:
    return base(
        cfg, qkv_bias=bias(cfg), output_bias=cfg.bool("attention_out_bias", default=False),
        mlp_bias=cfg.bool("mlp_bias", default=False), residual_dropout=cfg.float("residual_dropout", default=0.1),
        attention_dropout=cfg.float("attention_dropout", default=0.1),
    )  # fmt: skip


def ernie4_5(cfg: Config) -> DecoderShape:
    b = cfg.bool("use_bias", default=False)
    return base(
        cfg,
        qkv_bias=b,
        output_bias=b,
        mlp_bias=b,
        interleaved=True,
        rotary_back=True,
        rotary_wide=True,
        rotary_repeats=True,
    )


def helium(cfg: Config) -> DecoderShape:
    return base(cfg, qkv_bias=bias(cfg), norm="rms_wide", interleaved=True, rotary_repeats=True)


def exaone4(cfg: Config) -> DecoderShape:
    return base(cfg, order="post", qk_norm="head", windows=windows(cfg, sizes(cfg).layers))


def hunyuan(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False), qk_norm="turned")


def arcee(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    m = cfg.bool("mlp_bias", default=False)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=m, mlp="plain", activation=cfg.str("hidden_act", default="relu2")
    )


def apertus(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, qk_norm="head", mlp="plain", activation=cfg.str("hidden_act", default="xielu")
    )


def vaultgemma(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="rms_offset", activation="gelu_pytorch_tanh", embedding_scale=True,
        tied=True, eager_only=cfg.has("attn_logit_softcapping"),
        attention_softcap=cfg.has("attn_logit_softcapping"), logit_softcap=cfg.has("final_logit_softcapping"),
        windows=windows(cfg, sizes(cfg).layers, (SLIDING, FULL)),
    )  # fmt: skip


def cohere2(cfg: Config) -> DecoderShape:
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="wide", order="parallel", interleaved=True, rotary_back=True,
        logit_scale=True, tied=cfg.bool("tie_word_embeddings", default=True),
        windows=windows(cfg, sizes(cfg).layers, (SLIDING, SLIDING, SLIDING, FULL)),
    )  # fmt: skip


def _routed(cfg: Config, **twists: Any) -> Mixture:
    """DeepSeek-V3's way of routing, with shared experts."""
    width = cfg.int("moe_intermediate_size")
    fields = {
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
    s = sizes(cfg)
    norm = "head" if cfg.bool("use_qk_norm", default=False) else ""
    dense = cfg.int("first_k_dense_replace", min=0, default=0)
    return base(
        cfg,
        qkv_bias=bias(cfg),
        qk_norm=norm,
        rotary=partial(cfg),
        mixture=_routed(cfg),
        sparse=_mixed(cfg, s.layers, dense),
    )


def dots1(cfg: Config) -> DecoderShape:
    s = sizes(cfg)
    b = bias(cfg)
    dense = cfg.int("first_k_dense_replace", min=0, default=0)
    return base(
        cfg, qkv_bias=b, output_bias=b, qk_norm="head", mixture=_routed(cfg), sparse=_mixed(cfg, s.layers, dense),
        windows=windows(cfg, s.layers),
    )  # fmt: skip


def minimax_m2(cfg: Config) -> DecoderShape:
    s = sizes(cfg)
    m = _routed(cfg, width=s.ffn, shared=0, normalised=True, scoring="sigmoid after")
    return base(cfg, qk_norm="whole", rotary=partial(cfg), rotary_joined=True, mixture=m, sparse=_mixed(cfg, s.layers))


def granitemoe(cfg: Config) -> DecoderShape:
    s = sizes(cfg)
    b = bias(cfg)
    m = Mixture(
        experts=cfg.int("num_local_experts"), chosen=cfg.int("num_experts_per_tok"), width=s.ffn,
        scoring="softmax after", normalised=False,
    )  # fmt: skip
    return base(
        cfg, qkv_bias=b, output_bias=b, embedding_scale=True, residual_scale=True, logit_scale=True, mixture=m,
        sparse=_mixed(cfg, s.layers),
    )  # fmt: skip


def deepseek_v2(cfg: Config) -> DecoderShape:
    s = sizes(cfg)
    shape = deepseek_v3(cfg)
    mixed = _routed(cfg, scoring="softmax wide", normalised=False)
    return msgspec.structs.replace(shape, mixture=mixed, rotary_complex=True, layers=s.layers)


def t5(cfg: Config) -> T5Shape:
    act = cfg.str("feed_forward_proj", default="relu")
    gated = act.startswith("gated-")
    layers = cfg.int("num_layers")
    return T5Shape(
        hidden=cfg.int("d_model"), encoder_layers=layers, decoder_layers=cfg.int("num_decoder_layers", default=layers),
        head_count=cfg.int("num_heads"), head_dim=cfg.int("d_kv"), ffn=cfg.int("d_ff"), vocabulary=cfg.int("vocab_size"),
        gated=gated, activation="gelu_new" if act == "gated-gelu" else act.removeprefix("gated-"),
        dropout=cfg.float("dropout_rate", default=0.1), buckets=cfg.int("relative_attention_num_buckets", default=32),
        tied=True, scaled_output=cfg.bool("scale_decoder_outputs", default=True),
    )  # fmt: skip


FAMILIES: dict[str, Callable[[Config], DecoderShape | T5Shape]] = {
    "llama": llama, "mistral": mistral, "qwen2": qwen2, "qwen3": qwen3, "granite": granite, "gemma": gemma,
    "gpt2": gpt2, "deepseek_v3": deepseek_v3, "t5": t5, "gemma2": gemma2, "gemma3_text": gemma3, "phi3": phi3, "olmo": olmo, "olmo2": olmo2, "olmo3": olmo2,
    "cohere": cohere, "stablelm": stablelm, "starcoder2": starcoder2, "gpt_neox": gpt_neox, "phi": phi,
    "nemotron": nemotron, "opt": opt, "glm": glm, "glm4": glm4, "mixtral": mixtral, "qwen3_moe": qwen3_moe,
    "qwen2_moe": qwen2_moe, "olmoe": olmoe, "seed_oss": seed_oss, "smollm3": llama, "helium": helium, "ernie4_5": ernie4_5, "exaone4": exaone4, "hunyuan_v1_dense": hunyuan,
    "arcee": arcee, "apertus": apertus, "vaultgemma": vaultgemma, "cohere2": cohere2, "glm4_moe": glm4_moe,
    "dots1": dots1, "minimax_m2": minimax_m2, "granitemoe": granitemoe, "deepseek_v2": deepseek_v2, "internlm3": internlm3,
    "ministral": mistral, "kimi_k2": deepseek_v3,
}  # fmt: skip


def shape_of_config(cfg: Config) -> DecoderShape | T5Shape:
    """The shape of a decoder of a known model type."""
    return FAMILIES[cfg.str("model_type")](cfg)
