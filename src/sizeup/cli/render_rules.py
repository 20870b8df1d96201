"""Rules of thumb beside the exact figures, for people."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.estimate.rules import Rule
from sizeup.operations.rules import Rules
from sizeup.quantity.units import format_bytes, format_count, format_tokens


def render(result: Rules, *, explain: bool) -> list[str]:
    """A table of rules; what each misses comes below it, with its formula when explaining."""
    lines = [text.heading(f"Rules of thumb for {result.model}", f"cache at {format_tokens(result.context)} tokens"), ""]
    rows = [(r.name, _amount(r, r.value), _amount(r, r.exact), _error(r)) for r in result.rules]
    lines += text.table(rows, header=("rule", "it says", "exact", "error"), align="<>>>")
    lines += ["", text.bold("What they miss")]
    for rule in result.rules:
        lines += text.wrap(f"{rule.name}: {rule.misses}", "  ")
        if explain:
            lines.append(text.dim(f"    {rule.formula} = {rule.value:,} {rule.unit}; exact {rule.exact:,}"))
    return lines


def _amount(rule: Rule, value: int) -> str:
    return format_bytes(value) if rule.unit == "bytes" else format_count(value)


def _error(rule: Rule) -> str:
    if rule.error is None:
        return "nothing to compare"
    if rule.error > 1:
        shown = f"{rule.error + 1:.3g}× too much"
    else:
        shown = f"{rule.error:+.0%}" if abs(rule.error) >= 0.01 else f"{rule.error:+.1%}"
    return (
        text.good(shown) if abs(rule.error) < 0.05 else text.warn(shown) if abs(rule.error) < 0.3 else text.bad(shown)
    )
