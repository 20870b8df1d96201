"""Does a model fit here, and how fast does it run? By format and context, with the best plan and its command.

The answer "no" exits with 3 and says what would make it fit.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sizeup.advice.grid import best_plan, grid, largest_context, remedies
from sizeup.advice.plans import Plan
from sizeup.advice.speeds import details
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.errors import BadInput, MissingPart
from sizeup.machines.budget import machine_budget
from sizeup.machines.spec import load_machine
from sizeup.measure.bench.memory_report import MemoryReport
from sizeup.models.load import load_model
from sizeup.models.model import Model
from sizeup.quantity.units import parse_tokens


class FitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, and how it should run."""

    model: Annotated[str | dict[str, Any], Meta(description="A catalogue name, Hub id, path, Ollama tag.")] = ""
    shape: Annotated[
        str, Meta(description="A hypothetical model: layers=12,embedding=512,heads=8,vocabulary=50000.")
    ] = ""
    machine: Annotated[str, Meta(description="'2x RTX 4090, 64 GB RAM', a TOML file; default: this machine.")] = ""
    engine: Annotated[Literal["llama.cpp"], Meta(description="The engine that runs it.")] = "llama.cpp"
    format: Annotated[str, Meta(description="One format (Q4_K_M, Q8_0, F16); default: a grid of them.")] = ""
    context: Annotated[str | int, Meta(description="Tokens of context (8192, 32k); default: a grid of them.")] = ""
    kv: Annotated[str, Meta(description="Cache type: f16, q8_0, q4_0; or K/V as q8_0/q4_0.")] = "f16"
    gpu_layers: Annotated[int | None, Meta(description="Layers on the GPUs; -1 all; default: as many as fit.")] = None
    users: Annotated[int, Meta(description="Sequences at once, each with the whole context.")] = 1
    flash_attention: Annotated[Literal["auto", "on", "off"], Meta(description="Fused attention.")] = "auto"
    ubatch: Annotated[int, Meta(description="Tokens computed at once while reading a prompt.")] = 512
    offline: Annotated[bool, Meta(description="Never use the network.")] = False
    simulate: Annotated[
        bool, Meta(description="Let llama.cpp's own allocator check the best plan, without weights.")
    ] = False


class FitReport(msgspec.Struct, frozen=True):
    """The plans, the best of them first.

    fits: whether the best plan does. largest_context: that still fits in the best plan's format; None when none does.
    remedies: what would make it fit, when it doesn't.
    simulation: the best plan's buffers by llama.cpp's own allocator, on the processor, when that was asked for.
    """

    model: str
    machine: str
    fits: bool
    plans: tuple[Plan, ...]
    largest_context: int | None
    remedies: tuple[str, ...]
    notes: tuple[str, ...] = ()
    simulation: MemoryReport | None = None
    schema: str = "sizeup.fit/1"

    @property
    def best(self) -> Plan:
        """The plan to take, or the nearest miss."""
        return self.plans[0]

    @property
    def exit_code(self) -> int:
        """0 when something fits, 3 when nothing does."""
        return 0 if self.fits else 3


def fit(request: FitRequest) -> FitReport:
    """Lay out the grid, choose the best plan, and say why."""
    if request.engine != "llama.cpp":
        raise MissingPart(f"no estimate for engine {request.engine!r} yet", hint="use --engine llama.cpp")
    if request.model and request.shape:
        raise BadInput("both a model and --shape are given", hint="give one of them")
    model = load_model(request.shape or request.model, network=not request.offline)
    machine = load_machine(request.machine or None)
    setting = _setting(request)
    plans = grid(
        model,
        machine,
        setting,
        formats=(request.format,) if request.format else None,
        contexts=(parse_tokens(request.context),) if request.context else None,
    )
    chosen = best_plan(plans)
    closely = details(model, chosen.setting, machine, machine_budget(machine), chosen.speed)
    best = msgspec.structs.replace(chosen, speed=closely)
    ordered = (best, *(plan for plan in plans if plan is not chosen))
    fitting = best.fits.verdict != "no"
    return FitReport(
        model=model.name,
        machine=machine.name,
        fits=fitting,
        plans=ordered,
        largest_context=largest_context(model, machine, best.setting, setting.gpu_layers),
        remedies=() if fitting else remedies(model, machine, best),
        notes=(*model.notes, *machine.notes),
        simulation=_simulated(model, best.setting) if request.simulate else None,
    )


def _simulated(model: Model, setting: LlamaSetting) -> MemoryReport:
    """The engine's own account of a setting; its row is kept in the ledger."""
    from datetime import UTC, datetime

    from sizeup.measure.bench.memory import records, simulated_memory
    from sizeup.measure.ledger import Ledger

    found = simulated_memory(model, setting, date=datetime.now(UTC).isoformat(timespec="seconds"))
    with Ledger() as ledger:
        ledger.add([*found.rows, *records(model)])
    return found


def _setting(request: FitRequest) -> LlamaSetting:
    keys, _, values = request.kv.partition("/")
    return LlamaSetting(
        cache_k=keys,
        cache_v=values or keys,
        gpu_layers=request.gpu_layers,
        parallel=request.users,
        unified=request.users == 1,
        flash_attention=request.flash_attention,
        ubatch=request.ubatch,
    )
