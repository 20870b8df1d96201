"""A user's own bench rows as observations of the speed model: what this machine did, work and seconds.

Only rows of llama.cpp with one device at work say something about that device: everything on the processor, or all
layers on the first GPU. Of the same cell the latest counts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import msgspec

from sizeup.engines.llamacpp.setting import ALL_LAYERS, LlamaSetting
from sizeup.engines.llamacpp.traffic import host_rule, placed_work
from sizeup.engines.llamacpp.weights import assign
from sizeup.errors import SizeupError
from sizeup.estimate.speed.tighten import Observation
from sizeup.machines.device import Device, Machine
from sizeup.measure.bench.cells import Cell
from sizeup.measure.bench.rows import cell_of
from sizeup.measure.ledger import Ledger, Selection, default_path
from sizeup.measure.rows import Row
from sizeup.models.load import load_model
from sizeup.models.model import Model

#: Standard deviation of a run's logarithm: other programs, heat, a server around it.
NOISE = 0.08
#: The latest rows that are looked at.
MOST = 32


class OwnRuns(msgspec.Struct, frozen=True):
    """What was measured on one device: decoding first, then prompts."""

    decode: tuple[Observation, ...] = ()
    prompt: tuple[Observation, ...] = ()


def stamp() -> tuple[str, int]:
    """The ledger's path, and when it was last written: runs are read again only when that changes. 0 without one."""
    path = _ledger(os.environ.get("SIZEUP_HOME", ""))
    written = 0
    for name in (path, path + "-wal"):
        with contextlib.suppress(OSError):
            written = max(written, os.stat(name).st_mtime_ns)  # noqa: PTH116  on every prediction
    return path, written


@lru_cache(maxsize=4)
def _ledger(home: str) -> str:  # noqa: ARG001  the ledger's path follows from it
    return str(default_path())


def own_runs(machine: Machine) -> dict[str, OwnRuns]:
    """The user's runs on this machine by device name; empty where the ledger has none."""
    path, written = stamp()
    found: dict[str, OwnRuns] = {}
    for row, cell in _latest(Path(path), machine) if written else ():
        try:
            device, runs = _of_row(row, cell, machine)
        except (SizeupError, msgspec.ValidationError, LookupError):
            continue  # a model that is no longer known, or a setting of another version
        before = found.get(device, OwnRuns())
        found[device] = OwnRuns(before.decode + runs.decode, before.prompt + runs.prompt)
    return found


def _latest(path: Path, machine: Machine) -> Iterator[tuple[Row, Cell]]:
    """The latest row of each cell of this machine, at most so many."""
    try:
        with Ledger(path) as ledger:
            rows = ledger.rows(Selection(kind="measure", engine="llama.cpp"))
    except SizeupError:
        return
    cells: dict[tuple[str, str, Cell], tuple[Row, Cell]] = {}
    for row in rows:
        cell = cell_of(row)
        if cell and row.unit == "tokens/s" and row.machine == machine.name and row.setting and not row.note:
            cells[row.shape or row.model, row.format, cell] = (row, cell)
    yield from list(cells.values())[-MOST:]


def _of_row(row: Row, cell: Cell, machine: Machine) -> tuple[str, OwnRuns]:
    """The device and its observations. Raises LookupError for a row of several devices."""
    setting = msgspec.convert(row.setting, LlamaSetting)
    model = load_model(row.model, network=False)
    device = _alone(setting, model, machine)
    on_gpu = device.kind != "cpu"
    places = assign(model.layers, ALL_LAYERS if on_gpu else 0, (1.0,) if on_gpu else ())
    rule_key = () if on_gpu else host_rule(setting, machine)

    def observed(tokens: int, depth: float, sequences: int, passes: float, seconds: float) -> Observation:
        placed = placed_work(
            model, setting, places, tokens=tokens, depth=depth, sequences=sequences, rule_key=rule_key
        )  # fmt: skip
        return Observation(placed[0].work, passes, seconds, NOISE)

    decode, prompt = row.components.get("decode"), row.components.get("prefill")
    step = min(setting.ubatch_tokens, cell.prompt)
    return device.name, OwnRuns(
        (observed(1, cell.depth + cell.prompt + cell.generate / 2, cell.concurrency, 1.0, 1 / decode),)
        if decode
        else (),
        (observed(step, cell.depth + (cell.prompt - step) / 2, 1, cell.prompt / step, cell.prompt / prompt),)
        if prompt and cell.concurrency == 1
        else (),
    )


def _alone(setting: LlamaSetting, model: Model, machine: Machine) -> Device:
    """The device that does everything in that setting."""
    if not machine.gpus or setting.gpu_layers == 0:
        return machine.cpu
    whole = setting.gpu_layers is not None and not 0 <= setting.gpu_layers <= model.layers
    if len(machine.gpus) > 1 or not whole or setting.cpu_moe_layers:
        raise LookupError("several devices share the work")
    return machine.gpus[0]
