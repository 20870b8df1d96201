"""The accuracy of the estimates as a picture: one line for each group, a mark for each error. SVG, written by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from sizeup.measure.accuracy import Comparison

_LABEL, _PLOT, _ROW, _TOP, _RIGHT = 250, 430, 22, 34, 70
_TICKS = (-0.5, -0.1, -0.02, 0.0, 0.02, 0.1, 0.5)
_FONT = 'font-family="sans-serif" font-size="11"'
_LIGHT = "text{fill:#444}.g{stroke:#ccc}.z{stroke:#666}.m{fill:#2563eb;fill-opacity:.35}"
_DARK = "text{fill:#ccc}.g{stroke:#444}.z{stroke:#999}.m{fill:#60a5fa}"
#: Errors below this size lie on a straight scale, larger ones on a logarithmic one.
_LINEAR = 0.005


def picture(comparisons: Iterable[Comparison], by: Sequence[str] = ("engine", "component", "evidence")) -> str:
    """An SVG of all errors, grouped: over to the right, under to the left, symmetric logarithmic scale."""
    groups: dict[str, list[float]] = {}
    for comparison in comparisons:
        name = " · ".join(getattr(comparison, field) for field in by)
        groups.setdefault(name, []).append(comparison.error)
    width, height = _LABEL + _PLOT + _RIGHT, _TOP + _ROW * len(groups) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" {_FONT}>',
        "<title>Error of sizeup's estimates against its ledger</title>",
        f"<style>{_LIGHT}@media(prefers-color-scheme:dark){{{_DARK}}}</style>",
        *_grid(height),
    ]
    for place, name in enumerate(sorted(groups)):
        lines += _row(name, groups[name], _TOP + _ROW * place + _ROW // 2)
    return "\n".join([*lines, "</svg>", ""])


def _grid(height: int) -> list[str]:
    lines = []
    for tick in _TICKS:
        x = _x(tick)
        kind = "g" if tick else "z"
        lines.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 8}" y2="{height - 4}"/>')
        lines.append(f'<text x="{x:.1f}" y="{_TOP - 14}" text-anchor="middle">{100 * tick:+.0f} %</text>')
    return lines


def _row(name: str, errors: list[float], y: int) -> list[str]:
    """A group's label, its count, and one mark for each distinct place."""
    places = sorted({round(_x(error), 1) for error in errors})
    return [
        f'<text x="{_LABEL - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>',
        *(f'<circle class="m" cx="{x}" cy="{y}" r="3.5"/>' for x in places),
        f'<text x="{_LABEL + _PLOT + 12}" y="{y + 4}">{len(errors):,}</text>',
    ]


def _x(error: float) -> float:
    """The place of an error; what is beyond the scale stands at its end."""
    limit = max(_TICKS)
    size = min(abs(error), limit)
    scaled = math.asinh(size / _LINEAR) / math.asinh(limit / _LINEAR)
    return _LABEL + _PLOT / 2 * (1 + math.copysign(scaled, error))
