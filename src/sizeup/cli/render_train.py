"""A training step's memory, for people: the peak, where it comes from, when it is reached, and what would save most."""

from __future__ import annotations

from collections.abc import Iterator

import click

from sizeup.advice.training import TrainAdvice
from sizeup.cli import text
from sizeup.cli.explain import term_lines
from sizeup.estimate.training.footprint import Rank
from sizeup.operations.train_report import Simulated, TrainReport
from sizeup.quantity import Interval
from sizeup.quantity.units import format_bytes


def render(report: TrainReport, *, explain: bool) -> list[str]:
    """The peak first; then components, phases, the process, answers; notes last.

    A configuration that was asked for stands alone on stdout, so that it can be written to a file.
    """
    setting, found = report.setting, report.footprint
    head = f"{setting.method}, {setting.precision}, {setting.optimizer}, {setting.batch} × {setting.sequence:,} tokens"
    sure = f" ± {report.uncertainty:.0%}" if report.uncertainty else ""
    lines = [text.heading(report.model, head), ""]
    lines.append(f"peak     {text.bold(format_bytes(found.peak_bytes))}{sure} at {found.phase}, on {found.worst}")
    process = report.process_bytes
    lines.append(
        f"process  {format_bytes(process.low)} to {format_bytes(process.high)}, likely {format_bytes(process.expected)}"
    )
    lines.append(text.dim(f"         {process.because}"))
    if report.fits is not None:
        verdict = text.good("fits") if report.fits else text.bad("does not fit")
        lines.append(f"device   {verdict} {report.device} ({format_bytes(report.device_bytes)})")
        if report.unfit:
            lines.append(text.dim(f"         {report.unfit}"))
    for rank in found.devices:
        lines += ["", *_rank(rank)]
        if explain:
            lines += ["", text.bold("Every byte of it"), *term_lines(rank.term)]
    if isinstance(report.advice, TrainAdvice):
        lines += ["", *_advice(report.advice)]
    if report.simulated is not None:
        lines += ["", *_simulated(report.simulated)]
    lines += [line for note in report.notes for line in text.wrap(f"note: {note}")]
    if report.configuration:
        click.echo("\n".join(lines), err=True)
        return [report.configuration]
    return lines


def _simulated(made: Simulated) -> Iterator[str]:
    """The worker's figures: the peak, what the caching allocator reserves, the process; kept in the ledger."""
    where = "" if made.kind == "simulate" else f" on {made.device}"
    yield f"{made.kind}d{where}  {format_bytes(made.peak_bytes)}; the estimate is {made.error:+.2%} off"
    if made.reserved_bytes is not None:
        over = made.reserved_bytes / made.peak_bytes - 1
        verb = "would reserve" if made.kind == "simulate" else "reserved"
        yield f"           the caching allocator {verb} {format_bytes(made.reserved_bytes)} ({over:+.1%})"
    if made.process is not None and made.process_bytes is None:
        yield f"           so the process takes {format_bytes(made.process.low)} to {format_bytes(made.process.high)}"
    if made.process_bytes is not None:
        yield f"           the driver booked {format_bytes(made.process_bytes)} for the process"
    if made.resident_bytes is not None:
        yield text.dim(
            f"           every tensor tracked; the process held {format_bytes(made.resident_bytes)} at most, Python "
            "and torch included; a processor's kernels keep other things than a GPU's"
        )
    if made.stand_ins:
        yield text.dim("           packed weights and 8-bit states are stand-ins of the same bytes")
    yield text.dim("           kept in the ledger: sizeup ledger, sizeup accuracy --mine")


def _rank(rank: Rank) -> Iterator[str]:
    """Components with bars, and phases beside the peak."""
    yield text.heading(rank.device, f"{format_bytes(rank.peak_bytes)} at {rank.phase}")
    rows = [
        (
            item.component.replace("_", " "),
            item.name,
            format_bytes(item.bytes),
            text.bar(item.bytes / rank.peak_bytes, 16),
        )
        for item in rank.items
    ]
    yield from text.table(rows, align="<<><")
    if rank.host_bytes:
        yield f"on the host: {format_bytes(rank.host_bytes)}"
    if rank.disk_bytes:
        yield f"on NVMe: {format_bytes(rank.disk_bytes)}"
    yield ""
    phases = [
        (phase.name, format_bytes(phase.peak_bytes), text.bar(phase.peak_bytes / rank.peak_bytes, 16))
        for phase in rank.phases
    ]
    yield from text.table(phases, header=("phase", "peak", ""), align="<><")


def _advice(advice: TrainAdvice) -> Iterator[str]:
    yield text.bold("What fits, and what saves")
    if advice.budget_bytes is not None:
        yield f"largest batch {advice.largest_batch or 'none'}, sequence {advice.largest_sequence or 'none'}" + (
            f", rank {advice.largest_rank}" if advice.largest_rank else ""
        )
    if advice.seconds is not None:
        yield f"a step takes about {_spell(advice.seconds, 's')}"
    if advice.hours is not None:
        yield f"all of it about {_spell(advice.hours, 'hours')}"
    yield text.dim(advice.because)
    if advice.budget_bytes is not None and advice.ways:
        yield ""
        yield text.bold("The quickest ways to fit")
        ways = [(", ".join(way.changes), format_bytes(way.process_bytes), f"× {way.slower:.2f}") for way in advice.ways]
        yield from text.table(ways, header=("changes together", "process", "time"), align="<>>")
    yield ""
    rows = [
        (
            saving.change,
            f"-{format_bytes(saving.saved_bytes)}",
            format_bytes(saving.peak_bytes),
            f"× {saving.slower:.2f}",
            saving.how,
        )
        for saving in advice.savings[:8]
    ]
    yield from text.table(rows, header=("one change", "saves", "peak", "time", "how"), align="<>>><")
    for device in advice.cheapest:
        how = f" with {device.sharding}" if device.sharding else ""
        count = f"{device.count} × " if device.count > 1 else ""
        each = format_bytes(device.memory_bytes)
        yield f"cheapest: {count}{device.name}, {each}, ${device.price_usd:,} at launch{how}"


def _spell(amount: Interval, unit: str) -> str:
    return f"{amount.value:.2g} {unit} ({amount.low:.2g} to {amount.high:.2g})"
