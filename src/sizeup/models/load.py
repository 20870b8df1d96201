"""From any reference to a model: a configuration, a path, a shape, a catalogue name, a Hub id, an Ollama tag.

    a dict                 its anatomy
    a path                 headers, else the configuration's anatomy
    layers=…,embedding=…   the shape
    a name                 what Ollama, the Hub's cache and others keep on this machine, headers first;
                           then the catalogue; then, if the network may be asked, the Hub

`Model.road` says which road was taken, `Model.origin` where from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sizeup.errors import BadInput, NetworkError, NotFound
from sizeup.models.from_config import model_from_config
from sizeup.models.model import Model
from sizeup.models.shape import looks_like_shape, model_from_shape

if TYPE_CHECKING:
    from sizeup.models.catalogue.entry import Entry

Reference = str | dict[str, Any] | os.PathLike[str]


def load_model(reference: Reference = "", *, shape: str = "", network: bool = False) -> Model:
    """The model that a reference stands for; the module says in which order it is looked for.

    shape: a hypothetical model, instead of a reference. network: whether a name that isn't on this machine and not in
    the catalogue may be asked for at the Hub. Raises BadInput for an empty reference or an impossible shape, NotFound
    (with the nearest names), BadFile, BadConfig, NetworkError.
    """
    if shape:
        if reference:
            raise BadInput("a model and a shape are given", hint="give one of them")
        return model_from_shape(shape)
    if isinstance(reference, dict):
        return model_from_config(reference, origin="the configuration")
    text = os.fspath(reference).strip()
    if not text:
        raise BadInput("no model is given", hint="give a name, a Hub id, a path or --shape layers=…,embedding=…")
    if looks_like_shape(text) and not _exists(text):
        return model_from_shape(text)
    if isinstance(reference, os.PathLike) or _exists(text):
        return _found(Path(text), network=False)
    return _by_name(text, network=network)


def _by_name(text: str, *, network: bool) -> Model:
    from sizeup.models.catalogue import find

    entry = find.find(text)
    try:
        here = _found(text, network=False)
    except (NotFound, NetworkError) as error:
        if entry is not None:
            from sizeup.models.from_catalogue import model_from_entry

            return model_from_entry(entry)
        if not network or "/" not in text:
            raise _not_here(text, error, find.nearest(text)) from None
        return _found(text, network=True)
    return here if entry is None else _with_catalogue_facts(here, entry)


def _found(text: str | Path, *, network: bool) -> Model:
    from sizeup.models.from_found import model_from_found
    from sizeup.models.sources.resolve import resolve

    return model_from_found(resolve(text, network=network))


def _not_here(text: str, error: NotFound | NetworkError, near: list[str]) -> NotFound | NetworkError:
    """The same failure, with the nearest names of the catalogue as the hint."""
    if not near:
        return error
    hint = f"did you mean {' or '.join(near)}?"
    if "/" in text:
        hint += " To ask the Hub, allow the network."
    return NotFound(f"no model {text[:120]!r} on this machine or in the catalogue", hint=hint)


def _with_catalogue_facts(model: Model, entry: Entry) -> Model:
    """What the catalogue knows beside the tensors, where the model's own files say nothing."""
    own = {name: value for name, value in msgspec.structs.asdict(model.facts).items() if value}
    own.pop("modalities", None)
    return msgspec.structs.replace(model, facts=msgspec.structs.replace(entry.facts, **own))


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False
