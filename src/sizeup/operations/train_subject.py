"""From a reference to what is trained: a configuration, a path, a shape, a catalogue name, a Hub id."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from sizeup.errors import BadInput, NotFound
from sizeup.estimate.training.models import Subject, subject_of
from sizeup.models.config import Config, read_config
from sizeup.models.load import load_model
from sizeup.models.mixers import Attention
from sizeup.models.model import Model


def subject(reference: str | dict[str, Any], *, network: bool) -> Subject:
    """What the reference trains as. Raises what loading a model raises."""
    if isinstance(reference, dict):
        return _given(_Written(reference))
    if not reference.strip():
        raise BadInput("no model is given", hint="give a name, a Hub id, a path or layers=…,embedding=…")
    return _named(reference.strip(), network)


class _Written:
    """A configuration that is the same as another if it is written the same."""

    __slots__ = ("config", "text")

    def __init__(self, config: dict[str, Any]) -> None:
        self.config, self.text = config, repr(config)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Written) and other.text == self.text


@lru_cache(maxsize=64)
def _given(written: _Written) -> Subject:
    return subject_of(written.config)


@lru_cache(maxsize=64)
def _named(text: str, network: bool) -> Subject:
    found = configuration(text, network=network)
    if isinstance(found, Config):
        return subject_of(found, text)
    return subject_of(config_of_model(found), found.name)


def configuration(text: str, *, network: bool) -> Config | Model:
    """The configuration behind a name, or the model itself when only its tensors are known."""
    path = Path(text).expanduser()
    if path.is_file() and path.suffix == ".json":
        return read_config(path)
    if path.is_dir() and (path / "config.json").is_file():
        return read_config(path / "config.json")
    if not path.exists() and "=" not in text:
        config = _from_catalogue(text) or _from_sources(text, network=network)
        if config is not None:
            return config
    return load_model(text, network=network)


def _from_catalogue(text: str) -> Config | None:
    from sizeup.models.catalogue import find

    entry = find.find(text)
    return None if entry is None else Config(entry.config, f"the catalogue ({entry.id})")


def _from_sources(text: str, *, network: bool) -> Config | None:
    from sizeup.models.sources.resolve import resolve

    try:
        found = resolve(text, network=network)
    except NotFound:
        return None
    return Config(found.config, found.origin) if isinstance(found.config, dict) else found.config


def config_of_model(model: Model) -> dict[str, Any]:
    """A llama-like configuration of a model whose own isn't known (a shape typed by hand, a GGUF file)."""
    layer = next((block for block in model.blocks if block.layers and block.feed_forward), None)
    attention = next((m for b in model.blocks for m in b.mixers if isinstance(m, Attention)), None)
    if layer is None or layer.feed_forward is None or attention is None:
        raise NotFound(f"{model.name} has no layers that train like a decoder's", hint="give its config.json")
    half = layer.feed_forward
    config: dict[str, Any] = {
        "model_type": "qwen3_moe" if half.experts else "llama",
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "intermediate_size": half.width or half.expert_width,
        "vocab_size": model.vocabulary,
        "max_position_embeddings": model.context,
        "tie_word_embeddings": any(tensor.tied_to for block in model.blocks for tensor in block.tensors),
    }
    if half.experts:
        config |= {
            "num_experts": half.experts,
            "num_experts_per_tok": half.experts_per_token,
            "moe_intermediate_size": half.expert_width,
        }
    return config


def plain_configuration(reference: str | dict[str, Any], *, network: bool) -> dict[str, Any]:
    """The configuration as a mapping, for a worker."""
    if isinstance(reference, dict):
        return reference
    found = configuration(reference.strip(), network=network)
    return found.data if isinstance(found, Config) else config_of_model(found)
