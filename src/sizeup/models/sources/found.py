"""What a source found under a reference, and how it came to it."""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.models.sources.header import Header, StoredFile


class Step(msgspec.Struct, frozen=True):
    """One place that was asked for the model, and what came of it."""

    place: str
    outcome: str


class Facts(msgspec.Struct, frozen=True):
    """What a source says about a model beside its shape; empty or None when it says nothing.

    chat_template: the template's text.
    pickled_bytes: bytes of weights in pickled files, which are never opened.
    created: the date the repository was made, as the Hub gives it.
    """

    licence: str | None = None
    chat_template: str | None = None
    languages: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    gated: bool = False
    created: str | None = None
    pickled_bytes: int | None = None


class Found(msgspec.Struct, frozen=True):
    """A raw model: its configuration, its header, or both.

    kind: `dict`, `config`, `safetensors`, `gguf` or `ollama` (a GGUF header from Ollama's store).
    origin: where it was found, for people.
    name: the model's own name, as far as the source knows it.
    revision: the commit, when it came from the Hub.
    companions: projectors and the like that are loaded beside the model.
    steps: every place that was asked, in order.
    """

    reference: str
    kind: str
    origin: str
    name: str = ""
    revision: str = ""
    config: dict[str, Any] | None = None
    header: Header | None = None
    facts: Facts = Facts()
    companions: tuple[StoredFile, ...] = ()
    steps: tuple[Step, ...] = ()


def facts_of_gguf(header: Header) -> Facts:
    """Licence, template, languages and lineage from a GGUF header's metadata."""
    metadata = header.metadata
    languages = metadata.get("general.languages")
    bases = [value for key, value in metadata.items() if _is_base_model(key) and isinstance(value, str)]
    return Facts(
        licence=_text(metadata.get("general.license")),
        chat_template=_text(metadata.get("tokenizer.chat_template")),
        languages=tuple(str(item) for item in languages) if isinstance(languages, tuple) else (),
        base_models=tuple(base.removeprefix("https://huggingface.co/") for base in bases),
    )


def template_of(value: Any) -> str | None:
    """A chat template: a text, or a list of named ones, of which `default` or the first counts."""
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default") or next(iter(named.values()), None)
    return value if isinstance(value, str) and value else None


def is_pickled(file: str) -> bool:
    """Whether a file name is that of pickled weights."""
    return file.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl")) and not file.endswith(
        ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt")
    )


def _is_base_model(key: str) -> bool:
    return key.startswith("general.base_model.") and key.endswith(".repo_url")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
