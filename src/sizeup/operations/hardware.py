"""Which machines run a model at a speed, for so many users with such a context: cheapest first, then lowest power.

Prices are those at launch, without tax, with a plain host around the cards; used cards cost less, scarce ones more.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sizeup.advice.hardware import Choice, Wanted, choices
from sizeup.errors import BadInput
from sizeup.formats.mixes import mix
from sizeup.models.load import load_model
from sizeup.quantity.units import parse_tokens


class HardwareRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, and what the machine must do."""

    model: Annotated[str | dict[str, Any], Meta(description="A catalogue name, Hub id, path, Ollama tag.")]
    speed: Annotated[float, Meta(description="Tokens/s that each user sees.", gt=0)] = 20.0
    context: Annotated[str | int, Meta(description="Tokens of context for each user (8192, 32k).")] = "8k"
    users: Annotated[int, Meta(description="Sequences at once.", ge=1, le=256)] = 1
    format: Annotated[str, Meta(description="The format to run (Q4_K_M, Q8_0, F16).")] = "Q4_K_M"
    count: Annotated[int, Meta(description="How many machines to list.", ge=1, le=100)] = 12
    offline: Annotated[bool, Meta(description="Never use the network.")] = False


class HardwareReport(msgspec.Struct, frozen=True):
    """The machines, cheapest first; looked_at: how many were considered."""

    model: str
    wanted: Wanted
    machines: tuple[Choice, ...]
    looked_at: int
    schema: str = "sizeup.hardware/1"

    @property
    def exit_code(self) -> int:
        """0 when a machine does it, 3 when none does."""
        return 0 if self.machines else 3


def hardware(request: HardwareRequest) -> HardwareReport:
    """Try every machine of the catalogue that can be bought."""
    if not request.format:
        raise BadInput("no format is given", hint="for example --format Q4_K_M")
    mix(request.format)
    model = load_model(request.model, network=not request.offline)
    wanted = Wanted(request.speed, parse_tokens(request.context), request.users, request.format)
    found, looked = choices(model, wanted, request.count)
    return HardwareReport(model.name, wanted, tuple(found), looked)
