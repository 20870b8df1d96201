"""Models whose layers scan: Mamba and its hybrids, as transformers runs them without kernel packages.

Source: transformers 5.23, `models/<model type>/modeling_*.py`.
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.mamba import Mamba
from sizeup.estimate.training.architectures.mamba2 import Mamba2
from sizeup.models.anatomy.mamba import time_rank
from sizeup.models.config import Config


def bare(cfg: Config, mixer: Mamba | Mamba2, *, tied: bool) -> DecoderShape:
    """Mixers alone, without attention or feed-forwards."""
    return DecoderShape(
        hidden=cfg.int("hidden_size"), layers=cfg.int("num_hidden_layers"), head_count=1, kv_heads=1, head_dim=1,
        ffn=1, vocabulary=cfg.int("vocab_size"), tied=cfg.bool("tie_word_embeddings", default=tied), order="single",
        rotary=0, mixer=mixer, residual_wide=cfg.bool("residual_in_fp32", default=True), logits_wide=True,
    )  # fmt: skip


def mamba(cfg: Config) -> DecoderShape:
    """Mamba alone in every layer."""
    hidden = cfg.int("hidden_size")
    inner = int(cfg.float("expand", default=2) * hidden)
    mixer = Mamba(
        inner=inner, state=cfg.int("state_size", default=16), rank=time_rank(cfg, "time_step_rank", hidden),
        kernel=cfg.int("conv_kernel", default=4), bias=cfg.bool("use_bias", default=False),
        conv_bias=cfg.bool("use_conv_bias", default=True), activation=cfg.str("hidden_act", default="silu"),
    )  # fmt: skip
    return bare(cfg, mixer, tied=True)


def falcon_mamba(cfg: Config) -> DecoderShape:
    """Mamba with norms of the step, B and C that have no weights that train."""
    shape = mamba(cfg)
    if not isinstance(shape.mixer, Mamba):
        return shape
    mixer = msgspec.structs.replace(shape.mixer, norms="plain")
    return msgspec.structs.replace(shape, mixer=mixer)


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
    return bare(cfg, mixer, tied=False)
