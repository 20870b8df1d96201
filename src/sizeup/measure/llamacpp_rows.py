"""Rows of the ledger from simulations and real runs of llama.cpp."""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.engines.llamacpp import report, simulate
from sizeup.engines.llamacpp.report import MeasuredRun
from sizeup.engines.llamacpp.simulate import SimulatedFootprint
from sizeup.measure.rows import ModelRecord, Row, shape_key
from sizeup.models.model import Model

#: Instruction sets that decide which weights llama.cpp repacks, as its system information names them.
_FEATURES = ("AVX2", "AVX512", "NEON", "DOTPROD", "MATMUL_INT8")


def machine_name(system: str) -> str:
    """The machine of a row on the CPU alone: `cpu: avx2 avx512`, from llama.cpp's system information."""
    found = [feature.lower() for feature in _FEATURES if f"{feature} = 1" in system]
    return f"cpu: {' '.join(found)}"


def model_record(model: Model, config: dict[str, Any]) -> ModelRecord:
    """The model that rows refer to, with the configuration it can be built from again."""
    return ModelRecord(shape_key(model), model.name, model.family, model.parameters, config)


def simulated_row(model: Model, cell: SimulatedFootprint, *, date: str, source: str = "sizeup") -> Row:
    """A simulation as a row: weights by buffer type, the rest by component."""
    components: dict[str, float | int] = {f"weights.{b.name}": b.model for b in cell.buffers if b.model}
    components |= {"cache": cell.cache, "compute": cell.compute, "output": cell.output or 0, "total": cell.total}
    return Row(
        kind="simulate",
        model=model.name,
        engine=cell.engine,
        components=components,
        source=source,
        shape=shape_key(model),
        family=model.family,
        format=cell.setting.format,
        version=cell.version,
        machine=machine_name(cell.system),
        machine_class="cpu",
        setting=msgspec.to_builtins(cell.setting),
        method=simulate.METHOD,
        date=date,
    )


def measured_row(
    model: Model,
    run: MeasuredRun,
    cell: SimulatedFootprint,
    file_bytes: int,
    *,
    date: str,
    source: str = "sizeup",
    weights: str = "random",
) -> Row:
    """A real run as a row: what the process held by kind, and what llama.cpp said of its buffers.

    cell, file_bytes: the simulation of the same file; what it expects the process to hold goes into the row too.
    """
    expected = simulate.resident(cell, file_bytes)
    buffers: dict[str, float | int] = {}
    for buffer in run.buffers:
        for name, amount in (("weights", buffer.model), ("cache", buffer.context), ("compute", buffer.compute)):
            if amount:
                buffers[f"{name}.{buffer.name}"] = amount
    components = {**buffers, "output": run.output or 0, "mapped": run.mapped}
    if run.total is not None and run.anonymous is not None:
        components |= {"anonymous": run.anonymous, "overhead": _overhead(run, run.anonymous), "total": run.total}
    components |= {
        "simulated.mapped": expected.mapped,
        "simulated.anonymous": expected.anonymous,
        "simulated.total": expected.total,
    }
    return Row(
        kind="measure",
        model=model.name,
        engine=run.engine,
        components=components,
        source=source,
        shape=shape_key(model),
        family=model.family,
        format=run.setting.format,
        version=run.version,
        machine=machine_name(run.system),
        machine_class="cpu",
        setting=msgspec.to_builtins(run.setting),
        workload={"prefill": run.prefill, "decode": run.decode, "threads": run.threads, "weights": weights},
        method=report.METHOD,
        date=date,
    )


def _overhead(run: MeasuredRun, anonymous: int) -> int:
    """What the process holds of its own beside llama.cpp's buffers: metadata, work buffer, stacks."""
    buffers = sum(buffer.total for buffer in run.buffers if buffer.name != "CPU_Mapped")
    return max(0, anonymous - buffers - (run.output or 0))
