"""Memory by rank of evidence, as a table."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.measure.bench.memory_report import Bytes
from sizeup.quantity.units import format_bytes


def memory_table(name: str, parts: tuple[Bytes, ...]) -> list[str]:
    """Parts of memory by rank of evidence."""
    rows = [
        (
            part.part,
            _bytes(part.estimated),
            _bytes(part.simulated),
            _bytes(part.measured),
            "-" if part.error is None else f"{part.error:+.2%}",
        )
        for part in parts
    ]
    return text.table(rows, header=(name, "estimated", "simulated", "measured", "error"), align="<>>>>")


def _bytes(amount: int | None) -> str:
    return "-" if amount is None else format_bytes(amount)
