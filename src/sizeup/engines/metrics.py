"""The Prometheus text format, as far as servers of models use it (exposition format 0.0.4)."""

from __future__ import annotations


def totals(text: str) -> dict[str, float]:
    """Metric → the sum over its labels. Lines that aren't samples are skipped."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        name = line.partition("{")[0].partition(" ")[0]
        fields = line.rpartition("}")[2].split() if "{" in line else line.split()[1:]
        try:
            found[name] = found.get(name, 0.0) + float(fields[0])
        except (ValueError, IndexError):
            continue
    return found


def whole(amounts: dict[str, float], *names: str) -> int | None:
    """The first of these metrics that is there, as a count."""
    value = next((amounts[name] for name in names if name in amounts), None)
    return None if value is None or value != value else int(value)  # noqa: PLR0124  NaN
