"""The accuracy table of the README, between its markers."""

from __future__ import annotations

from collections.abc import Iterable

from sizeup.errors import BadFile
from sizeup.measure.accuracy import Accuracy, Comparison, summarize

TORCH = "torch"
BEGIN, END = "<!-- accuracy -->", "<!-- /accuracy -->"
_HEAD = (
    "| engine, evidence, component | rows | median error | p95 | largest | never under |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
)


def table(accuracy: Iterable[Accuracy]) -> str:
    """The errors as a Markdown table."""
    rows = [
        f"| {a.name} | {a.count:,} | {percent(a.median)} | {percent(a.p95)} | {percent(a.worst, sign=True)} "
        f"| {a.never_under:.0%} |"
        for a in accuracy
    ]
    return "\n".join((*_HEAD, *rows))


def percent(share: float, *, sign: bool = False) -> str:
    """Two decimals; an exact zero says so."""
    if share == 0:
        return "exact"
    return f"{100 * share:+.2f} %" if sign else f"{100 * share:.2f} %"


def overview(comparisons: Iterable[Comparison], speed: Iterable[Comparison]) -> str:
    """What the README shows: memory of engines, memory of training, speed, one line for each kind of evidence."""
    known = tuple(comparisons)
    engines = summarize([c for c in known if c.engine != TORCH], ("engine", "evidence", "machine_class", "component"))
    training = summarize([c for c in known if c.engine == TORCH], ("engine", "evidence", "component"))
    return table((*engines, *training, *summarize(speed, ("component", "evidence"))))


def between_markers(text: str, content: str) -> str:
    """A document with the part between its markers replaced. Raises BadFile when they aren't there, once, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise BadFile("the document lacks the accuracy markers", hint=f"put {BEGIN} and {END} where the table goes")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{content}\n{END}{rest.split(END)[1]}"
