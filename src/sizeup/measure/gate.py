"""The accuracy gate: errors may fall, never grow. The limits are the errors of the last release, kept in a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from sizeup.measure.accuracy import Accuracy, Judgement, summarize
from sizeup.measure.speed_accuracy import speed_comparisons

#: What the gate, and the README, tell apart.
GATE_GROUPS = ("engine", "evidence", "machine_class", "component")
#: An error may grow by this much (absolute share) before it counts as grown: rounding, not a regression.
TOLERANCE = 0.001
#: Rows that may be missing, as a share, before a group counts as having lost its evidence.
MISSING = 0.1


class Limit(msgspec.Struct, frozen=True):
    """The errors that one group must not exceed."""

    group: str
    count: int
    median: float
    p95: float
    worst: float
    lowest: float


def gated(judged: Judgement) -> tuple[Accuracy, ...]:
    """Everything the gate holds: memory of the ledger's rows, and speed of devices the fit had not seen."""
    return summarize((*judged.comparisons, *speed_comparisons()), GATE_GROUPS)


def limits_of(accuracy: Iterable[Accuracy]) -> tuple[Limit, ...]:
    """The errors of now, as limits for later."""
    return tuple(
        Limit(a.name, a.count, round(a.median, 6), round(a.p95, 6), round(abs(a.worst), 6), round(-a.lowest, 6))
        for a in accuracy
    )


def regressions(accuracy: Iterable[Accuracy], limits: Iterable[Limit]) -> tuple[str, ...]:
    """What has grown, in words; empty when nothing has. A group that is gone counts as grown."""
    now = {limit.group: limit for limit in limits_of(accuracy)}
    told: list[str] = []
    for limit in limits:
        current = now.get(limit.group)
        if current is None or current.count < limit.count * (1 - MISSING):
            told.append(f"{limit.group}: {current.count if current else 0} rows of {limit.count} can be compared")
            continue
        for name in ("median", "p95", "worst", "lowest"):
            was, found = getattr(limit, name), getattr(current, name)
            if found > was + TOLERANCE:
                told.append(f"{limit.group}: {name} error {found:.2%}, was {was:.2%}")
    return tuple(told)


def shipped_limits() -> tuple[Limit, ...]:
    """The limits that come with the package."""
    path = Path(__file__).parent / "data" / "accuracy_gate.json"
    return msgspec.json.decode(path.read_bytes(), type=tuple[Limit, ...])
