"""Which models really run well on this machine, for a task: model, format and context, ranked by quality.

Every pick fits, is fast enough to use, and has evidence of its quality: published scores with their source, those of a
close relative, or at least recency. The list shows the trade-off: quality falls and speed rises from top to bottom.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sizeup.advice.needs import USUAL_CONTEXT, USUAL_SPEED, Needs, Task
from sizeup.advice.search import Pick, search
from sizeup.machines.spec import load_machine
from sizeup.operations.machine import MachineReport, report_on
from sizeup.quantity.units import parse_count, parse_tokens


class AdviseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed."""

    task: Annotated[Task, Meta(description="What the model is for.")] = "coding"
    context: Annotated[str | int, Meta(description="Tokens of context; default: what the task usually wants.")] = ""
    min_speed: Annotated[float | None, Meta(description="Least tokens/s; default: what people bear for the task.")] = (
        None
    )
    licence: Annotated[Literal["permissive", "any"], Meta(description="Only licences without conditions, or any.")] = (
        "any"
    )
    language: Annotated[str, Meta(description="A language the model must know, as ISO code: de, zh.")] = ""
    users: Annotated[int, Meta(description="People at once, each with the whole context.", ge=1)] = 1
    max_params: Annotated[str, Meta(description="Most parameters: 8B, 500M.")] = ""
    machine: Annotated[str, Meta(description="'2x RTX 4090, 64 GB RAM', a TOML file; default: this machine.")] = ""
    count: Annotated[int, Meta(description="How many picks at most.", ge=1)] = 8


class Advice(msgspec.Struct, frozen=True):
    """The picks, best quality first, and why other models of the catalogue are not among them."""

    machine: MachineReport
    needs: Needs
    picks: tuple[Pick, ...]
    left_out: dict[str, int]
    schema: str = "sizeup.advise/1"

    @property
    def exit_code(self) -> int:
        """0 with a pick, 3 without."""
        return 0 if self.picks else 3


def advise(request: AdviseRequest) -> Advice:
    """Search the catalogue for the needs, on the machine."""
    machine = load_machine(request.machine or None)
    task = request.task
    needs = Needs(
        task=task,
        context=parse_tokens(request.context) if request.context else USUAL_CONTEXT[task],
        min_speed=USUAL_SPEED[task] if request.min_speed is None else request.min_speed,
        licence=request.licence,
        language=request.language.lower() or None,
        users=request.users,
        max_parameters=parse_count(request.max_params) if request.max_params else None,
    )
    picks, left_out = search(needs, machine, request.count)
    return Advice(report_on(machine), needs, tuple(picks), left_out)
