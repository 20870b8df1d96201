"""What every family reads from a configuration in the same way."""

from __future__ import annotations

from typing import Any

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.models.anatomy.family import FULL, SLIDING, layer_kinds, sizes
from sizeup.models.config import Config


def base(cfg: Config, **twists: Any) -> DecoderShape:
    """Llama, with what differs."""
    s = sizes(cfg)
    fields: dict[str, Any] = {
        "hidden": s.hidden,
        "layers": s.layers,
        "head_count": s.heads,
        "kv_heads": s.kv_heads,
        "head_dim": s.head_dim,
        "ffn": s.ffn,
        "vocabulary": s.vocabulary,
        "tied": cfg.bool("tie_word_embeddings", default=False),
        "activation": cfg.str("hidden_act", "activation_function", "hidden_activation", default="silu"),
        "attention_dropout": cfg.float("attention_dropout", default=0.0),
    }
    return DecoderShape(**(fields | twists))


def windows(cfg: Config, layers: int, default: str | tuple[str, ...] = FULL) -> tuple[int | None, ...]:
    """The window of each layer, from `layer_types` and `sliding_window`."""
    window = cfg.optional_int("sliding_window", min=0) or None
    kinds = layer_kinds(cfg, layers, default)
    return tuple(window if kind == SLIDING else None for kind in kinds)


def everywhere(cfg: Config, layers: int) -> tuple[int | None, ...]:
    """The same window in every layer, if the configuration has one."""
    window = cfg.optional_int("sliding_window", min=0) or None
    return (window,) * layers if window else ()


def bias(cfg: Config) -> bool:
    """`attention_bias`."""
    return cfg.bool("attention_bias", default=False)


def share_of(cfg: Config, kind: str, default: float = 1.0) -> float:
    """The share of a head that turns in layers of that kind."""
    nested = cfg.optional_sub("rope_parameters")
    own = nested.optional_sub(kind) if nested is not None else None
    value = own.optional_float("partial_rotary_factor") if own is not None else None
    return default if value is None else value


#: Share of a head that turns where a configuration leaves it out (transformers 5.23, `__post_init__` of its class).
SHARES = {
    "glm": 0.5, "glm4": 0.5, "glm4_moe": 0.5, "glm4v_moe_text": 0.5, "gpt_neox": 0.25, "nemotron": 0.5,
    "persimmon": 0.5, "phi": 0.5, "recurrent_gemma": 0.5, "stablelm": 0.25,
}  # fmt: skip


def partial(cfg: Config) -> float:
    """Share of a head that turns."""
    nested = cfg.optional_sub("rope_parameters")
    value = cfg.optional_float("partial_rotary_factor", "rotary_pct")
    if value is None and nested is not None:
        value = nested.optional_float("partial_rotary_factor")
    return SHARES.get(cfg.optional_str("model_type") or "", 1.0) if value is None else value
