"""Results as rows of the ledger, and back."""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.measure.bench.cells import Cell
from sizeup.measure.bench.results import CellResult
from sizeup.measure.rows import Row, shape_key
from sizeup.models.model import Model

#: How a row of the ledger names what this package does; raised when a change alters its numbers.
METHOD = "bench/1"


class Subject(msgspec.Struct, frozen=True):
    """What was measured: the model, where it is known, the engine and the machine.

    weights: `file`, `random` or `served` (by an endpoint that says no more).
    """

    name: str
    engine: str
    version: str
    machine: str
    machine_class: str
    format: str = ""
    model: Model | None = None
    setting: LlamaSetting | None = None
    weights: str = "file"


def rows(subject: Subject, result: CellResult, date: str) -> tuple[Row, ...]:
    """Three rows for a cell: tokens per second, seconds, bytes."""
    found = [
        _row(subject, result, date, "tokens/s", speeds(result)),
        _row(subject, result, date, "seconds", waits(result)),
    ]
    if memory := held(result):
        found.append(_row(subject, result, date, "bytes", memory))
    return tuple(found)


def speeds(result: CellResult) -> dict[str, float]:
    """What is counted in tokens per second."""
    amounts = {"prefill": result.prefill.value, "throughput": result.throughput.value}
    if result.decode:
        amounts["decode"] = result.decode.value
    if result.engine_decode:
        amounts["engine_decode"] = result.engine_decode
    if result.engine_prefill:
        amounts["engine_prefill"] = result.engine_prefill
    return amounts


def waits(result: CellResult) -> dict[str, float]:
    """What is counted in seconds."""
    amounts: dict[str, float] = {}
    for name, times in (("first", result.first), ("between", result.between)):
        if times:
            amounts |= {f"{name}.p50": times.p50, f"{name}.p95": times.p95, f"{name}.p99": times.p99}
    return amounts


def held(result: CellResult) -> dict[str, float]:
    """What is counted in bytes: the server's memory at its most."""
    usage = result.usage
    kinds = {"resident": usage.resident, "anonymous": usage.anonymous, "files": usage.mapped, "gpu": usage.gpu}
    return {name: amount for name, amount in kinds.items() if amount is not None}


def cell_of(row: Row) -> Cell | None:
    """The cell that a row of this package measured; None for any other row."""
    if row.method != METHOD:
        return None
    names = ("prompt", "generate", "depth", "concurrency")
    numbers = {name: row.workload.get(name) for name in names}
    try:
        return msgspec.convert(numbers, Cell)
    except msgspec.ValidationError:
        return None


def _row(subject: Subject, result: CellResult, date: str, unit: str, amounts: dict[str, float]) -> Row:
    setting: dict[str, Any] = msgspec.to_builtins(subject.setting) if subject.setting else {}
    components: dict[str, float | int] = dict(amounts)
    return Row(
        kind="measure",
        model=subject.name,
        engine=subject.engine,
        components=components,
        source="sizeup",
        shape=shape_key(subject.model) if subject.model else "",
        family=subject.model.family if subject.model else "",
        format=subject.format,
        version=subject.version,
        machine=subject.machine,
        machine_class=subject.machine_class,
        setting=setting,
        workload={**msgspec.to_builtins(result.cell), "weights": subject.weights, "runs": len(result.prefill.runs)},
        unit=unit,
        method=METHOD,
        date=date,
        note=result.noisy,
    )
