"""The third road to a model: its class, built on the meta device by the transformers worker."""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.errors import BadInput
from sizeup.models.from_transformers import BuiltClass, model_from_transformers
from sizeup.models.model import Model
from sizeup.workers.host import find_python, run_worker


def model_by_transformers(reference: str | dict[str, Any], *, network: bool) -> Model:
    """The model that transformers builds for a configuration, without values and without remote code.

    Raises MissingPart without an environment that has torch and transformers, BadInput for a reference without a
    configuration, and what resolving and building raise.
    """
    config, name = _configuration(reference, network=network)
    python = find_python(("torch", "transformers"), "transformers")
    (answer,) = run_worker("transformers_meta.py", {"config": config}, python=python)
    return model_from_transformers(msgspec.convert(answer, BuiltClass), name=name, origin="transformers, meta device")


def _configuration(reference: str | dict[str, Any], *, network: bool) -> tuple[dict[str, Any], str]:
    if isinstance(reference, dict):
        return reference, ""
    from sizeup.models.catalogue.find import find
    from sizeup.models.sources.resolve import resolve

    entry = find(reference)
    if entry is not None:
        return entry.config, entry.id
    found = resolve(reference, network=network, headers=False)
    if found.config is None:
        raise BadInput(f"{reference} has no configuration to build a class from", hint="leave out --transformers")
    return found.config, found.name or reference
