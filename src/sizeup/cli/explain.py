"""A tree of terms for people: amount, name, and how it came about."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.quantity import Term
from sizeup.quantity.units import format_bytes


def amount(term: Term) -> str:
    """The value of a term in its unit; `unknown` for an unknown leaf."""
    try:
        value = term.value
    except ValueError:
        return "unknown"
    return (
        format_bytes(value) if term.unit == "bytes" else f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"
    )


def term_lines(term: Term, *, depth: int | None = None) -> list[str]:
    """One line for each term down to a depth, with its formula and source."""
    walked = [(level, part) for level, part in term.walk() if depth is None or level <= depth]
    prefixes = text.branches([level for level, _ in walked])
    amounts = [amount(part) for _, part in walked]
    column = max(len(a) for a in amounts)
    return [
        f"{shown:>{column}}  {prefix}{part.name}{_because(part)}"
        for (_, part), prefix, shown in zip(walked, prefixes, amounts, strict=True)
    ]


def _because(term: Term) -> str:
    reasons = [reason for reason in (term.formula, term.source and f"[{term.source}]") if reason]
    return text.dim("  " + " ".join(reasons)) if reasons else ""
