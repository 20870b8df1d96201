"""Machines that do it, for people: price, power, speed, memory."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.operations.hardware import HardwareReport
from sizeup.quantity.units import format_bytes, format_rate, format_tokens


def render(report: HardwareReport, *, explain: bool) -> list[str]:
    """The machines as a table, cheapest first; the cheapest and the lowest-power one named."""
    wanted = report.wanted
    asked = (
        f"{wanted.speed:g} tokens/s for {wanted.users} with {format_tokens(wanted.context)} context, {wanted.format}"
    )
    lines = [text.heading(report.model, asked), ""]
    if not report.machines:
        return [*lines, text.bad(f"None of {report.looked_at} machines does it.")]
    rows = [
        (m.machine, f"${m.price_usd:,}", "?" if m.watts is None else f"{m.watts} W", format_rate(m.tokens_per_s),
         format_rate(m.low_tokens_per_s), format_bytes(m.memory_bytes), m.plan.fits.verdict)
        for m in report.machines
    ]  # fmt: skip
    header = ("machine", "price", "power", "tokens/s", "at least", "memory", "fits")
    lines += text.table(rows, header=header, align="<>>>>>")
    least = min((m for m in report.machines if m.watts is not None), key=lambda m: m.watts or 0, default=None)
    lines += ["", f"cheapest       {report.machines[0].machine}"]
    if least is not None:
        lines.append(f"lowest power   {least.machine}")
    if explain:
        lines += ["", text.dim(f"{report.looked_at} machines looked at; those that a cheaper, cooler, faster one beats "
                               "are left out; prices at launch without tax")]  # fmt: skip
    return lines
