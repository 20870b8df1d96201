"""What a config.json leaves out because it equals the default of its configuration class in transformers.

`defaults.json` beside this file holds the facts (scripts/extract_defaults.py writes it and notes the version). They
are merged once, on entry, so that an anatomy's getters see a full configuration. A field that is there, even as null,
is never touched.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from sizeup.models.config import Config

#: Sizes that make a model what it is. Without them a model's own configuration is broken, and isn't silently read as
#: the class's default (a 7B Llama); a nested part may leave them out, as published configurations do.
CORE = frozenset(
    {
        *("hidden_size", "n_embd", "d_model", "dim"),
        *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"),
        *("num_attention_heads", "n_head", "n_heads", "num_heads"),
        *("encoder_attention_heads", "decoder_attention_heads"),
        *("intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"),
        "vocab_size",
    }
)


#: Of those, the ones that no anatomy may replace by a rule of thumb when a class names them.
WIDTHS = frozenset({"intermediate_size", "ffn_dim", "d_ff"})
#: Under which names published configurations give that width instead.
OTHER_WIDTHS = frozenset({"n_inner", "block_ff_dim", "ffn_hidden_size", "encoder_ffn_dim", "decoder_ffn_dim"})


class Defaults(msgspec.Struct, frozen=True):
    """The defaults of one configuration class.

    fields: name → literal default. aliases: other spelling → the name the class stores it under.
    parts: nested configuration → its model type and the fields its owner changes, for when it is absent.
    """

    fields: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    parts: dict[str, dict[str, Any]] = {}


class _File(msgspec.Struct, frozen=True):
    source: str
    types: dict[str, Defaults]


def filled(cfg: Config, model_type: str, *, nested: bool = False) -> Config:
    """The configuration with the defaults of its model type; unchanged when the type isn't known.

    nested: a part of another configuration, which may leave its core sizes out. Raises BadConfig when a model's own
    configuration leaves out the width of its feed-forward and the class has one.
    """
    known = _load().types.get(model_type)
    if known is None:
        return cfg
    merged = Config(_merged(cfg.data, known, nested), cfg.origin, cfg.path)
    widths = () if nested else WIDTHS & known.fields.keys()
    if widths and not merged.data.keys() & (WIDTHS | OTHER_WIDTHS):
        merged.int(*sorted(widths))
    return merged


def _merged(data: dict[str, Any], known: Defaults, nested: bool) -> dict[str, Any]:
    merged = {name: value for name, value in known.fields.items() if nested or name not in CORE}
    for alias, name in known.aliases.items():
        if data.get(alias) is not None:
            merged[name] = data[alias]
        elif data.get(name) is not None and alias in merged:
            merged[alias] = data[name]
    merged.update(data)
    for name, absent in known.parts.items():
        present = merged.get(name)
        if isinstance(present, dict):
            merged[name] = _part(present, absent)
        elif present is None:
            merged[name] = _part(absent, absent)
    return merged


def _part(present: dict[str, Any], absent: dict[str, Any]) -> dict[str, Any]:
    model_type = present.get("model_type") or absent.get("model_type")
    if not model_type:
        return absent | present
    known = _load().types.get(model_type) if isinstance(model_type, str) else None
    return _merged({"model_type": model_type} | present, known, nested=True) if known else present


@cache
def _load() -> _File:
    with open(f"{__file__.removesuffix('.py')}.json", "rb") as file:  # noqa: PTH123  (pathlib costs start-up time)
        return msgspec.json.decode(file.read(), type=_File)
