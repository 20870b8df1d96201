"""A decoder whose modules haven't been read: the parts its configuration names, each counted at its dearest.

Norms on both sides of both halves and on queries and keys, biases, experts wherever there are any, everything written
out in Python that has a soft cap or linear biases. Against simulated steps of families that have programs of their own
this is over by a sixth in the median, and under by more than 2 % in one case of a hundred.
"""

from __future__ import annotations

from typing import Any

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.architectures.indexer import Index
from sizeup.estimate.training.architectures.latent import Latent
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families.common import base, everywhere, windows
from sizeup.models.anatomy.family import sizes
from sizeup.models.config import Config

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k", "top_k_experts")
WIDTHS = ("moe_intermediate_size", "expert_ffn_hidden_size", "expert_intermediate_size", "intermediate_size", "ffn_dim")
SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")
DROPOUTS = ("resid_pdrop", "residual_dropout", "hidden_dropout", "hidden_dropout_prob", "resid_dropout")


def unknown(cfg: Config) -> DecoderShape:
    """The dearest decoder that the configuration can mean."""
    cfg = _with_one_width(cfg)
    layers = sizes(cfg).layers
    capped = cfg.has("attn_logit_softcapping")
    eager = capped or cfg.bool("alibi", default=False)
    found = windows(cfg, layers) if cfg.strs("layer_types") else everywhere(cfg, layers)
    mixed = _mixture(cfg)
    fields: dict[str, Any] = {}
    latent = _latent(cfg)
    if latent is not None:
        fields = {"latent": latent, "head_dim": latent.rope_dim}
        if latent.q_rank and _first(cfg, ("index_n_heads",)):
            fields |= {"index": _index(cfg), "always_masked": True}
    return base(
        cfg, qkv_bias=True, output_bias=True, mlp_bias=True, norm="rms_fp32", order="sandwich", qk_norm="head",
        rotary_joined=True, eager_only=eager, way=Way(softcap=capped, wide=eager), windows=found, mixture=mixed,
        sparse=(True,) * layers if mixed is not None else (), logit_softcap=cfg.has("final_logit_softcapping"),
        residual_dropout=cfg.float(*DROPOUTS, default=0.0), **fields,
    )  # fmt: skip


def _with_one_width(cfg: Config) -> Config:
    """The widest feed-forward everywhere, where layers have widths of their own."""
    widths = cfg.data.get("intermediate_size")
    if not isinstance(widths, list) or not all(isinstance(width, int) for width in widths) or not widths:
        return cfg
    return Config(cfg.data | {"intermediate_size": max(widths)}, cfg.origin, cfg.path)


def _first(cfg: Config, names: tuple[str, ...]) -> int:
    """The first of these fields that is a number; 0 when none is."""
    values = (cfg.data.get(name) for name in names)
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), 0)


def _mixture(cfg: Config) -> Mixture | None:
    experts, chosen, width = _first(cfg, EXPERTS), _first(cfg, CHOSEN), _first(cfg, WIDTHS)
    if experts < 2 or not width:
        return None
    shared = _first(cfg, ("shared_expert_intermediate_size", "shared_intermediate_size"))
    return Mixture(
        experts=experts, chosen=max(1, min(chosen, experts)), width=width,
        shared=shared or width * _first(cfg, SHARED), scoring="sigmoid", adapted=True,
    )  # fmt: skip


def _index(cfg: Config) -> Index:
    return Index(
        cfg.int("index_n_heads"),
        cfg.int("index_head_dim", default=128),
        cfg.int("qk_rope_head_dim"),
        cfg.int("index_topk", default=2048),
    )


def _latent(cfg: Config) -> Latent | None:
    if not _first(cfg, ("kv_lora_rank",)) or not _first(cfg, ("qk_nope_head_dim",)):
        return None
    return Latent(
        cfg.optional_int("q_lora_rank", min=0) or 0, cfg.int("kv_lora_rank"), cfg.int("qk_nope_head_dim"),
        cfg.int("qk_rope_head_dim"), cfg.int("v_head_dim"),
    )  # fmt: skip
