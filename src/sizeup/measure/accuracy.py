"""The estimate judged against the ledger: every row's estimate is computed again and compared, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from sizeup.errors import SizeupError
from sizeup.measure.recompute import Models, estimate_of
from sizeup.measure.rows import QUALITY_UNITS, ModelRecord, Row
from sizeup.quantity.units import MIB

#: An amount that differs by no more than this is as good as equal, whatever its share (the issue's bar for compute).
SMALL_BYTES = 16 * MIB
#: Evidence that somebody else measured; `published nearest` where the estimate has no such method or code, and the
#: nearest it has is compared.
PUBLISHED = "published"
#: What `Accuracy` may be grouped by: fields of a comparison.
FIELDS = ("evidence", "engine", "machine_class", "family", "component", "method")


class Comparison(msgspec.Struct, frozen=True):
    """One component of one row beside its estimate.

    evidence: `simulate`, `measure` or `published` (somebody else's measurement, often of another version).
    method: how a step trains: `full`, `lora`, `qlora`, `dora`; empty for other engines.
    known: what the ledger says, estimated: what the closed form says, both in the row's unit.
    """

    row: str
    model: str
    family: str
    engine: str
    machine_class: str
    evidence: str
    component: str
    known: float
    estimated: float
    method: str = ""
    unit: str = "bytes"

    @property
    def published(self) -> bool:
        """Whether somebody else measured it."""
        return self.evidence.startswith(PUBLISHED)

    @property
    def error(self) -> float:
        """Estimated / known - 1; 0 where both are nothing, and 1 where only the estimate is something."""
        if self.known == 0:
            return 0.0 if self.estimated == 0 else 1.0
        return self.estimated / self.known - 1

    @property
    def close(self) -> bool:
        """Within 10 %, or 16 MiB where bytes are compared."""
        small = self.unit == "bytes" and abs(self.estimated - self.known) <= SMALL_BYTES
        return small or abs(self.error) <= 0.10


class Accuracy(msgspec.Struct, frozen=True):
    """The errors of one group of comparisons, as shares of the known amount.

    group: the fields it is grouped by. median, p95: of the error's size. worst: the error that is largest, signed.
    lowest: the most it is ever under, 0 when never. never_under: share of estimates that are not below.
    close: share within 10 % or 16 MiB.
    """

    group: dict[str, str]
    count: int
    median: float
    p95: float
    worst: float
    lowest: float
    never_under: float
    close: float

    @property
    def name(self) -> str:
        """The group in words: `llama.cpp · cpu · compute`."""
        return " · ".join(self.group.values())


class Skipped(msgspec.Struct, frozen=True):
    """A row that has no estimate to compare with, and why."""

    row: str
    model: str
    reason: str


class Judgement(msgspec.Struct, frozen=True):
    """All comparisons of a ledger, and the rows that could not be compared."""

    comparisons: tuple[Comparison, ...]
    skipped: tuple[Skipped, ...]


def judge(rows: Iterable[Row], models: dict[str, ModelRecord]) -> Judgement:
    """Compute the estimate of every simulated or measured row again, and put it beside what is known."""
    known = Models(models)
    comparisons: list[Comparison] = []
    skipped: list[Skipped] = []
    for row in rows:
        if row.kind == "estimate" or row.unit in QUALITY_UNITS:
            continue
        try:
            comparisons += compare(row, estimate_of(row, known))
        except SizeupError as error:
            skipped.append(Skipped(row.key, row.model, error.message))
    return Judgement(tuple(comparisons), tuple(skipped))


def compare(row: Row, estimate: dict[str, float]) -> list[Comparison]:
    """The components that both the row and the estimate have."""
    return [
        Comparison(
            row=row.key,
            model=row.model,
            family=row.family,
            engine=row.engine,
            machine_class=row.machine_class,
            evidence=row.method if row.method.startswith(PUBLISHED) else row.kind,
            component=component.partition(".")[0],
            known=known,
            estimated=estimated,
            method=str(row.setting.get("method", "full")) if row.engine == "torch" else "",
        )
        for component, estimated in estimate.items()
        if (known := row.amount(component)) is not None
    ]


def summarize(comparisons: Iterable[Comparison], by: Sequence[str] = ("engine", "component")) -> tuple[Accuracy, ...]:
    """The errors by group, groups in alphabetical order, components in the order of the footprint."""
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault(tuple(getattr(comparison, field) for field in by), []).append(comparison)
    ordered = sorted(groups, key=lambda group: tuple(map(_rank, group)))
    return tuple(_accuracy(dict(zip(by, group, strict=True)), groups[group]) for group in ordered)


_ORDER = (
    "weights", "cache", "compute", "output", "overhead", "mapped", "anonymous", "total", "peak", "reserved", "process",
    "decode", "prompt",
)  # fmt: skip


def _rank(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else -1, name)


def _accuracy(group: dict[str, str], members: list[Comparison]) -> Accuracy:
    errors = [member.error for member in members]
    sizes = sorted(map(abs, errors))
    return Accuracy(
        group=group,
        count=len(errors),
        median=quantile(sizes, 0.5),
        p95=quantile(sizes, 0.95),
        worst=max(errors, key=abs),
        lowest=min(0.0, *errors),
        never_under=_share(errors, lambda error: error >= 0),
        close=sum(member.close for member in members) / len(members),
    )


def _share(errors: list[float], test: Callable[[float], bool]) -> float:
    return sum(map(test, errors)) / len(errors)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of an ordered list doesn't exceed, by linear interpolation. Raises ValueError for none."""
    if not ordered:
        raise ValueError("no values")
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
