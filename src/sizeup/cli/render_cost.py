"""Costs for people: here, then hosted, then what else counts."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.operations.cost import Comparison, CostReport
from sizeup.quantity.units import format_count, format_rate


def render(report: CostReport, *, explain: bool) -> list[str]:
    """USD for a million generated tokens here and hosted, with the break-even."""
    local = report.local
    lines = [
        text.heading(
            f"{report.model} on {report.machine}",
            f"{format_rate(report.tokens_per_s)} tokens/s at {report.watts:.0f} W",
        ),
        "",
        f"energy     {local.energy_kwh:.3g} kWh a million tokens, ${format_rate(local.energy_usd)}",
        f"hardware   ${format_rate(local.hardware_usd)} a million at {format_count(report.tokens_per_day)} tokens a day"
        + (f" (${report.hardware_usd:,.0f})" if report.hardware_usd is not None else " (no price known)"),
        f"together   {text.bold(f'${format_rate(report.local_usd_per_million)}')} a million generated tokens",
        "",
    ]
    shown = report.hosted if explain else report.hosted[:8]
    rows = [
        (
            f"{h.provider} {h.name}",
            f"${format_rate(h.usd_per_million)}",
            _even(h),
            "same model" if h.same_model else "",
            h.date,
        )
        for h in shown
    ]
    lines += text.table(rows, header=("hosted", "a million", "local is cheaper from", "", "price of"), align="<><<")
    lines += [text.dim("hosted prices are lists' of the day beside them; prompts that come along included"), ""]
    lines += [line for item in report.considerations for line in text.wrap(item)]
    if explain:
        lines += ["", *(text.dim(f"{h.provider} {h.name}: {h.source}") for h in shown if h.source)]
    return lines + [line for note in report.notes for line in text.wrap(f"note: {note}")]


def _even(row: Comparison) -> str:
    if row.break_even_tokens_per_day is None:
        return "never: energy alone costs more"
    reach = "" if row.reachable else " (more than it can generate)"
    return f"{format_count(row.break_even_tokens_per_day)} tokens a day{reach}"
