"""Decoders with plain feed-forwards or layer norms. Each function says what differs from llama."""

from __future__ import annotations

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families.common import base, bias, everywhere, partial
from sizeup.models.anatomy.family import sizes
from sizeup.models.config import Config


def stablelm(cfg: Config) -> DecoderShape:
    """Layer norms, part of each head turned, perhaps halves side by side."""
    b = cfg.bool("use_qkv_bias", default=False)
    order = "parallel" if cfg.bool("use_parallel_residual", default=False) else "kept"
    return base(
        cfg,
        qkv_bias=b,
        norm="layer",
        order=order,
        rotary=partial(cfg),
        residual_dropout=cfg.float("hidden_dropout", default=0.0),
    )


def starcoder2(cfg: Config) -> DecoderShape:
    """Layer norms, biases, a plain feed-forward."""
    b = cfg.bool("use_bias", default=True)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=b, norm="layer", mlp="plain",
        activation=cfg.str("hidden_act", default="gelu_pytorch_tanh"),
        tied=cfg.bool("tie_word_embeddings", default=True),
        residual_dropout=cfg.float("residual_dropout", default=0.0),
        embedding_dropout=cfg.float("embedding_dropout", default=0.0), windows=everywhere(cfg, sizes(cfg).layers),
    )  # fmt: skip


def gpt_neox(cfg: Config) -> DecoderShape:
    """One matrix for query, key and value; halves side by side, each with its norm."""
    b = cfg.bool("attention_bias", default=True)
    p = cfg.float("hidden_dropout", default=0.0)
    order = "parallel2" if cfg.bool("use_parallel_residual", default=True) else "pre"
    return base(
        cfg, qkv="chunked", table_whole=True, qkv_bias=b, output_bias=b, mlp_bias=True,
        norm="layer", order=order, mlp="plain",
        rotary=partial(cfg), activation=cfg.str("hidden_act", default="gelu"), residual_dropout=p, embedding_dropout=p,
    )  # fmt: skip


def phi(cfg: Config) -> DecoderShape:
    """Halves side by side under one norm, a plain feed-forward, a bias on the head."""
    return base(
        cfg, qkv_bias=True, output_bias=True, mlp_bias=True, norm="layer", order="parallel_sum", mlp="plain",
        rotary=partial(cfg), activation=cfg.str("hidden_act", default="gelu_new"), head_bias=True,
        half_dropout=cfg.float("resid_pdrop", default=0.0), embedding_dropout=cfg.float("embd_pdrop", default=0.0),
    )  # fmt: skip


def nemotron(cfg: Config) -> DecoderShape:
    """Layer norms that follow autocast, a squared ReLU, part of each head turned."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=cfg.bool("mlp_bias", default=False), norm="layer_lowered", mlp="plain",
        activation=cfg.str("hidden_act", default="relu2"), rotary=partial(cfg),
    )  # fmt: skip


def opt(cfg: Config) -> DecoderShape:
    """Learned positions, layer norms, biases, ReLU, queries scaled by a product of their own."""
    b = cfg.bool("enable_bias", default=True)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=b, norm="layer", mlp="plain", rotary=0.0, query_scale=True,
        ffn=cfg.int("ffn_dim", "intermediate_size"),
        activation=cfg.str("activation_function", default="relu"), residual_dropout=cfg.float("dropout", default=0.1),
        attention_dropout=cfg.float("attention_dropout", default=0.0),
        tied=cfg.bool("tie_word_embeddings", default=True),
        position_table=cfg.int("max_position_embeddings") + 2, positions_apart=True, order="inlined",
    )  # fmt: skip


def gpt2(cfg: Config) -> DecoderShape:
    """Learned positions, dropout everywhere, GELU written out in Python, one matrix cut in three."""
    p = cfg.float("resid_pdrop", default=0.1)
    hidden = cfg.int("n_embd", "hidden_size")
    return base(
        cfg, ffn=cfg.int("n_inner", default=4 * hidden), qkv="split_views", qkv_bias=True, output_bias=True,
        mlp_bias=True,
        norm="layer", mlp="plain", activation=cfg.str("activation_function", default="gelu_new"), rotary=0.0,
        half_dropout=p, order="named", embedding_dropout=cfg.float("embd_pdrop", default=0.1),
        attention_dropout=cfg.float("attn_pdrop", default=0.1), position_table=cfg.int("n_positions",
        "max_position_embeddings"),
        tied=cfg.bool("tie_word_embeddings", default=True), way=Way(softmax_in_fp32=False), transposed=True,
    )  # fmt: skip


def arcee(cfg: Config) -> DecoderShape:
    """Llama with a squared ReLU and no gate."""
    b = bias(cfg)
    m = cfg.bool("mlp_bias", default=False)
    return base(
        cfg, qkv_bias=b, output_bias=b, mlp_bias=m, mlp="plain", activation=cfg.str("hidden_act", default="relu2")
    )


def apertus(cfg: Config) -> DecoderShape:
    """Norms on queries and keys, a plain feed-forward with xIELU."""
    b = bias(cfg)
    return base(
        cfg, qkv_bias=b, output_bias=b, qk_norm="head", mlp="plain", activation=cfg.str("hidden_act", default="xielu")
    )
