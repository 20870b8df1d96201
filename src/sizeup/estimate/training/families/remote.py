"""Decoders whose code is published beside their weights and isn't in transformers.

Their shapes follow their own `modeling_*.py` as described by their authors; none was simulated. Most make their logits
fp32 and shift a copy of them for the loss. Each function says what differs from Llama.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families.common import base, bias
from sizeup.estimate.training.families.dense import olmo, phi3, qwen2
from sizeup.estimate.training.families.early import falcon as falcon_of
from sizeup.estimate.training.families.multimodal import idle_towers
from sizeup.estimate.training.families.plain import stablelm
from sizeup.models.anatomy.family import sizes
from sizeup.models.anatomy.respelled import read_as
from sizeup.models.config import MAX_LAYERS, Config

#: The loss of a shifted copy of fp32 logits, as Llama's code had it until 2024.
SHIFTED: dict[str, Any] = {"own_loss": True, "logits_wide": True}


def llama(cfg: Config) -> DecoderShape:
    """Llama with the loss of its time (XVERSE, Skywork, Aquila, Yi)."""
    b = bias(cfg)
    return base(cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False), **SHIFTED)


def minicpm(cfg: Config) -> DecoderShape:
    """Multipliers on embeddings, halves and hidden states; turned in fp32; a tied head."""
    return base(
        cfg, tied=cfg.bool("tie_word_embeddings", default=True), embedding_scale="model", residual_scale=True,
        hidden_scale=True, rotary_cast=True, rotary_wide=True, **SHIFTED,
    )  # fmt: skip


def internlm(cfg: Config) -> DecoderShape:
    """Biases on all projections of the attention, which is written out."""
    b = cfg.bool("bias", default=True)
    return base(cfg, qkv_bias=b, output_bias=b, eager_only=True, own_loss=True)


def internlm2(cfg: Config) -> DecoderShape:
    """Queries, keys and values in one matrix, group by group."""
    b = cfg.bool("bias", default=False)
    names = {
        "self_attn.qkv_proj": "attention.wqkv", "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2",
    }  # fmt: skip
    return base(cfg, qkv="selected", qkv_bias=b, output_bias=b, names=names, **SHIFTED)


def baichuan(cfg: Config) -> DecoderShape:
    """One matrix for queries, keys and values, always a mask; linear biases where no positions are named (13B)."""
    linear = not cfg.has("max_position_embeddings")
    return base(
        cfg, qkv="split_views", always_masked=True, names={"self_attn.qkv_proj": "self_attn.W_pack"}, own_loss=True,
        rotary=0.0 if linear else 1.0, alibi="mask" if linear else "", eager_only=linear,
        way=Way(softmax_in_fp32=not linear),
    )  # fmt: skip


def orion(cfg: Config) -> DecoderShape:
    """Layer norms with biases."""
    b = bias(cfg)
    return base(cfg, norm="layer", qkv_bias=b, output_bias=b, **SHIFTED)


def exaone(cfg: Config) -> DecoderShape:
    """Llama under GPT-2's names (EXAONE 3), with a tied head."""
    names = {
        "self_attn.q_proj": "attn.attention.q_proj", "self_attn.k_proj": "attn.attention.k_proj",
        "self_attn.v_proj": "attn.attention.v_proj", "self_attn.o_proj": "attn.attention.out_proj",
        "mlp.gate_proj": "mlp.c_fc_0", "mlp.up_proj": "mlp.c_fc_1", "mlp.down_proj": "mlp.c_proj",
    }  # fmt: skip
    return base(cfg, tied=cfg.bool("tie_word_embeddings", default=True), names=names, **SHIFTED)


def dream(cfg: Config) -> DecoderShape:
    """Qwen2 that sees tokens on both sides."""
    return msgspec.structs.replace(qwen2(cfg), way=Way(causal=False))


def llada(cfg: Config) -> DecoderShape:
    """Llama under OLMo's first names that sees tokens on both sides."""
    heads, hidden = cfg.int("n_heads"), cfg.int("d_model")
    return base(
        cfg, kv_heads=cfg.int("n_kv_heads", default=heads), ffn=cfg.int("mlp_hidden_size", default=4 * hidden),
        vocabulary=cfg.int("embedding_size", "vocab_size"), tied=cfg.bool("weight_tying", default=False),
        qkv_bias=cfg.bool("include_qkv_bias", default=False), rotary_wide=True, rotary_back=True, activation="silu",
        way=Way(causal=False), attention_dropout=0.0,
    )  # fmt: skip


def mimo(cfg: Config) -> DecoderShape:
    """Qwen2; the layers that predict further tokens don't train here."""
    return qwen2(cfg)


def chatglm(cfg: Config) -> DecoderShape:
    """One matrix for queries, keys and values, gate and up in one, half of each head turned (ChatGLM2, 3, GLM-4)."""
    heads, hidden = cfg.int("num_attention_heads"), cfg.int("hidden_size")
    head_dim = cfg.int("kv_channels", default=max(1, hidden // heads))
    grouped = cfg.bool("multi_query_attention", default=False)
    b = cfg.bool("add_bias_linear", default=False)
    names = {
        "self_attn.qkv_proj": "self_attention.query_key_value", "self_attn.o_proj": "self_attention.dense",
        "mlp.gate_up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h",
    }  # fmt: skip
    layers = cfg.int("num_layers", "num_hidden_layers", max=MAX_LAYERS)
    rows = cfg.int("padded_vocab_size", "vocab_size")
    return base(
        Config(cfg.data | {"num_hidden_layers": layers, "vocab_size": rows}, cfg.origin, cfg.path), head_dim=head_dim,
        kv_heads=cfg.int("multi_query_group_num", default=1) if grouped else heads,
        ffn=cfg.int("ffn_hidden_size", "intermediate_size"),
        qkv="split_views", qkv_bias=b or cfg.bool("add_qkv_bias", default=False), output_bias=b, mlp="fused",
        mlp_bias=b, rotary=0.5, residual_dropout=cfg.float("hidden_dropout", default=0.0), names=names,
        attention_dropout=cfg.float("attention_dropout", default=0.0), activation="silu", **SHIFTED,
    )  # fmt: skip


def phi_msft(cfg: Config) -> DecoderShape:
    """Phi under its first names: halves side by side, one matrix for queries, keys and values, eager attention."""
    s = sizes(cfg)
    p = cfg.float("resid_pdrop", default=0.0)
    names = {
        "self_attn.qkv_proj": "mixer.Wqkv", "self_attn.o_proj": "mixer.out_proj", "mlp.up_proj": "mlp.fc1",
        "mlp.down_proj": "mlp.fc2",
    }  # fmt: skip
    return base(
        cfg, kv_heads=cfg.int("n_head_kv", default=s.heads), qkv="split_views", qkv_bias=True, output_bias=True,
        mlp_bias=True, norm="layer", order="parallel", mlp="plain", head_bias=True, eager_only=True,
        rotary=cfg.int("rotary_dim", default=s.head_dim) / s.head_dim, residual_dropout=p, names=names, **SHIFTED,
        activation=cfg.str("activation_function", default="gelu_new"), embedding_dropout=0.0,
    )  # fmt: skip


def deepseek(cfg: Config) -> DecoderShape:
    """The first DeepSeek mixture: Llama's attention, dense layers first, shared and routed experts."""
    shape, s = llama(cfg), sizes(cfg)
    if not cfg.has("n_routed_experts"):
        return shape
    width = cfg.int("moe_intermediate_size")
    m = Mixture(
        experts=cfg.int("n_routed_experts"), chosen=cfg.int("num_experts_per_tok"), width=width,
        shared=width * (cfg.optional_int("n_shared_experts", min=0) or 0), scoring="softmax wide", adapted=True,
        normalised=cfg.bool("norm_topk_prob", default=False),
    )  # fmt: skip
    first, every = cfg.int("first_k_dense_replace", min=0, default=0), cfg.int("moe_layer_freq", default=1)
    sparse = tuple(number >= first and number % every == 0 for number in range(s.layers))
    return msgspec.structs.replace(shape, mixture=m, sparse=sparse)


def bailing_moe(cfg: Config) -> DecoderShape:
    """Ling and Ring: one matrix for queries, keys and values, experts routed by a softmax or by sigmoids."""
    s = sizes(cfg)
    width = cfg.int("moe_intermediate_size")
    corrected = cfg.bool("moe_router_enable_expert_bias", default=False)
    m = Mixture(
        experts=cfg.int("num_experts"), chosen=cfg.int("num_experts_per_tok"), width=width, adapted=True,
        shared=width * (cfg.optional_int("num_shared_experts", min=0) or 0),
        scoring="sigmoid" if corrected else "softmax wide", normalised=cfg.bool("norm_topk_prob", default=True),
    )  # fmt: skip
    b = cfg.bool("use_bias", default=False)
    first = cfg.int("first_k_dense_replace", min=0, default=0)
    names = {"self_attn.qkv_proj": "attention.query_key_value", "self_attn.o_proj": "attention.dense"}
    return base(
        cfg, qkv="selected", qkv_bias=b or cfg.bool("use_qkv_bias", default=False), output_bias=b, mlp_bias=b,
        qk_norm="head" if cfg.bool("use_qk_norm", default=False) else "", mixture=m, names=names,
        rotary=cfg.float("partial_rotary_factor", default=1.0), sparse=tuple(n >= first for n in range(s.layers)),
        **SHIFTED,
    )  # fmt: skip


def nemotron_nas(cfg: Config) -> DecoderShape:
    """Llama after a search: layers have their own key heads and widths, or leave a half out."""
    hidden, heads = cfg.int("hidden_size"), cfg.int("num_attention_heads")
    listed = cfg.list("block_configs")
    layers = cfg.int("num_hidden_layers", max=MAX_LAYERS)
    if len(listed) != layers or not all(isinstance(item, dict) for item in listed):
        raise cfg.bad("block_configs", f"a list of {len(listed)}", f"a list with an object for each of {layers} layers")
    b = bias(cfg)
    whole = Config(cfg.data | {"intermediate_size": 4 * hidden}, cfg.origin, cfg.path)
    varied = tuple(
        _searched(Config(item, cfg.origin, f"block_configs[{number}]"), hidden, heads)
        for number, item in enumerate(listed)
    )
    return base(
        whole, kv_heads=heads, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False), varied=varied,
        **SHIFTED,
    )  # fmt: skip


def _searched(block: Config, hidden: int, heads: int) -> dict[str, Any]:
    """Key heads, width (2/3 · ffn_mult · hidden, rounded up to a multiple of 256) and halves of one layer."""
    attention, forward = block.sub("attention"), block.sub("ffn")
    width = int(2 * forward.float("ffn_mult", min=0, max=1e6, default=0.0) * hidden / 3)
    skips = (attention.bool("no_op", default=False), forward.bool("no_op", default=False))
    orders = {(False, False): "pre", (True, False): "fed", (False, True): "attended", (True, True): "passed"}
    return {
        "kv_heads": max(1, heads // attention.int("n_heads_in_group", max=heads, default=1)),
        "ffn": max(256, -(-width // 256) * 256),
        "order": orders[skips],
    }


def deci(cfg: Config) -> DecoderShape:
    """Llama whose layers have their own number of key heads."""
    listed = cfg.ints("num_key_value_heads_per_layer") or ()
    return msgspec.structs.replace(llama(cfg), varied=tuple({"kv_heads": count} for count in listed))


def openelm(cfg: Config) -> DecoderShape:
    """Llama that grows with depth: heads and widths of each layer; one matrix, norms on queries and keys; tied."""
    hidden, size = cfg.int("model_dim"), cfg.int("head_dim")
    heads, kv_heads = cfg.ints("num_query_heads") or (), cfg.ints("num_kv_heads") or ()
    divisor = cfg.int("ffn_dim_divisor", default=256)
    factors = [factor for factor in cfg.list("ffn_multipliers") if isinstance(factor, (int, float))]
    widths = [-(-int(factor * hidden) // divisor) * divisor for factor in factors]
    layers = cfg.int("num_transformer_layers", max=MAX_LAYERS)
    if not len(heads) == len(kv_heads) == len(widths) == layers:
        raise cfg.bad("num_query_heads", f"a list of {len(heads)}", f"a list of {layers}, as of heads and widths")
    named = {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads[0], "head_dim": size,
        "num_key_value_heads": kv_heads[0], "intermediate_size": max(widths),
    }  # fmt: skip
    normed = cfg.bool("normalize_qk_projections", default=True)
    return base(
        Config(cfg.data | named, cfg.origin, cfg.path), qkv="selected", mlp="fused", activation="silu",
        qk_norm="head" if normed else "", tied=cfg.bool("share_input_output_layers", default=True), rotary_wide=True,
        rotary_cast=True, varied=tuple(
            {"head_count": count, "kv_heads": few, "ffn": width}
            for count, few, width in zip(heads, kv_heads, widths, strict=True)
        ),
    )  # fmt: skip


def stablelm_epoch(cfg: Config) -> DecoderShape:
    """StableLM before it came to transformers."""
    return stablelm(read_as(cfg, "stablelm", num_attention_heads=cfg.get("num_attention_heads", "num_heads")))


def refined_web(cfg: Config) -> DecoderShape:
    """Falcon before it came to transformers."""
    grouped = cfg.has("n_head_kv")
    return falcon_of(read_as(cfg, "falcon", new_decoder_architecture=grouped, multi_query=not grouped))


def refined_web_model(cfg: Config) -> DecoderShape:
    """Falcon 7B and the RefinedWeb models before they came to transformers."""
    return falcon_of(read_as(cfg, "falcon", multi_query=False, parallel_attn=False))


def hf_olmo(cfg: Config) -> DecoderShape:
    """OLMo under its first names; the width in the configuration is that of gate and up together."""
    hidden, heads = cfg.int("d_model"), cfg.int("n_heads")
    both = cfg.int("mlp_hidden_size", default=cfg.int("mlp_ratio", default=4) * hidden)
    named = {
        "hidden_size": hidden, "num_hidden_layers": cfg.int("n_layers", max=MAX_LAYERS), "num_attention_heads": heads,
        "num_key_value_heads": 1
        if cfg.bool("multi_query_attention", default=False)
        else cfg.int("n_kv_heads", default=heads),
        "intermediate_size": both // 2, "vocab_size": cfg.int("embedding_size", "vocab_size"),
        "tie_word_embeddings": cfg.bool("weight_tying", default=False),
    }  # fmt: skip
    shape = olmo(Config(cfg.data | named, cfg.origin, cfg.path))
    return msgspec.structs.replace(shape, qkv="split_views", mlp="fused", own_loss=True)


def phi3small(cfg: Config) -> DecoderShape:
    """Layer norms, biases, fused projections, a clamped gate, a tied head; attention isn't counted as block-sparse."""
    read = read_as(cfg, "phi3small", intermediate_size=cfg.get("ff_intermediate_size"))
    return base(
        read, norm="layer", qkv="selected", qkv_bias=True, output_bias=True, mlp_bias=True, mlp="clamped", tied=True,
        residual_dropout=cfg.float("ffn_dropout_prob", default=0.1),
        embedding_dropout=cfg.float("embedding_dropout_prob", default=0.1), logit_scale=True, **SHIFTED,
        attention_dropout=cfg.float("attention_dropout_prob", default=0.0),
    )  # fmt: skip


def phi3_v(cfg: Config) -> DecoderShape:
    """Phi 3 with images, whose tower lies idle."""
    return msgspec.structs.replace(phi3(cfg), gathered=(), idle=idle_towers(cfg), **SHIFTED)


def arctic(cfg: Config) -> DecoderShape:
    """Llama with a dense half as wide as the stream and experts beside it, counted as a shared one."""
    s = sizes(cfg)
    m = Mixture(
        experts=cfg.int("num_local_experts"), chosen=cfg.int("num_experts_per_tok"), width=s.ffn,
        shared=s.hidden if cfg.bool("parallel_attn_mlp_res", default=False) else 0,
    )  # fmt: skip
    every = cfg.int("moe_layer_frequency", default=2)
    sparse = tuple((number + 1) % every == 0 for number in range(s.layers))
    return msgspec.structs.replace(llama(cfg), mixture=m, sparse=sparse)
