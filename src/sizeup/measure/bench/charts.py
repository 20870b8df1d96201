"""Charts as SVG, drawn by hand: bars with ranges, and lines with points. No script, no font, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import msgspec

_WIDTH, _BAR, _GAP, _LABEL, _REMARK = 720, 22, 10, 150, 170
_HEIGHT, _LEFT, _BOTTOM, _TOP = 260, 60, 34, 14


class Bar(msgspec.Struct, frozen=True):
    """One bar. low, high: its range. mark: something to compare with; ranges and marks may be left out."""

    label: str
    value: float
    words: str
    low: float | None = None
    high: float | None = None
    mark: float | None = None


def bars(rows: Sequence[Bar], *, mark: str = "") -> str:
    """Horizontal bars from 0; a thin line shows the range, an upright one the mark."""
    highest = max((max(row.value, row.high or 0, row.mark or 0) for row in rows), default=0) or 1
    scale = (_WIDTH - _LABEL - _REMARK) / highest
    parts = []
    for place, row in enumerate(rows):
        top = place * (_BAR + _GAP)
        middle = top + _BAR / 2
        end = _LABEL + row.value * scale
        parts.append(f'<text x="{_LABEL - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(row.label)}</text>')
        parts.append(
            f'<rect class="bar" x="{_LABEL}" y="{top}" width="{max(1.0, row.value * scale):.1f}" height="{_BAR}"/>'
        )
        if row.low is not None and row.high is not None:
            low, high = _LABEL + row.low * scale, _LABEL + row.high * scale
            parts.append(f'<line class="range" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>')
            end = max(end, high)
        if row.mark is not None:
            x = _LABEL + row.mark * scale
            parts.append(
                f'<line class="mark" x1="{x:.1f}" y1="{top - 3}" x2="{x:.1f}" y2="{top + _BAR + 3}">'
                f"<title>{escape(mark)}</title></line>"
            )
            end = max(end, x)
        parts.append(f'<text x="{end + 8:.1f}" y="{middle + 4:.1f}">{escape(row.words)}</text>')
    height = len(rows) * (_BAR + _GAP)
    return _svg(height, parts)


class Line(msgspec.Struct, frozen=True):
    """One line: its name and its points."""

    name: str
    points: tuple[tuple[float, float], ...]


def lines(drawn: Sequence[Line], *, across: str, up: str) -> str:
    """Lines over the same axes, from 0; each named at its last point."""
    points = [point for line in drawn for point in line.points]
    right = max((x for x, _ in points), default=0) or 1
    top = max((y for _, y in points), default=0) or 1
    wide, tall = _WIDTH - _LEFT - 120, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x / right * wide, _TOP + tall - y / top * tall

    base = _TOP + tall
    parts = [f'<path class="axis" d="M{_LEFT} {_TOP}V{base}H{_LEFT + wide}"/>']
    parts += [
        f'<text x="{_LEFT - 6}" y="{at(0, v)[1] + 4:.1f}" text-anchor="end">{v:.3g}</text>' for v in (0, top / 2, top)
    ]
    ticks = sorted({x for x, _ in points})
    parts += [f'<text x="{at(x, 0)[0]:.1f}" y="{base + 16}" text-anchor="middle">{x:,.0f}</text>' for x in ticks[:12]]
    parts.append(f'<text x="{_LEFT + wide}" y="{base + 31}" text-anchor="end" class="dim">{escape(across)}</text>')
    parts.append(f'<text x="{_LEFT + 8}" y="{_TOP + 4}" class="dim">{escape(up)}</text>')
    for number, line in enumerate(drawn):
        places = [at(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line l{number % 4}" points="{path}"/>')
        parts += [f'<circle class="l{number % 4}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places]
        if places:
            x, y = places[-1]
            parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(line.name)}</text>')
    return _svg(_HEIGHT, parts)


def _svg(height: float, parts: Sequence[str]) -> str:
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {height}" width="100%" role="img" xmlns="http://www.w3.org/2000/svg">{inside}</svg>'
