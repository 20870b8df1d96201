"""Errors of the estimates, for people."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.measure.accuracy import Accuracy
from sizeup.operations.accuracy import AccuracyReport


def render(report: AccuracyReport, *, explain: bool) -> list[str]:
    """One line for each group; how often the intervals held; what could not be compared."""
    lines = [text.heading(f"Errors of the estimates over {report.rows:,} rows", "of simulations and measurements"), ""]
    header = ("", "compared", "median", "p95", "worst", "lowest", "never under", "within 10 % or 16 MiB")
    lines += text.table([_row(a) for a in report.accuracy], header=header, align="<>>>>>>>")
    if report.coverage:
        lines += ["", text.bold("Intervals: how often a 90 % interval held a row of a family it had not seen")]
        rows = [(c.component, f"{c.rows:,}", f"{c.share:.0%}") for c in report.coverage]
        lines += [f"  {line}" for line in text.table(rows, align="<>>")]
    if report.skipped:
        lines.append(text.dim(f"{len(report.skipped)} rows could not be compared (--explain names them)"))
    if explain:
        lines += [f"  {skipped.model}: {skipped.reason}" for skipped in report.skipped]
    if report.picture:
        lines.append(f"picture: {report.picture}")
    return lines


def _row(a: Accuracy) -> tuple[str, ...]:
    return (
        a.name, f"{a.count:,}", _percent(a.median), _percent(a.p95), _percent(a.worst, sign=True),
        _percent(a.lowest, sign=True), f"{a.never_under:.0%}", f"{a.close:.0%}",
    )  # fmt: skip


def _percent(share: float, *, sign: bool = False) -> str:
    if share == 0:
        return "exact"
    return f"{100 * share:+.2f} %" if sign else f"{100 * share:.2f} %"
