"""The machine now, for people: bars in a terminal, a line for each sample in a pipe, JSON lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
import msgspec

from sizeup.cli import text
from sizeup.measure.watch.guard import Alarm
from sizeup.measure.watch.sample import Gpu, Holder, Sample, ServerLoad
from sizeup.operations.watch import WatchReport
from sizeup.quantity.units import format_bytes, format_rate

_FULL, _ALMOST = 0.9, 0.75
_NARROW, _MODEL_COLUMNS, _HELD_COLUMNS = 80, 12, 32


def render(report: WatchReport, *, explain: bool) -> list[str]:  # noqa: ARG001  every renderer takes it
    """The sample when there is only one; else how to end, and where the numbers are also to be had."""
    if report.once:
        return view(report.sample, report.alarm, report.predicted_bytes)
    where = f"   metrics at {report.metrics}" if report.metrics else ""
    return [text.dim(f"Ctrl-C ends{where}")]


def follow(report: WatchReport) -> int:
    """Show samples until Ctrl-C."""
    if report.once:
        return report.exit_code
    try:
        if sys.stdout.isatty():
            _live(report)
        else:
            for sample, alarm in report.follow():
                click.echo(line(sample, alarm))
    except KeyboardInterrupt:
        return 0
    return 0


def follow_json(report: WatchReport) -> int:
    """A JSON object for each sample, on a line of its own."""
    try:
        for sample, alarm in report.follow():
            click.echo(msgspec.json.encode({"sample": sample, "alarm": alarm, "schema": report.schema}).decode())
    except KeyboardInterrupt:
        return 0
    return report.exit_code if report.once else 0


def _live(report: WatchReport) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, screen=False) as shown:
        for sample, alarm in report.follow():
            lines = view(sample, alarm, report.predicted_bytes)
            shown.update(Text.from_ansi("\n".join(lines)), refresh=True)


def line(sample: Sample, alarm: Alarm | None) -> str:
    """A sample in one line."""
    parts = [
        sample.at[11:19],
        f"cpu {sample.cpu:.0%}",
        f"memory {format_bytes(sample.memory_used_bytes)} of {format_bytes(sample.memory_total_bytes)}",
        *(f"{gpu.name} {_gpu_words(gpu)}" for gpu in sample.gpus),
        *(f"{server.url} {format_rate(server.tokens_per_s or 0)} tokens/s" for server in sample.servers),
    ]
    if sample.headroom_bytes is not None:
        parts.append(f"headroom {format_bytes(sample.headroom_bytes)}")
    return "  ".join(parts) + (f"  {alarm.words}" if alarm else "")


def view(sample: Sample, alarm: Alarm | None, predicted: int | None) -> list[str]:
    """A sample as a page."""
    lines = [*text.table(list(_machine(sample)))]
    if sample.headroom_bytes is not None and predicted is not None:
        fits = text.good("fits") if sample.headroom_bytes >= 0 else text.bad("does not fit")
        left = format_bytes(abs(sample.headroom_bytes)) + (" left" if sample.headroom_bytes >= 0 else " too much")
        lines.append(f"headroom  {fits}: {left} at the predicted peak of {format_bytes(predicted)}")
    if sample.servers:
        header = ("server", "engine", "model", "tokens/s", "prompt/s", "run", "wait", "KV")
        lines += ["", *text.table([_server(s) for s in sample.servers], header=header, align="<<<>>>>>")]
    held = [_holder(holder) for holder in sample.holders]
    lines += ["", *text.table(held, header=("who holds memory", "process", "memory", "GPU"), align="<>>>")]
    return [*lines, "", text.bad(alarm.words)] if alarm else lines


def _machine(sample: Sample) -> Iterator[tuple[str, ...]]:
    heat = f"{sample.cpu_celsius:.0f} °C" if sample.cpu_celsius is not None else ""
    yield "processors", text.bar(sample.cpu), f"{sample.cpu:.0%}", heat
    memory = f"{format_bytes(sample.memory_used_bytes)} of {format_bytes(sample.memory_total_bytes)}"
    swap = f"{format_bytes(sample.swap_used_bytes)} of swap in use" if sample.swap_used_bytes else ""
    yield "memory", _coloured(sample.memory_share), memory, swap
    for gpu in sample.gpus:
        share = gpu.used_bytes / gpu.total_bytes if gpu.used_bytes is not None and gpu.total_bytes else 0.0
        yield gpu.name, _coloured(share), _gpu_words(gpu), ""


def _coloured(share: float) -> str:
    paint = text.bad if share >= _FULL else text.warn if share >= _ALMOST else text.good
    return paint(text.bar(share))


def _gpu_words(gpu: Gpu) -> str:
    parts = []
    if gpu.used_bytes is not None and gpu.total_bytes:
        parts.append(f"{format_bytes(gpu.used_bytes)} of {format_bytes(gpu.total_bytes)}")
    parts += [f"{gpu.busy:.0%}"] if gpu.busy is not None else []
    parts += [f"{gpu.watts:.0f} W"] if gpu.watts is not None else []
    parts += [f"{gpu.celsius:.0f} °C"] if gpu.celsius is not None else []
    return ", ".join(parts)


def _holder(held: Holder) -> tuple[str, ...]:
    gpu = format_bytes(held.gpu_bytes) if held.gpu_bytes else ""
    return _cut(held.name, text.width() - _HELD_COLUMNS), str(held.pid), format_bytes(held.bytes), gpu


def _short(model: str) -> str:
    """A model's name without the folders of a file, cut where a table of 80 columns has no more room."""
    name = model.rpartition("/")[2] if model.endswith(".gguf") else model
    return _cut(name, _MODEL_COLUMNS + max(0, text.width() - _NARROW))


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _server(server: ServerLoad) -> tuple[str, ...]:
    numbers = (server.tokens_per_s, server.prompt_tokens_per_s)
    counts = (server.running, server.waiting)
    return (
        server.url.removeprefix("http://"),
        server.engine,
        _short(server.model),
        *("?" if n is None else format_rate(n) for n in numbers),
        *("?" if n is None else str(n) for n in counts),
        "?" if server.cache_used is None else f"{server.cache_used:.0%}",
    )
