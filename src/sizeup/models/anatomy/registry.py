"""Which function describes which `model_type`. Modules are imported when a model of theirs is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from sizeup.models.anatomy.family import Anatomy
from sizeup.models.config import Config

#: module → the model types it describes; the function has the model type's name, or the one after the colon.
FAMILIES = {
    "dense": "llama mistral qwen2 qwen3 gemma gemma2",
    "deepseek": "deepseek_v2 deepseek_v3 kimi_k2:deepseek_v3",
}


def _index() -> dict[str, tuple[str, str]]:
    index: dict[str, tuple[str, str]] = {}
    for module, entries in FAMILIES.items():
        for entry in entries.split():
            model_type, _, function = entry.partition(":")
            index[model_type] = (module, function or model_type.replace("-", "_"))
    return index


INDEX = _index()


def known_types() -> list[str]:
    """All model types with an anatomy."""
    return sorted(INDEX)


def anatomy_of(model_type: str) -> Callable[[Config], Anatomy] | None:
    """The function that describes a model type, or None when there is none."""
    if model_type not in INDEX:
        return None
    module, function = INDEX[model_type]
    found: Callable[[Config], Anatomy] = getattr(import_module(f"sizeup.models.anatomy.{module}"), function)
    return found
