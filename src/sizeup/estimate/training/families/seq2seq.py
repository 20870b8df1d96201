"""Encoder-decoders."""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.estimate.training.architectures.audio import Audio
from sizeup.estimate.training.architectures.bart import BartShape
from sizeup.estimate.training.architectures.t5 import T5Shape
from sizeup.estimate.training.architectures.t5gemma import T5GemmaShape
from sizeup.estimate.training.families.dense import gemma2
from sizeup.models.anatomy.defaults import filled
from sizeup.models.config import Config


def t5(cfg: Config, *, own_bias: bool = False, scaled: bool = True) -> T5Shape:
    """T5: gated or plain feed-forwards, relative positions, a tied head with a scaled input."""
    act = cfg.str("feed_forward_proj", default="relu")
    gated = act.startswith("gated-")
    layers = cfg.int("num_layers")
    tied = cfg.bool("tie_word_embeddings", default=True)
    return T5Shape(
        hidden=cfg.int("d_model"), encoder_layers=layers, decoder_layers=cfg.int("num_decoder_layers", default=layers),
        head_count=cfg.int("num_heads"), head_dim=cfg.int("d_kv"), ffn=cfg.int("d_ff"),
        vocabulary=cfg.int("vocab_size"),
        gated=gated, activation="gelu_new" if act == "gated-gelu" else act.removeprefix("gated-"),
        dropout=cfg.float("dropout_rate", default=0.1), buckets=cfg.int("relative_attention_num_buckets", default=32),
        tied=True, own_bias=own_bias,
        scaled_output=scaled and cfg.bool("scale_decoder_outputs", default=tied),
    )  # fmt: skip


def umt5(cfg: Config) -> T5Shape:
    """T5 with a table of relative positions in every layer."""
    return t5(cfg, own_bias=True)


def mt5(cfg: Config) -> T5Shape:
    """T5 whose decoder's output isn't scaled."""
    return t5(cfg, scaled=False)


def t5gemma(cfg: Config) -> T5GemmaShape:
    """Two stacks of Gemma 2's layers."""
    parts = [filled(cfg.sub(name), "t5_gemma_module", nested=True) for name in ("encoder", "decoder")]
    encoder, decoder = (gemma2(part) for part in parts)
    return T5GemmaShape(
        encoder=msgspec.structs.replace(encoder, way=msgspec.structs.replace(encoder.way, causal=False)),
        decoder=msgspec.structs.replace(decoder, tied=cfg.bool("tie_word_embeddings", default=True)),
        dropout=parts[1].float("dropout_rate", default=0.0),
    )


def mvp(cfg: Config) -> BartShape:
    """BART that is written out in Python."""
    return bart(cfg, eager_only=True)


def bart(cfg: Config, *, offset: int = 2, **twists: Any) -> BartShape:
    """BART: norms after the halves, embeddings normed, learned positions with two rows to spare."""
    width, heads = cfg.int("encoder_ffn_dim"), cfg.int("encoder_attention_heads")
    fields: dict[str, Any] = {
        "hidden": cfg.int("d_model"), "encoder_layers": cfg.int("encoder_layers"),
        "decoder_layers": cfg.int("decoder_layers"), "head_count": heads,
        "decoder_heads": cfg.int("decoder_attention_heads", default=heads), "ffn": width,
        "decoder_ffn": cfg.int("decoder_ffn_dim", default=width), "vocabulary": cfg.int("vocab_size"),
        "activation": cfg.str("activation_function", default="gelu"), "dropout": cfg.float("dropout", default=0.1),
        "attention_dropout": cfg.float("attention_dropout", default=0.0),
        "activation_dropout": cfg.float("activation_dropout", default=0.0), "positions": "learned",
        "pre_norm": False, "embedding_norm": "sum", "scaled": cfg.bool("scale_embedding", default=False),
    }  # fmt: skip
    if "rows" not in twists:
        fields["rows"] = cfg.int("max_position_embeddings") + offset
    return BartShape(**(fields | twists))


def mbart(cfg: Config) -> BartShape:
    """BART with norms before the halves and at the end of each stack."""
    return bart(cfg, pre_norm=True)


def pegasus(cfg: Config) -> BartShape:
    """MBART with fixed sines for positions, embeddings not normed."""
    return bart(cfg, pre_norm=True, embedding_norm="", offset=0, positions="sines")


def marian(cfg: Config) -> BartShape:
    """BART with fixed sines for positions, embeddings not normed."""
    return bart(cfg, embedding_norm="", offset=0, positions="sines")


def blenderbot(cfg: Config) -> BartShape:
    """MBART with as many rows of positions as there are, embeddings not normed."""
    return bart(cfg, pre_norm=True, embedding_norm="", offset=0)


def blenderbot_small(cfg: Config) -> BartShape:
    """BART whose decoder norms its words before their positions are added."""
    return bart(cfg, embedding_norm="words", offset=0)


def m2m_100(cfg: Config) -> BartShape:
    """MBART with fixed sines looked up for every sequence; no bias on the logits (NLLB too)."""
    return bart(cfg, pre_norm=True, embedding_norm="", positions="looked up", head_bias=False)


def whisper(cfg: Config) -> BartShape:
    """MBART that hears: mel features, learned positions in the decoder only, keys without a bias."""
    return bart(
        cfg, pre_norm=True, embedding_norm="", positions="indexed", rows=cfg.int("max_target_positions", default=448),
        scaled=False, key_bias=False, by_heads=True, head_bias=False, dropout=cfg.float("dropout", default=0.0),
        audio=Audio(cfg.int("num_mel_bins", default=80), cfg.int("max_source_positions", default=1500)),
    )  # fmt: skip
