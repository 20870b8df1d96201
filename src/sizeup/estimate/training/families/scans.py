"""Models whose layers scan: Mamba and its hybrids, as transformers runs them without kernel packages.

Source: transformers 5.23, `models/<model type>/modeling_*.py`.
"""

from __future__ import annotations

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.mamba2 import Mamba2
from sizeup.models.config import Config


def mamba2(cfg: Config) -> DecoderShape:
    """Mamba 2 alone in every layer."""
    b = cfg.bool("use_bias", default=False)
    mixer = Mamba2(
        heads=cfg.int("num_heads", default=128), head_dim=cfg.int("head_dim", default=64),
        state=cfg.int("state_size", default=128), groups=cfg.int("n_groups", default=8),
        kernel=cfg.int("conv_kernel", default=4), chunk=cfg.int("chunk_size", default=256), bias=b, out_bias=b,
        conv_bias=cfg.bool("use_conv_bias", default=True), name="mixer",
        activation=cfg.str("hidden_act", default="silu"),
    )  # fmt: skip
    return DecoderShape(
        hidden=cfg.int("hidden_size"), layers=cfg.int("num_hidden_layers"), head_count=1, kv_heads=1, head_dim=1,
        ffn=1, vocabulary=cfg.int("vocab_size"), tied=cfg.bool("tie_word_embeddings", default=False), order="single",
        rotary=0, mixer=mixer, residual_wide=cfg.bool("residual_in_fp32", default=True), logits_wide=True,
    )  # fmt: skip
