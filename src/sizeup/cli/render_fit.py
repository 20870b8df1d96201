"""Whether a model fits, for people: a grid of formats and contexts, the best plan with its memory, its command."""

from __future__ import annotations

from collections.abc import Iterator

from sizeup.advice.plans import Plan
from sizeup.advice.speculation import Speculation
from sizeup.advice.speeds import Speed
from sizeup.cli import text
from sizeup.cli.explain import term_lines
from sizeup.cli.memory_table import memory_table
from sizeup.operations.fit import FitReport
from sizeup.quantity import Interval
from sizeup.quantity.units import format_bytes, format_rate, format_tokens

_MARKS = {"yes": "✓", "tight": "~", "no": "✗"}
_COLOURS = {"yes": text.good, "tight": text.warn, "no": text.bad}
_COMPONENTS = ("weights", "cache", "compute", "overhead")


def render(report: FitReport, *, explain: bool) -> list[str]:
    """The answer first; then the grid, the best plan, its command; notes last."""
    best = report.best
    answer = text.good("fits") if report.fits else text.bad("does not fit")
    lines = [f"{text.bold(report.model)} {text.bold(answer)} on {report.machine}", ""]
    if len(report.plans) > 1:
        lines += [*_grid(report), ""]
    lines += _best(report, best)
    if report.speculation:
        lines += _speculation(report.speculation)
    if report.simulation:
        lines += [
            "",
            *memory_table(f"{report.simulation.engine} {report.simulation.version}", report.simulation.buffers),
        ]
    if explain:
        lines += ["", text.bold("Every byte of it"), *term_lines(best.footprint.term)]
        lines += text.wrap(f"quality: {best.format}: {best.loss.evidence}: {best.loss.because}")
    if not report.fits:
        lines += ["", text.bold("What would make it fit"), *(f"  {remedy}" for remedy in report.remedies)]
    return lines + [line for note in report.notes for line in text.wrap(f"note: {note}")]


def _grid(report: FitReport) -> Iterator[str]:
    """Formats down, contexts across: a mark, tokens/s, headroom."""
    cells = {(plan.format, plan.context): plan for plan in report.plans}
    sizes = {plan.format: plan for plan in report.plans}
    contexts = sorted({plan.context for plan in report.plans})
    formats = sorted(sizes, key=lambda name: -sizes[name].footprint.component("weights"))
    header = ("format", "weights", *(format_tokens(c) for c in contexts))
    rows = [
        (name, format_bytes(sizes[name].footprint.component("weights")), *(_cell(cells[name, c]) for c in contexts))
        for name in formats
    ]
    yield from text.table(rows, header=header, align="<>" + "<" * len(contexts))
    yield text.dim(
        "✓ fits  ~ tight  ✗ doesn't  ᶜ not all on GPU; tokens/s of one sequence, memory to spare on the tightest device"
    )


def _cell(plan: Plan) -> str:
    mark = _COLOURS[plan.fits.verdict](_MARKS[plan.fits.verdict])
    if plan.fits.verdict == "no":
        return f"{mark} {text.dim(f'-{format_bytes(-plan.fits.headroom_bytes)}')}"
    speed = plan.speed.decode_tokens_per_s
    shown = f"{format_rate(speed.value)}/s" if speed else "?"
    off_gpu = len(plan.footprint.devices) > 1 and ("CPU" in plan.placement or " of " in plan.placement)
    where = text.dim("ᶜ") if off_gpu else ""
    return f"{mark} {shown}{where} {text.dim(f'+{format_bytes(max(0, plan.fits.headroom_bytes))}')}"


def speed_words(interval: Interval | None, because: str) -> str:
    """`31 tokens/s (21 to 44)`, or why it is unknown."""
    if interval is None:
        return f"unknown: {because}"
    return f"{format_rate(interval.value)} tokens/s ({format_rate(interval.low)} to {format_rate(interval.high)})"


def _waiting(speed: Speed) -> Iterator[str]:
    """Prompts and what bounds a token."""
    if speed.prefill_tokens_per_s is None or speed.ceiling_share is None:
        return
    prompt, first = speed.prefill_tokens_per_s, speed.first_token_seconds or 0.0
    reach = f"{prompt.low:,.0f} to {prompt.high:,.0f}"
    yield f"prompt   {prompt.value:,.0f} tokens/s ({reach}), first token after {first:.2g} s"
    yield f"bound    by {speed.bound}, {speed.ceiling_share:.0%} of what the memory's bandwidth allows"


def _speculation(found: Speculation) -> Iterator[str]:
    """What speculative decoding gives."""
    small = f" by {found.draft}, {format_bytes(found.draft_bytes)} more" if found.draft else ""
    yield (
        f"ahead    {format_rate(found.tokens_per_s.value)} tokens/s ({found.speedup:.2g} times as fast) with "
        f"{found.proposed} tokens proposed{small}, {found.accepted:.2g} accepted a pass"
    )


def _best(report: FitReport, best: Plan) -> Iterator[str]:
    title = "Best plan" if report.fits else "Nearest miss"
    yield text.heading(f"{title}: {best.format}, {format_tokens(best.context)} context", best.placement)
    rows = []
    for device in best.footprint.devices:
        parts = {c: sum(i.bytes for i in device.items if i.component == c) for c in _COMPONENTS}
        budget = device.budget_bytes
        share = text.bar(device.total_bytes / budget, 12) if budget else ""
        rows.append(
            (device.device, *(format_bytes(parts[c]) if parts[c] else "-" for c in _COMPONENTS),
             text.bold(format_bytes(device.total_bytes)), format_bytes(budget), share)
        )  # fmt: skip
    yield from text.table(rows, header=("device", *_COMPONENTS, "total", "usable", ""), align="<>>>>>>")
    yield f"speed    {speed_words(best.speed.decode_tokens_per_s, best.speed.because)}"
    yield text.dim(f"         {best.speed.because}")
    yield from _waiting(best.speed)
    yield f"sure     {best.fits.probability:.0%} that it fits"
    if report.largest_context:
        yield f"context  up to {report.largest_context:,} tokens fit in {best.format}"
    if report.fits:
        yield f"start    {text.bold(best.command)}"
