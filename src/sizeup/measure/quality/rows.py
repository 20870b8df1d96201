"""Measured quality as rows of the ledger: losses in nats, agreement and passed problems as shares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from sizeup.measure.quality.coding import GradeScore
from sizeup.measure.quality.loss import Estimated, LossReport
from sizeup.measure.quality.methods import CODING, LOSS, STANDARD
from sizeup.measure.rows import Row, Value, shape_key
from sizeup.models.model import Model


class Subject(msgspec.Struct, frozen=True):
    """What was judged. model: None where only a server's name for it is known."""

    name: str
    engine: str
    version: str
    machine: str
    format: str = ""
    model: Model | None = None


def loss_rows(subject: Subject, found: LossReport, date: str) -> tuple[Row, ...]:
    """A row in nats, and one of shares beside a reference."""
    workload: dict[str, Value] = {
        "text": found.text,
        "digest": found.digest,
        "length": found.length,
        "stretches": found.stretches,
        "tokens": found.tokens,
    }
    if found.reference:
        workload |= {"reference": found.reference, "reference_format": found.reference_format}
    nats = {"loss": found.loss, "reference_loss": found.reference_loss, "divergence": found.divergence}
    rows = [_row(subject, "nats", _amounts(nats), workload, LOSS, date)]
    if found.agreement:
        rows.append(_row(subject, "share", _amounts({"agreement": found.agreement}), workload, LOSS, date))
    return tuple(rows)


def coding_row(subject: Subject, scores: Iterable[GradeScore], *, chat: bool, tokens: int, date: str) -> Row:
    """One row: the share that passed by grade, and how many there were."""
    listed = tuple(scores)
    workload: dict[str, Value] = {f"problems.{score.grade}": score.count for score in listed}
    workload |= {"chat": chat, "tokens": tokens}
    shares = {f"passed.{score.grade}": score.share.value for score in listed}
    return _row(subject, "share", shares, workload, CODING, date)


def standard_row(subject: Subject, scores: dict[str, float], workload: dict[str, Value], date: str) -> Row:
    """One row: what lm-evaluation-harness found, by task and metric."""
    return _row(subject, "share", scores, workload, STANDARD, date)


def _amounts(found: dict[str, Estimated | None]) -> dict[str, float]:
    return {name: max(0.0, estimated.value) for name, estimated in found.items() if estimated is not None}


def _row(
    subject: Subject, unit: str, components: dict[str, Any], workload: dict[str, Value], method: str, date: str
) -> Row:
    model = subject.model
    return Row(
        kind="measure",
        model=subject.name,
        engine=subject.engine,
        components=components,
        source="sizeup",
        shape=shape_key(model) if model else "",
        family=model.family if model else "",
        format=subject.format,
        version=subject.version,
        machine=subject.machine,
        workload=workload,
        unit=unit,
        method=method,
        date=date,
    )
