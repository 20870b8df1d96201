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
    components |= {
        "cache": cell.cache,
        "compute": cell.compute,
        "output": cell.output or 0,
        "total": cell.total - (cell.output or 0),
    }
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
    """A real run as a row: what the process held, and what llama.cpp said of its buffers.

    total: all that is resident, program included. grown: what the load added to it, anonymous and mapped.

    cell, file_bytes: the simulation of the same file; what it expects the process to hold goes into the row too.
    """
    expected = simulate.resident(cell, file_bytes)
    buffers: dict[str, float | int] = {}
    for buffer in run.buffers:
        for name, amount in (("weights", buffer.model), ("cache", buffer.context), ("compute", buffer.compute)):
            if amount:
                buffers[f"{name}.{buffer.name}"] = amount
    components = {
        **buffers,
        "output": run.output or 0,
        "mapped": run.mapped,
        "simulated.mapped": expected.mapped,
        "simulated.grown": expected.total,
    }
    if run.grown is not None and run.resident is not None:
        components |= {"grown": run.grown, "overhead": _overhead(run, run.resident), "total": run.resident}
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


def _overhead(run: MeasuredRun, resident: int) -> int:
    """What the process holds beside the file and llama.cpp's buffers: program, vocabulary, graph, work buffer."""
    buffers = sum(buffer.total for buffer in run.buffers if buffer.name != "CPU_Mapped")
    return max(0, resident - run.mapped - buffers - (run.output or 0))
