"""A small memory of results by model identity: hashing a model costs more than most of what is computed from it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from sizeup.models.model import Model

Result = TypeVar("Result")
_LIMIT = 256


def by_model(function: Callable[..., Result]) -> Callable[..., Result]:
    """Remember the last results of `function(model, *hashable)`.

    A model counts by identity, for it is frozen; so does whatever else is given in its place, such as a machine.
    """
    kept: dict[Hashable, tuple[Model, Result]] = {}

    def remembered(model: Model, *rest: Any) -> Result:
        key = (id(model), *rest)
        found = kept.get(key)
        if found is not None and found[0] is model:
            return found[1]
        result = function(model, *rest)
        if len(kept) >= _LIMIT:
            del kept[next(iter(kept))]
        kept[key] = (model, result)
        return result

    remembered.__doc__ = function.__doc__
    remembered.__wrapped__ = function  # type: ignore[attr-defined]
    return remembered
