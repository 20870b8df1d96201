"""The report as one HTML file with charts: no script, no request to anywhere, readable in the dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from sizeup.measure.bench.charts import Bar, Line, bars, lines
from sizeup.measure.bench.compare import Change
from sizeup.measure.bench.results import CellResult
from sizeup.measure.bench.statistics import Measured
from sizeup.quantity import Interval
from sizeup.quantity.units import format_bytes, format_rate

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --dim: #65758a; --paper: #fff; --bar: #2f6fb5; --mark: #d1622b;
  --l1: #2e8f6a; --l2: #8a4fb0; --l3: #b3862a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ef; --dim: #8fa0b3; --paper: #14191f; --bar: #5b9be0;
  --mark: #ef8a52; --l1: #57c79b; --l2: #bd8ae0; --l3: #e0b65a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
p.dim { color: var(--dim); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .6rem; border-bottom: 1px solid color-mix(in srgb, var(--dim) 30%, transparent);
  text-align: right; }
th { font-weight: 500; color: var(--dim); }
td:first-child, th:first-child { text-align: left; }
svg text { font-size: 12px; fill: var(--ink); }
svg text.dim { fill: var(--dim); }
.bar { fill: var(--bar); }
.range { stroke: var(--ink); stroke-width: 2; }
.mark { stroke: var(--mark); stroke-width: 3; }
.axis { fill: none; stroke: var(--dim); }
.line { fill: none; stroke-width: 2; }
polyline.l0 { stroke: var(--bar); } circle.l0 { fill: var(--bar); }
polyline.l1 { stroke: var(--l1); } circle.l1 { fill: var(--l1); }
polyline.l2 { stroke: var(--l2); } circle.l2 { fill: var(--l2); }
polyline.l3 { stroke: var(--l3); } circle.l3 { fill: var(--l3); }
"""


def page(title: tuple[str, str], results: Sequence[CellResult], changes: Sequence[Change]) -> str:
    """The whole page. title: the heading, and what is under it."""
    body = "\n".join(_body(results, changes))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title[0])}: bench</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f'<body><h1>{escape(title[0])}</h1><p class="dim">{escape(title[1])}</p>\n{body}\n</body></html>\n'
    )


def _body(results: Sequence[CellResult], changes: Sequence[Change]) -> Iterator[str]:
    if not results:
        yield "<p>No setting was finished.</p>"
        return
    alone = [result for result in results if result.cell.concurrency == min(r.cell.concurrency for r in results)]
    yield "<h2>Writing, tokens per second</h2>" + bars(
        [_bar(r.cell.words, r.decode, r.predicted.decode) for r in alone if r.decode], mark="predicted"
    )
    yield '<p class="dim">Thin line: lowest to highest run. Upright line: predicted.</p>'
    yield "<h2>Reading the prompt, tokens per second</h2>" + bars(
        [_bar(r.cell.words, r.prefill, r.predicted.prefill) for r in alone], mark="predicted"
    )
    many = sorted((r for r in results if _swept(r, results)), key=lambda r: r.cell.concurrency)
    if len(many) > 1:
        yield "<h2>Several requests at once</h2>" + lines(
            [
                Line("all together", tuple((float(r.cell.concurrency), r.throughput.value) for r in many)),
                Line("each", tuple((float(r.cell.concurrency), r.decode.value) for r in many if r.decode)),
            ],
            across="requests at once",
            up="tokens per second",
        )
    yield "<h2>Waiting, in milliseconds</h2>" + _table(
        ("prompt + generated", "first token p50", "p95", "p99", "between tokens p50", "p95", "p99"),
        [_waits(result) for result in results],
    )
    yield "<h2>Every figure</h2>" + _table(
        (
            "prompt + generated",
            "reading",
            "writing",
            "predicted",
            "of the ceiling",
            "engine's clock",
            "memory",
            "remark",
        ),
        [_figures(result) for result in results],
    )
    if changes:
        yield f"<h2>Beside {escape(changes[0].model)}, {escape(changes[0].date)}</h2>" + _table(
            ("prompt + generated", "what", "then", "now", "change"),
            [(c.cell.words, c.component, f"{c.then:,.4g}", f"{c.now:,.4g}", c.words) for c in changes],
        )


def _swept(result: CellResult, results: Sequence[CellResult]) -> bool:
    """Whether a result belongs to the sweep over concurrency: the first cell's prompt and depth."""
    first = results[0].cell
    return (result.cell.prompt, result.cell.depth) == (first.prompt, first.depth)


def _bar(label: str, speed: Measured, expected: Interval | None) -> Bar:
    words = f"{format_rate(speed.value)}" + (f" (predicted {format_rate(expected.value)})" if expected else "")
    return Bar(label, speed.value, words, speed.low, speed.high, expected.value if expected else None)


def _waits(result: CellResult) -> tuple[str, ...]:
    cells = [result.cell.words]
    for times in (result.first, result.between):
        cells += [f"{t * 1e3:,.1f}" for t in (times.p50, times.p95, times.p99)] if times else ["", "", ""]
    return tuple(cells)


def _figures(result: CellResult) -> tuple[str, ...]:
    expected, share, clock = result.predicted.decode, result.share_of_ceiling, result.engine_decode
    return (
        result.cell.words,
        f"{format_rate(result.prefill.value)}",
        f"{format_rate(result.decode.value)}" if result.decode else "",
        f"{format_rate(expected.value)}" if expected else "unknown",
        f"{share:.0%}" if share is not None else "unknown",
        f"{format_rate(clock)}" if clock else "none",
        format_bytes(result.usage.resident) if result.usage.resident else "unknown",
        result.noisy,
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
