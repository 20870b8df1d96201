"""Encoders that fill in masked words. Each function says what differs from BERT."""

from __future__ import annotations

from typing import Any

from sizeup.estimate.training.architectures.encoder import EncoderShape
from sizeup.models.config import Config


def bert(cfg: Config, **twists: Any) -> EncoderShape:
    """Learned positions, two kinds of sentences, norms after the halves."""
    hidden, rows = cfg.int("hidden_size"), cfg.int("max_position_embeddings")
    activation = cfg.str("hidden_act", default="gelu")
    fields: dict[str, Any] = {
        "hidden": hidden, "layers": cfg.int("num_hidden_layers"), "head_count": cfg.int("num_attention_heads"),
        "ffn": cfg.int("intermediate_size"), "vocabulary": cfg.int("vocab_size"), "positions": rows,
        "kinds": cfg.int("type_vocab_size", min=0, default=2), "activation": activation, "head_activation": activation,
        "dropout": cfg.float("hidden_dropout_prob", default=0.1),
        "attention_dropout": cfg.float("attention_probs_dropout_prob", default=0.1), "narrow": hidden,
        "counted": False, "tied": cfg.bool("tie_word_embeddings", default=True), "buffers": (8 * rows, 8 * rows),
    }  # fmt: skip
    return EncoderShape(**(fields | twists))


def roberta(cfg: Config) -> EncoderShape:
    """Positions counted from the words; GELU in the head."""
    return bert(cfg, counted=True, head_activation="gelu")


def electra(cfg: Config) -> EncoderShape:
    """Embeddings that may be narrower than the layers; GELU in the generator's head."""
    return bert(cfg, narrow=cfg.int("embedding_size"), head_activation="gelu")


def distilbert(cfg: Config) -> EncoderShape:
    """BERT without kinds of sentences, under names of its own."""
    rows = cfg.int("max_position_embeddings")
    activation = cfg.str("activation", default="gelu")
    return EncoderShape(
        hidden=cfg.int("dim"), layers=cfg.int("n_layers"), head_count=cfg.int("n_heads"), ffn=cfg.int("hidden_dim"),
        vocabulary=cfg.int("vocab_size"), positions=rows, kinds=0, activation=activation, head_activation=activation,
        dropout=cfg.float("dropout", default=0.1), attention_dropout=cfg.float("attention_dropout", default=0.1),
        narrow=cfg.int("dim"), counted=False, tied=cfg.bool("tie_word_embeddings", default=True), buffers=(8 * rows,),
        drops_attention=False,
    )  # fmt: skip
