"""From a configuration to the shape of a decoder."""

from __future__ import annotations

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.models.anatomy.family import sizes
from sizeup.models.config import Config


def llama(cfg: Config) -> DecoderShape:
    s = sizes(cfg)
    return DecoderShape(
        hidden=s.hidden,
        layers=s.layers,
        head_count=s.heads,
        kv_heads=s.kv_heads,
        head_dim=s.head_dim,
        ffn=s.ffn,
        vocabulary=s.vocabulary,
        tied=cfg.bool("tie_word_embeddings", default=False),
    )
