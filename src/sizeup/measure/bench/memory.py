"""Memory three ways, side by side: estimated, simulated by the engine's own allocator, measured in a real load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from sizeup.engines.llamacpp.footprint import footprint
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import SimulatedFootprint, resident
from sizeup.errors import SizeupError
from sizeup.estimate.footprint import DeviceFootprint
from sizeup.measure.bench.memory_report import Bytes, MemoryReport
from sizeup.measure.llamacpp_rows import measured_row, model_record, simulated_row
from sizeup.measure.recompute import machine_of
from sizeup.measure.rows import ModelRecord, Row, shape_key
from sizeup.measure.simulation import measure, measure_file, simulate, simulate_file
from sizeup.models.catalogue.find import find
from sizeup.models.from_config import model_from_config
from sizeup.models.model import Model
from sizeup.progress import tell

#: Which tokens are read and written while memory is measured.
PREFILL, DECODE = 512, 8


def simulated_memory(model: Model, setting: LlamaSetting, *, date: str) -> MemoryReport:
    """The estimate beside the engine's own allocator, run dry. Raises MissingPart, SizeupError."""
    tell("simulating")
    cell = _accepted(simulate(model, [setting])[0])
    row = simulated_row(model, cell, date=date)
    return MemoryReport(cell.engine, cell.version, _buffers(model, setting, cell, row, None), (), (row,))


def measured_memory(model: Model, setting: LlamaSetting, file: Path | None, *, threads: int, date: str) -> MemoryReport:
    """The same beside a real load: of a file, else of random weights. Raises MissingPart, SizeupError."""
    tell("simulating")
    if file is None:
        cell = _accepted(simulate(model, [setting], threads=threads)[0])
        tell("loading random weights")
        run, size = measure(model, setting, prefill=_prefill(setting), decode=DECODE, threads=threads)
    else:
        cell = _accepted(simulate_file(file.resolve(), [setting], threads=threads)[0])
        tell(f"loading {file.name}")
        run = measure_file(file.resolve(), setting, prefill=_prefill(setting), decode=DECODE, threads=threads)
        size = file.stat().st_size
    weights = "random" if file is None else "file"
    simulated = simulated_row(model, cell, date=date)
    measured = measured_row(model, run, cell, size, date=date, weights=weights)
    expected = resident(cell, size)
    grown = run.grown
    process = (
        Bytes("mapped from the file", simulated=expected.mapped, measured=run.mapped),
        Bytes(
            "of its own", simulated=expected.anonymous, measured=None if grown is None else max(0, grown - run.mapped)
        ),
        Bytes("grown by the load", simulated=expected.total, measured=grown),
        Bytes("resident, program included", measured=run.resident),
    )
    buffers = _buffers(model, setting, cell, simulated, measured)
    return MemoryReport(run.engine, run.version, buffers, process, (simulated, measured))


def records(model: Model) -> tuple[ModelRecord, ...]:
    """How the model is built, for the ledger, so that its rows can be judged later; none for one nobody else knows."""
    entry = find(model.name)
    if entry is None or shape_key(model_from_config(entry.config, entry.id)) != shape_key(model):
        return ()
    return (model_record(model, entry.config),)


def _prefill(setting: LlamaSetting) -> int:
    return min(PREFILL, setting.context // setting.parallel - DECODE)


def _accepted(cell: SimulatedFootprint) -> SimulatedFootprint:
    if cell.refused:
        raise SizeupError(f"llama.cpp refuses this setting: {cell.refused[:300]}", hint="change the setting")
    return cell


def _buffers(
    model: Model, setting: LlamaSetting, cell: SimulatedFootprint, simulated: Row, measured: Row | None
) -> tuple[Bytes, ...]:
    host_only = msgspec.structs.replace(setting, gpu_layers=0)
    estimate = _estimated(footprint(model, host_only, machine_of(simulated)).devices[-1])
    dry = {"weights": cell.weights, "cache": cell.cache, "compute": cell.compute, "output": cell.output}
    return tuple(Bytes(part, estimate.get(part), dry[part], _amount(measured, part)) for part in dry)


def _estimated(device: DeviceFootprint) -> Mapping[str, int]:
    amounts = dict.fromkeys(("weights", "cache", "compute", "output"), 0)
    for item in device.items:
        part = "output" if item.name == "output buffer" else item.component
        if part in amounts:
            amounts[part] += item.bytes
    return amounts


def _amount(row: Row | None, part: str) -> int | None:
    amount = row.amount(part) if row is not None else None
    return None if amount is None else int(amount)
