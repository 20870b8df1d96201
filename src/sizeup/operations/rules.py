"""Popular rules of thumb beside the exact figures, with the error of each.

People meet these rules everywhere. Each is computed here just as it is told, for the model at hand, and set beside
the figure that it stands for, with a line that says what it misses.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sizeup.estimate.rules import Rule, rules_of
from sizeup.models.load import load_model
from sizeup.quantity.units import parse_tokens


class RulesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to compare."""

    model: Annotated[str | dict[str, Any], Meta(description="A catalogue name, Hub id, path, Ollama tag.")] = ""
    shape: Annotated[
        str, Meta(description="A hypothetical model: layers=12,embedding=512,heads=8,vocabulary=50000.")
    ] = ""
    context: Annotated[str | int, Meta(description="Tokens for the cache rule: 8192, 32k.")] = "8k"
    offline: Annotated[bool, Meta(description="Never use the network.")] = False


class Rules(msgspec.Struct, frozen=True):
    """The rules and the exact figures."""

    model: str
    context: int
    rules: tuple[Rule, ...]
    schema: str = "sizeup.rules/1"


def rules(request: RulesRequest) -> Rules:
    """Compute every rule for the model."""
    model = load_model(request.model, shape=request.shape, network=not request.offline)
    context = parse_tokens(request.context)
    return Rules(model.name, context, rules_of(model, context))
