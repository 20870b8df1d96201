"""Decoders of the Llama line with parts of their own. Each function says what differs from Llama.

Source: transformers 5.23, `models/<model type>/modeling_*.py`.
"""

from __future__ import annotations

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families.common import base, bias, partial, windows
from sizeup.models.anatomy.family import FULL, SLIDING, sizes
from sizeup.models.config import Config


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
