"""What was measured, for people: speeds beside the prediction, waiting times, memory, what changed."""

from __future__ import annotations

from collections.abc import Iterator

from sizeup.cli import text
from sizeup.cli.memory_table import memory_table
from sizeup.measure.bench.memory_report import MemoryReport
from sizeup.measure.bench.results import CellResult
from sizeup.measure.bench.statistics import Percentiles
from sizeup.operations.bench import BenchReport
from sizeup.quantity import Interval
from sizeup.quantity.units import format_bytes, format_rate


def render(report: BenchReport, *, explain: bool) -> list[str]:
    """The heading; speeds, waits, memory; changes; notes."""
    what = " ".join(filter(None, (report.model, report.format)))
    weights = {"random": "random weights", "served": "", "file": ""}[report.weights]
    place = ", ".join(filter(None, (f"{report.engine} {report.version}".strip(), report.how, report.machine, weights)))
    lines = [text.heading(what, place), ""]
    if report.results:
        lines += [*_speeds(report.results), "", *_waits(report.results), "", *_held(report.results)]
    if report.memory:
        lines += _memory(report.memory)
    if report.changes:
        lines += ["", *_changes(report)]
    if explain:
        lines += ["", *_reasons(report.results)]
    lines += [""] + ([f"{report.kept} rows kept in the ledger"] if report.kept else [])
    lines += [f"report  {report.html}"] if report.html else []
    return lines + [line for note in report.notes for line in text.wrap(f"note: {note}")]


def _speeds(results: tuple[CellResult, ...]) -> Iterator[str]:
    rows = []
    for result in results:
        expected, decode = result.predicted.decode, result.decode
        rows.append((
            result.cell.words,
            format_rate(result.prefill.value),
            _expected(result.predicted.prefill),
            text.bold(format_rate(decode.value)) if decode else "-",
            _expected(expected),
            _share(result.share_of_ceiling),
            format_rate(result.throughput.value),
            _share(result.disagreement, digits=1),
            text.warn(result.noisy),
        ))  # fmt: skip
    header = (
        "prompt + generated", "reads/s", "predicted", "writes/s", "predicted", "of ceiling", "together/s",
        "off its clock", ""
    )  # fmt: skip
    yield from text.table(rows, header=header, align="<>>>>>>>")
    yield text.dim("tokens per second, medians; the engine's clock is what it says of the same requests itself")


def _expected(interval: Interval | None) -> str:
    if interval is None:
        return "unknown"
    return f"{format_rate(interval.value)} ({format_rate(interval.low)}-{format_rate(interval.high)})"


def _share(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}%}"


def _waits(results: tuple[CellResult, ...]) -> Iterator[str]:
    rows = [(r.cell.words, *_times(r.first), *_times(r.between)) for r in results]
    header = ("waiting, in ms", "first token", "p95", "p99", "between tokens", "p95", "p99")
    yield from text.table(rows, header=header, align="<>>>>>>")


def _times(times: Percentiles | None) -> tuple[str, str, str]:
    if times is None:
        return "-", "-", "-"
    return f"{times.p50 * 1e3:,.1f}", f"{times.p95 * 1e3:,.1f}", f"{times.p99 * 1e3:,.1f}"


def _held(results: tuple[CellResult, ...]) -> Iterator[str]:
    most = max(results, key=lambda r: r.usage.resident or 0).usage
    if most.resident is None and most.gpu is None:
        yield "memory  unknown: the server's process isn't to be seen from here"
        return
    parts = [f"{format_bytes(most.resident)} resident"] if most.resident is not None else []
    parts += [f"{format_bytes(most.anonymous)} of its own"] if most.anonymous is not None else []
    parts += [f"{format_bytes(most.mapped)} of files"] if most.mapped is not None else []
    parts += [f"{format_bytes(most.gpu)} on GPUs"] if most.gpu is not None else []
    yield f"memory  {', '.join(parts)}"
    watts = [f"{w:.0f} W {who}" for w, who in ((most.gpu_watts, "GPU"), (most.cpu_watts, "CPU")) if w]
    if watts:
        yield f"power   {', '.join(watts)}"


def _memory(memory: MemoryReport) -> Iterator[str]:
    yield from memory_table("buffers", memory.buffers)
    if memory.process:
        yield ""
        yield from memory_table("process", memory.process)


def _changes(report: BenchReport) -> Iterator[str]:
    first = report.changes[0]
    yield text.heading(f"Beside {first.model}", f"{first.date}, {first.engine} {first.version}".strip())
    rows = [(c.cell.words, c.component, format_rate(c.then), format_rate(c.now), c.words) for c in report.changes]
    yield from text.table(rows, header=("prompt + generated", "", "then", "now", ""), align="<<>>")


def _reasons(results: tuple[CellResult, ...]) -> Iterator[str]:
    for result in results:
        ceiling = f"; ceiling {result.predicted.ceiling:.4g} tokens/s" if result.predicted.ceiling else ""
        because = result.predicted.because or "no prediction for a server that is only attached to"
        yield f"{result.cell.words}: {because}{ceiling}"
