"""Gated decoders of the llama line. Each function says what differs from llama."""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families.common import base, bias, everywhere, partial, windows
from sizeup.models.anatomy.family import FULL, SLIDING, sizes
from sizeup.models.config import Config


def llama(cfg: Config) -> DecoderShape:
    """Llama itself."""
    b = bias(cfg)
    return base(cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False))


#: Modules of the first Qwen, as adapters name them.
QWEN_NAMES = {
    "self_attn.qkv_proj": "attn.c_attn", "self_attn.o_proj": "attn.c_proj", "mlp.gate_proj": "mlp.w2",
    "mlp.up_proj": "mlp.w1", "mlp.down_proj": "mlp.c_proj",
}  # fmt: skip


def qwen(cfg: Config) -> DecoderShape:
    """The first Qwen: one matrix for query, key and value; gate and up are half of `intermediate_size` each."""
    heads = cfg.int("num_attention_heads")
    return base(cfg, kv_heads=heads, ffn=sizes(cfg).ffn // 2, qkv="split_views", qkv_bias=True, names=QWEN_NAMES)


def internlm3(cfg: Config) -> DecoderShape:
    """Llama with biases where the configuration says."""
    b = cfg.bool("bias", default=False)
    return base(cfg, qkv_bias=cfg.bool("qkv_bias", default=False), output_bias=b, mlp_bias=b)


def mistral(cfg: Config) -> DecoderShape:
    """Llama with a window in every layer, if any."""
    return base(cfg, windows=everywhere(cfg, sizes(cfg).layers))


def qwen2(cfg: Config) -> DecoderShape:
    """Llama with biases on query, key and value, and perhaps windows."""
    return base(cfg, qkv_bias=True, windows=windows(cfg, sizes(cfg).layers))


def qwen3(cfg: Config) -> DecoderShape:
    """Llama with norms on queries and keys."""
    b = bias(cfg)
    return base(cfg, qkv_bias=b, output_bias=b, qk_norm="head", windows=windows(cfg, sizes(cfg).layers))


def granite(cfg: Config) -> DecoderShape:
    """Llama with multipliers on embeddings, residuals and logits."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False),
        embedding_scale="model", residual_scale=True, logit_scale=True,
    )  # fmt: skip


def gemma(cfg: Config) -> DecoderShape:
    """Llama with 1 + weight norms in fp32, a GELU gate, scaled embeddings and a tied head."""
    b = bias(cfg)
    return base(
        cfg,
        qkv_bias=b,
        output_bias=b,
        norm="rms_offset",
        activation="gelu_pytorch_tanh",
        embedding_scale="module",
        tied=cfg.bool("tie_word_embeddings", default=True),
    )


def gemma2(cfg: Config) -> DecoderShape:
    """Gemma with norms around both halves, soft caps (so eager attention), and a window in every other layer."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="rms_offset", order="sandwich", activation="gelu_pytorch_tanh",
        embedding_scale="module", tied=cfg.bool("tie_word_embeddings", default=True), eager_only=True,
        way=Way(softcap=cfg.has("attn_logit_softcapping")), logit_softcap=cfg.has("final_logit_softcapping"),
        windows=windows(cfg, sizes(cfg).layers, (SLIDING, FULL)),
    )  # fmt: skip


def gemma3(cfg: Config) -> DecoderShape:
    """Gemma 2 with norms on queries and keys instead of the cap on scores, and two rotary tables."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="rms_offset", order="sandwich", activation="gelu_pytorch_tanh",
        embedding_scale="module", tied=cfg.bool("tie_word_embeddings", default=True), qk_norm="head", rotary_tables=2,
        logit_softcap=cfg.has("final_logit_softcapping"),
        windows=windows(cfg, sizes(cfg).layers, (SLIDING,) * 5 + (FULL,)),
    )  # fmt: skip


def vaultgemma(cfg: Config) -> DecoderShape:
    """Gemma 2 without the norms after the halves."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="rms_offset", activation="gelu_pytorch_tanh", embedding_scale="module",
        tied=cfg.bool("tie_word_embeddings", default=True), eager_only=cfg.has("attn_logit_softcapping"),
        way=Way(softcap=cfg.has("attn_logit_softcapping")), logit_softcap=cfg.has("final_logit_softcapping"),
        windows=windows(cfg, sizes(cfg).layers, (SLIDING, FULL)),
    )  # fmt: skip


def phi3(cfg: Config) -> DecoderShape:
    """Llama with fused projections; the turned part of a head is always joined to the rest."""
    return base(
        cfg, qkv="sliced", mlp="fused", gathered=("attention", "mlp"), rotary_joined=True,
        residual_dropout=cfg.float("resid_pdrop", default=0.0),
        embedding_dropout=0.0, rotary=partial(cfg), windows=everywhere(cfg, sizes(cfg).layers),
    )  # fmt: skip


def olmo(cfg: Config) -> DecoderShape:
    """Llama with layer norms without weights, positions turned in fp32."""
    b = bias(cfg)
    return base(cfg, qkv_bias=b, output_bias=b, norm="layer_plain", rotary_back=True, rotary_wide=True)


def olmo2(cfg: Config) -> DecoderShape:
    """Norms after the halves and over whole queries and keys; the weight multiplies in fp32."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="rms_fp32", order="post", qk_norm="whole", rotary_back=True,
        rotary_wide=True, gathered=("attention",),
    )  # fmt: skip


def olmo3(cfg: Config) -> DecoderShape:
    """OLMo 2 with windows in three of four layers, and a table of positions for each kind of layer."""
    found = windows(cfg, sizes(cfg).layers, (SLIDING, SLIDING, SLIDING, FULL))
    return msgspec.structs.replace(olmo2(cfg), windows=found, rotary_tables=2)


def exaone4(cfg: Config) -> DecoderShape:
    """Norms after the halves and on queries and keys; windows in most layers."""
    return base(cfg, order="post", qk_norm="head", windows=windows(cfg, sizes(cfg).layers))


def hunyuan(cfg: Config) -> DecoderShape:
    """Llama with norms on queries and keys after they are turned."""
    b = bias(cfg)
    return base(cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False), qk_norm="turned")


def seed_oss(cfg: Config) -> DecoderShape:
    """Llama with dropout on both halves and biases."""
    return base(
        cfg, qkv_bias=bias(cfg), output_bias=cfg.bool("attention_out_bias", default=False),
        mlp_bias=cfg.bool("mlp_bias", default=False), residual_dropout=cfg.float("residual_dropout", default=0.1),
        attention_dropout=cfg.float("attention_dropout", default=0.1),
    )  # fmt: skip


def ernie4_5(cfg: Config) -> DecoderShape:
    """Llama turned in pairs, in fp32."""
    b = cfg.bool("use_bias", default=False)
    return base(
        cfg,
        qkv_bias=b,
        output_bias=b,
        mlp_bias=b,
        rotary_back=True,
        rotary_wide=True,
        rotary_repeats="layer",
    )


def helium(cfg: Config) -> DecoderShape:
    """Llama whose norms' weights are cast to fp32, turned in pairs."""
    return base(cfg, qkv_bias=bias(cfg), norm="rms_wide", rotary_repeats="layer")


def glm(cfg: Config) -> DecoderShape:
    """Llama with gate and up in one matrix, half of each head turned in pairs."""
    b = bias(cfg)
    return base(cfg, qkv_bias=b, mlp="fused", gathered=("mlp",), rotary=partial(cfg), rotary_repeats="layer")


def glm4(cfg: Config) -> DecoderShape:
    """GLM with norms after the halves as well."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, mlp="fused", gathered=("mlp",), rotary=partial(cfg), rotary_repeats="layer", order="sandwich"
    )


def cohere(cfg: Config) -> DecoderShape:
    """One layer norm for both halves, side by side, turned in pairs."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="wide", order="parallel", rotary_cast=True,
        qk_norm="per_head" if cfg.bool("use_qk_norm", default=False) else "", logit_scale=True,
        tied=cfg.bool("tie_word_embeddings", default=True),
    )  # fmt: skip


def cohere2(cfg: Config) -> DecoderShape:
    """Cohere with windows in three of four layers, whose heads alone turn."""
    b = bias(cfg)
    found = windows(cfg, sizes(cfg).layers, (SLIDING, SLIDING, SLIDING, FULL))
    return base(
        cfg, qkv_bias=b, output_bias=b, norm="wide", order="parallel", rotary_cast=True,
        logit_scale=True, tied=cfg.bool("tie_word_embeddings", default=True), windows=found,
        still=tuple(window is None for window in found),
    )  # fmt: skip
