"""A training run by the scaling laws, for people."""

from __future__ import annotations

from collections.abc import Iterator

from sizeup.cli import text
from sizeup.operations.scale import ScaleReport
from sizeup.quantity import Interval
from sizeup.quantity.units import format_count


def render(report: ScaleReport, *, explain: bool) -> list[str]:
    """The run, the losses by law, time and money; the claims and sources when explaining."""
    lines = [
        text.heading(
            f"{format_count(report.parameters)} parameters, {format_count(report.tokens)} tokens",
            f"{report.tokens_per_parameter:,.1f} tokens a parameter",
        ),
        "",
        f"compute   {report.flops:.3g} FLOPs (6 · N · D)",
        (
            f"optimal   {format_count(report.optimal_parameters)} parameters on "
            f"{format_count(report.optimal_tokens)} tokens for this compute"
        ),
        "",
    ]  # fmt: skip
    rows = [(loss.law, f"{loss.loss:.3f}", "" if loss.holds else "extrapolated") for loss in report.losses]
    lines += text.table(rows, header=("law", "loss", ""), align="<>")
    lines += _time(report)
    if explain:
        lines += ["", text.bold("Common claims"), *(f"  {c.claim}: {c.answer}" for c in report.claims)]
        lines += ["", text.bold("Sources"), *sorted({f"  {loss.law}: {loss.source}" for loss in report.losses})]
    return lines


def _time(report: ScaleReport) -> Iterator[str]:
    if report.gpu_hours is None or report.days is None or report.energy_kwh is None:
        return
    assert report.usd is not None  # noqa: S101  comes with the hours
    assert report.mfu is not None  # noqa: S101  as above
    yield ""
    yield text.heading(report.machine, f"at {report.mfu.low:.0%} to {report.mfu.high:.0%} of the peak")
    yield f"time      {_words(report.days)} days, {_words(report.gpu_hours)} GPU-hours"
    yield f"energy    {_words(report.energy_kwh)} kWh"
    yield f"money     ${_words(report.usd)}"


def _words(interval: Interval) -> str:
    return f"{interval.value:,.4g} ({interval.low:,.3g} to {interval.high:,.3g})"
