"""Errors of the estimates, for people."""

from __future__ import annotations

from collections.abc import Iterator

from sizeup.cli import text
from sizeup.measure.accuracy import Accuracy
from sizeup.measure.published_loads import PublishedLoad
from sizeup.measure.training_accuracy import PublishedStep
from sizeup.operations.accuracy import AccuracyReport
from sizeup.quantity.units import GIB, MIB


def render(report: AccuracyReport, *, explain: bool) -> list[str]:
    """One line for each group; how often the intervals held; what could not be compared."""
    lines = [text.heading(f"Errors of the estimates over {report.rows:,} rows", "of simulations and measurements"), ""]
    header = ("", "compared", "median", "p95", "worst", "lowest", "never under", "within 10 % or 16 MiB")
    lines += text.table([_row(a) for a in report.accuracy], header=header, align="<>>>>>>>")
    if report.speed:
        lines += ["", text.heading("Speed", "tokens/s of devices (vLLM: models) that a fit had not seen")]
        header = ("", "compared", "median", "p95", "worst", "lowest", "never under", "within 10 %")
        lines += text.table([_row(a) for a in report.speed], header=header, align="<>>>>>>>")
    if report.coverage:
        lines += ["", text.bold("Intervals: how often a 90 % interval held a row of a family it had not seen")]
        rows = [(c.component, f"{c.rows:,}", f"{c.share:.0%}") for c in report.coverage]
        lines += [f"  {line}" for line in text.table(rows, align="<>>")]
    if report.ranges:
        lines += ["", text.bold("Training: how often the range stated for a process held the figure")]
        rows = [(c.component, f"{c.rows:,}", f"{c.share:.0%}") for c in report.ranges]
        lines += [f"  {line}" for line in text.table(rows, align="<>>")]
    lines += _published(report, explain=explain)
    lines += _loads(report) if report.named else ()
    if report.skipped:
        lines.append(text.dim(f"{len(report.skipped)} rows could not be compared (--explain names them)"))
    if explain:
        lines += [f"  {skipped.model}: {skipped.reason}" for skipped in report.skipped]
    if report.picture:
        lines.append(f"picture: {report.picture}")
    return lines


def _published(report: AccuracyReport, *, explain: bool) -> Iterator[str]:
    """Published steps, each with its figure and what is estimated; explain: why it differs, and where it stands."""
    if not report.published:
        return
    yield ""
    if not report.named:
        count = len(report.published) + len({load.run for load in report.loads})
        yield text.dim(f"{count} published training steps and loads are among them (--published names each)")
        return
    yield text.heading("Training steps that others published", "GiB; ~ the nearest that is estimated stands in")
    rows = [_step(step) for step in report.published]
    header = ("", "", "figure", "is", "peak", "range", "error", "in range")
    yield from text.table(rows, header=header, align="<<><>>><")
    if explain:
        notes = {step.note: step.run for step in report.published if step.note}
        for note, run in notes.items():
            yield from text.wrap(f"{run}: {note}")


def _loads(report: AccuracyReport) -> Iterator[str]:
    """Published loads of llama.cpp, buffer by buffer, and why today's differ."""
    if not report.loads:
        return
    yield ""
    yield text.heading("Loads of llama.cpp that others published", "MiB")
    header = ("", "buffer", "figure", "estimate", "error")
    yield from text.table([_load(load) for load in report.loads], header=header, align="<<>>>")
    for note, run in {load.note: load.run for load in report.loads if load.note}.items():
        yield from text.wrap(f"{run}: {note}")


def _load(load: PublishedLoad) -> tuple[str, ...]:
    estimated = "" if load.estimated is None else f"{load.estimated / MIB:,.2f}"
    error = "not said enough" if load.error is None else _percent(load.error, sign=True)
    return (load.run, load.component, f"{load.known / MIB:,.2f}", estimated, error)


def _step(step: PublishedStep) -> tuple[str, ...]:
    return (
        step.run, "~" if step.nearest else "", f"{step.known / GIB:.2f}", step.component, f"{step.peak / GIB:.2f}",
        "" if step.low == step.high else f"{step.low / GIB:.1f} to {step.high / GIB:.1f}",
        _percent(step.error, sign=True), "" if step.low == step.high else "yes" if step.inside else "no",
    )  # fmt: skip


def _row(a: Accuracy) -> tuple[str, ...]:
    return (
        a.name, f"{a.count:,}", _percent(a.median), _percent(a.p95), _percent(a.worst, sign=True),
        _percent(a.lowest, sign=True), f"{a.never_under:.0%}", f"{a.close:.0%}",
    )  # fmt: skip


def _percent(share: float, *, sign: bool = False) -> str:
    if share == 0:
        return "exact"
    return f"{100 * share:+.2f} %" if sign else f"{100 * share:.2f} %"
