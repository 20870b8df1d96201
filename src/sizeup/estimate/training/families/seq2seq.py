"""Encoder-decoders."""

from __future__ import annotations

from sizeup.estimate.training.architectures.bart import BartShape
from sizeup.estimate.training.architectures.t5 import T5Shape
from sizeup.models.config import Config


def t5(cfg: Config) -> T5Shape:
    """T5: gated or plain feed-forwards, relative positions, a tied head with a scaled input."""
    act = cfg.str("feed_forward_proj", default="relu")
    gated = act.startswith("gated-")
    layers = cfg.int("num_layers")
    return T5Shape(
        hidden=cfg.int("d_model"), encoder_layers=layers, decoder_layers=cfg.int("num_decoder_layers", default=layers),
        head_count=cfg.int("num_heads"), head_dim=cfg.int("d_kv"), ffn=cfg.int("d_ff"),
        vocabulary=cfg.int("vocab_size"),
        gated=gated, activation="gelu_new" if act == "gated-gelu" else act.removeprefix("gated-"),
        dropout=cfg.float("dropout_rate", default=0.1), buckets=cfg.int("relative_attention_num_buckets", default=32),
        tied=True, scaled_output=cfg.bool("scale_decoder_outputs", default=True),
    )  # fmt: skip


def bart(
    cfg: Config, *, pre_norm: bool = False, embedding_norm: bool = True, offset: int = 2, fixed: bool = False
) -> BartShape:
    """BART: norms after the halves, embeddings normed, learned positions with two rows to spare."""
    rows = cfg.int("max_position_embeddings") + offset
    return BartShape(
        hidden=cfg.int("d_model"), encoder_layers=cfg.int("encoder_layers"), decoder_layers=cfg.int("decoder_layers"),
        head_count=cfg.int("encoder_attention_heads"), ffn=cfg.int("encoder_ffn_dim"), vocabulary=cfg.int("vocab_size"),
        activation=cfg.str("activation_function", default="gelu"), dropout=cfg.float("dropout", default=0.1),
        attention_dropout=cfg.float("attention_dropout", default=0.0),
        activation_dropout=cfg.float("activation_dropout", default=0.0), positions=0 if fixed else rows,
        fixed_positions=rows if fixed else 0, pre_norm=pre_norm, embedding_norm=embedding_norm,
        scaled=cfg.bool("scale_embedding", default=False),
    )  # fmt: skip


def mbart(cfg: Config) -> BartShape:
    """BART with norms before the halves and at the end of each stack."""
    return bart(cfg, pre_norm=True)


def pegasus(cfg: Config) -> BartShape:
    """MBART with fixed sines for positions, embeddings not normed."""
    return bart(cfg, pre_norm=True, embedding_norm=False, offset=0, fixed=True)


def marian(cfg: Config) -> BartShape:
    """BART with fixed sines for positions, embeddings not normed."""
    return bart(cfg, embedding_norm=False, offset=0, fixed=True)
