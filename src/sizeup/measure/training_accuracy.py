"""Training steps that others published, one by one; and whether the ranges stated for a process keep their promise."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sizeup.errors import SizeupError
from sizeup.measure.coverage import Coverage
from sizeup.measure.recompute import Models, estimate_of
from sizeup.measure.rows import ModelRecord, Row

_RANGED = ("reserved", "process")


class PublishedStep(msgspec.Struct, frozen=True):
    """A published figure beside the estimate, in bytes.

    component: what was published: the allocator's `peak`, what it `reserved`, or what the `process` took.
    known: the figure. peak: the allocator's peak as estimated. low, expected, high: of what was published.
    nearest: the estimate has no such method or code, and stands for the nearest it has. note: why it is off.
    """

    run: str
    model: str
    component: str
    known: int
    peak: int
    low: int
    expected: int
    high: int
    nearest: bool
    note: str
    source: str

    @property
    def error(self) -> float:
        """Expected / known - 1."""
        return self.expected / self.known - 1

    @property
    def inside(self) -> bool:
        """Whether the figure lies in the stated range."""
        return self.low <= self.known <= self.high


def published_steps(rows: Iterable[Row], models: dict[str, ModelRecord]) -> tuple[PublishedStep, ...]:
    """Every published training row that has an estimate, by run."""
    from sizeup.measure.torch_rows import train_range

    found = []
    for row, peak in _peaks((row for row in rows if row.method.startswith("published")), models):
        for component, known in row.components.items():
            stated = train_range(component, peak)
            found.append(
                PublishedStep(
                    run=str(row.workload.get("run", row.model)), model=row.model, component=component,
                    known=int(known), peak=peak, low=stated.low, expected=stated.expected, high=stated.high,
                    nearest=row.method != "published", note=row.note, source=row.source,
                )
            )  # fmt: skip
    return tuple(sorted(found, key=lambda step: (step.run.partition(":")[0], step.nearest, step.run)))


def range_coverage(rows: Iterable[Row], models: dict[str, ModelRecord]) -> tuple[Coverage, ...]:
    """How many reserved and process figures lie in the range stated for them, by evidence."""
    from sizeup.measure.torch_rows import train_range

    counts: dict[str, list[int]] = {}
    for row, peak in _peaks(rows, models):
        for component in _RANGED:
            if component in row.components and row.method != "published nearest":
                evidence = "published" if row.method == "published" else f"{row.kind}d"
                count = counts.setdefault(f"{component}, {evidence}", [0, 0])
                count[0] += 1
                count[1] += train_range(component, peak).holds(row.components[component])
    return tuple(Coverage(name, total, inside) for name, (total, inside) in sorted(counts.items()))


def _peaks(rows: Iterable[Row], models: dict[str, ModelRecord]) -> Iterable[tuple[Row, int]]:
    """Training rows with the peak that is estimated for them; rows without an estimate are left out."""
    known = Models(models)
    for row in rows:
        if row.engine == "torch" and row.unit == "bytes":
            try:
                yield row, int(estimate_of(row, known)["peak"])
            except SizeupError:
                continue
