"""Costs for people: here, then hosted, then what else counts."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.operations.cost import Comparison, CostReport
from sizeup.quantity.units import format_count


def render(report: CostReport, *, explain: bool) -> list[str]:
    """USD for a million generated tokens here and hosted, with the break-even."""
    local = report.local
    lines = [
        text.heading(
            f"{report.model} on {report.machine}", f"{report.tokens_per_s:.3g} tokens/s at {report.watts:.0f} W"
        ),
        "",
        f"energy     {local.energy_kwh:.3g} kWh a million tokens, ${local.energy_usd:.3g}",
        f"hardware   ${local.hardware_usd:.3g} a million at {format_count(report.tokens_per_day)} tokens a day"
        + (f" (${report.hardware_usd:,.0f})" if report.hardware_usd is not None else " (no price known)"),
        f"together   {text.bold(f'${report.local_usd_per_million:.3g}')} a million generated tokens",
        "",
    ]
    shown = report.hosted if explain else report.hosted[:8]
    rows = [
        (f"{h.provider} {h.name}", f"${h.usd_per_million:.3g}", _even(h), "same model" if h.same_model else "", h.date)
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
