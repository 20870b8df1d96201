"""The ledger's rows for people: what was run, and what it took."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.measure.rows import Row
from sizeup.operations.ledger import LedgerReport
from sizeup.quantity.units import format_bytes

_SHOWN = 40


def render(report: LedgerReport, *, explain: bool) -> list[str]:
    """The newest rows, one line each; all of them when explaining."""
    lines = [text.heading(f"{len(report.rows):,} rows", report.path)]
    rows = report.rows if explain else report.rows[-_SHOWN:]
    header = ("date", "kind", "model", "format", "engine", "machine", "setting", "")
    lines += text.table([_row(kept.row) for kept in rows], header=header)
    if len(rows) < len(report.rows):
        lines.append(text.dim(f"the newest {len(rows)}; --explain shows all"))
    return lines + ([report.done] if report.done else [])


def _row(row: Row) -> tuple[str, ...]:
    setting = " ".join(
        f"{name}={value}" for name, value in row.setting.items() if name in {"context", "ubatch", "parallel"}
    )
    whole = row.amount("total")
    amount = next(iter(row.components.values()), 0) if whole is None else whole
    shown = format_bytes(amount) if row.unit == "bytes" else f"{amount:.3g} {row.unit}"
    return (row.date, row.kind, row.model, row.format, row.engine, row.machine, setting, shown)
