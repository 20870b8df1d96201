"""Results beside earlier ones: the same cells of the same model, or of another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from sizeup.measure.bench.cells import Cell
from sizeup.measure.bench.results import CellResult
from sizeup.measure.bench.rows import cell_of, speeds
from sizeup.measure.rows import Row

#: Differences below this are within what two runs of one thing differ by.
SAME = 0.03


class Change(msgspec.Struct, frozen=True):
    """One figure of a cell, now and then. ratio: now over then. words: faster, slower or the same."""

    cell: Cell
    component: str
    now: float
    then: float
    date: str
    model: str
    engine: str
    version: str

    @property
    def ratio(self) -> float:
        """Now over then."""
        return self.now / self.then if self.then else 0.0

    @property
    def words(self) -> str:
        """Whether it got better."""
        if abs(self.ratio - 1) <= SAME:
            return "the same"
        return f"{abs(self.ratio - 1):.0%} {'faster' if self.ratio > 1 else 'slower'}"


def earlier(rows: Iterable[Row], model: str) -> dict[Cell, Row]:
    """The newest row of speeds for each cell of a model; `rows` come oldest first."""
    found: dict[Cell, Row] = {}
    for row in rows:
        cell = cell_of(row)
        if cell is not None and row.unit == "tokens/s" and row.model == model:
            found[cell] = row
    return found


def changes(results: Sequence[CellResult], before: dict[Cell, Row]) -> tuple[Change, ...]:
    """What changed in the cells that both have."""
    found = []
    for result in results:
        row = before.get(result.cell)
        if row is None:
            continue
        now = speeds(result)
        found += [
            Change(result.cell, name, now[name], then, row.date, row.model, row.engine, row.version)
            for name in ("prefill", "decode", "throughput")
            if name in now and (then := row.components.get(name))
        ]
    return tuple(found)
