"""How far off the estimates are: every row of the ledger estimated again and compared, part by part.

The rows that ship with sizeup and those of your own ledger count alike; --mine leaves the shipped ones out. Speed is
judged by published rows that a fit without their device predicted. --published names each published load
and training step. --picture writes the errors as an SVG.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from sizeup.errors import BadInput, SizeupError
from sizeup.measure.accuracy import FIELDS, Accuracy, Skipped, judge, summarize
from sizeup.measure.coverage import Coverage, coverage
from sizeup.measure.ledger import Ledger, default_path, shipped
from sizeup.measure.picture import picture
from sizeup.measure.published_loads import PublishedLoad, published_loads
from sizeup.measure.speed_accuracy import speed_comparisons
from sizeup.measure.training_accuracy import PublishedStep, published_steps, range_coverage


class AccuracyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows, and how to group their errors."""

    by: Annotated[str, Meta(description=f"Group by, with commas: {', '.join(FIELDS)}.")] = "evidence,engine,component"
    mine: Annotated[bool, Meta(description="Only rows of your own ledger.")] = False
    published: Annotated[bool, Meta(description="Name each load and training step that others published.")] = False
    picture: Annotated[str, Meta(description="Write the errors as a picture to this SVG file.")] = ""


class AccuracyReport(msgspec.Struct, frozen=True):
    """Errors by group, how often intervals held, and the rows that could not be compared.

    ranges: how often the range stated for a training process held what was reserved or taken. published: training steps
    that others published, each with its figure, range and explanation. speed: errors for devices the fit had not seen.
    """

    rows: int
    accuracy: tuple[Accuracy, ...]
    coverage: tuple[Coverage, ...]
    skipped: tuple[Skipped, ...]
    ranges: tuple[Coverage, ...] = ()
    published: tuple[PublishedStep, ...] = ()
    loads: tuple[PublishedLoad, ...] = ()
    speed: tuple[Accuracy, ...] = ()
    named: bool = False
    picture: str | None = None
    schema: str = "sizeup.accuracy/1"


def accuracy(request: AccuracyRequest) -> AccuracyReport:
    """Judge the estimates."""
    by = tuple(field.strip() for field in request.by.split(",") if field.strip())
    unknown = [field for field in by if field not in FIELDS]
    if unknown or not by:
        raise BadInput(f"can't group by {request.by!r}", hint=f"fields are {', '.join(FIELDS)}")
    rows, models = ([], {}) if request.mine else shipped()
    if default_path().exists():
        with Ledger() as ledger:
            rows, models = [*rows, *ledger.rows()], models | ledger.models()
    judged = judge(rows, models)
    held = () if request.mine else speed_comparisons()
    path = _draw(request.picture, picture((*judged.comparisons, *held))) if request.picture else None
    return AccuracyReport(
        rows=len(rows),
        accuracy=summarize(judged.comparisons, by),
        coverage=coverage(judged.comparisons),
        skipped=judged.skipped,
        ranges=range_coverage(rows, models),
        published=published_steps(rows, models),
        loads=published_loads(rows, models),
        speed=summarize(held, ("evidence", "engine", "component")),
        named=request.published,
        picture=path,
    )


def _draw(path: str, svg: str) -> str:
    try:
        Path(path).expanduser().write_text(svg, encoding="utf-8")
    except OSError as error:
        raise SizeupError(f"can't write {path}: {error.strerror}", hint="give another file to --picture") from error
    return path
