"""Loads of llama.cpp that others published, each buffer beside today's estimate of it and why the two differ."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sizeup.errors import SizeupError
from sizeup.measure.recompute import Models, estimate_of
from sizeup.measure.rows import ModelRecord, Row

_METHOD = "published"


class PublishedLoad(msgspec.Struct, frozen=True):
    """One buffer: as published, and as estimated, in bytes; None where the row doesn't say enough for an estimate.

    component: `cache`, `compute.GPU0`, `compute.host`, `weights`. note: what makes them differ.
    """

    run: str
    component: str
    known: int
    estimated: int | None
    note: str
    source: str

    @property
    def error(self) -> float | None:
        """Estimated / known - 1."""
        return None if self.estimated is None else self.estimated / self.known - 1


def published_loads(rows: Iterable[Row], models: dict[str, ModelRecord]) -> tuple[PublishedLoad, ...]:
    """Every buffer of every published load of llama.cpp, by model."""
    built = Models(models)
    loads: list[PublishedLoad] = []
    for row in rows:
        if row.method == _METHOD and row.engine == "llama.cpp":
            loads += _loads(row, built)
    return tuple(sorted(loads, key=lambda load: (load.run, load.component)))


def _loads(row: Row, models: Models) -> list[PublishedLoad]:
    try:
        estimate = estimate_of(row, models)
    except SizeupError as error:
        return [PublishedLoad(row.model, c, round(v), None, error.message, row.source) for c, v in _known(row).items()]
    return [
        PublishedLoad(
            row.model, c, round(v), None if (found := estimate.get(c)) is None else round(found), row.note, row.source
        )
        for c, v in _known(row).items()
    ]


def _known(row: Row) -> dict[str, float | int]:
    """The row's components; weights in one sum, for an estimate doesn't tell them apart by device."""
    known = {name: value for name, value in row.components.items() if not name.startswith("weights")}
    weights = row.amount("weights")
    return known if weights is None else known | {"weights": weights}
