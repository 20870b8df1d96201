"""Advice for people: the machine in a line, then the picks, best quality first, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator

from sizeup.advice.search import Pick
from sizeup.cli import text
from sizeup.cli.explain import term_lines
from sizeup.operations.advise import Advice
from sizeup.quantity.units import GB, format_bytes, format_count, format_rate, format_tokens


def render(advice: Advice, *, explain: bool) -> list[str]:
    """The machine, the picks as a table, why each is there, what to do next."""
    needs = advice.needs
    wanted = f"{format_tokens(needs.context)} context, at least {needs.min_speed:g} tokens/s"
    wanted += f", {needs.users} users" if needs.users > 1 else ""
    wanted += f", {needs.licence} licence" if needs.licence != "any" else ""
    wanted += f", {needs.language}" if needs.language else ""
    lines = [*_machine(advice), "", text.heading(f"Models for {needs.task} that run well here", wanted), ""]
    lines += (
        _picks(advice.picks)
        if advice.picks
        else [f"{text.bad('none')}: nothing of the catalogue fits and is fast enough"]
    )
    lines += ["", *_left_out(advice, explain=explain)]
    if explain:
        for pick in advice.picks:
            lines += ["", text.heading(pick.model, pick.plan.format), *term_lines(pick.plan.footprint.term)]
            lines += [*text.wrap(f"quality: {pick.quality.evidence}: {pick.because}", "  ")]
            lines += [*text.wrap(f"{pick.plan.format}: {pick.plan.loss.evidence}: {pick.plan.loss.because}", "  ")]
    if advice.picks:
        first = advice.picks[0].model
        lines.append(text.dim(f"next: sizeup fit {first}   sizeup show {first}   sizeup advise --help"))
    return lines


def _machine(advice: Advice) -> Iterator[str]:
    for device, usable in zip(advice.machine.machine.devices, advice.machine.usable, strict=True):
        bandwidth = f", {device.bandwidth / GB:,.0f} GB/s" if device.bandwidth else ""
        memory = f"{format_bytes(usable.bytes)} usable of {format_bytes(device.memory_bytes)}"
        yield f"{text.bold(device.name)}  {memory}{bandwidth}"


def _picks(picks: tuple[Pick, ...]) -> list[str]:
    rows = []
    for number, pick in enumerate(picks, 1):
        speed = pick.plan.speed.decode_tokens_per_s
        rows.append((
            f"{number}",
            text.bold(pick.model.rpartition("/")[2]),
            pick.plan.format,
            format_bytes(pick.plan.footprint.total_bytes),
            format_rate(speed.value) if speed else "?",
            f"{pick.quality.low:.0f}–{pick.quality.high:.0f}",
            pick.plan.placement,
        ))  # fmt: skip
    header = ("", "model", "format", "memory", "tokens/s", "quality", "placement")
    lines = text.table(rows, header=header, align="><<>>><")
    lines += ["", text.bold("Why")]
    for number, pick in enumerate(picks, 1):
        lines += text.wrap(f"{number} {_reason(pick)}", "  ")
    return lines


def _reason(pick: Pick) -> str:
    size = format_count(pick.parameters)
    if pick.active_parameters < 0.9 * pick.parameters:
        size += f", {format_count(pick.active_parameters)} active"
    title = f"{pick.title}: " if pick.title else ""
    return f"{title}{size}; {pick.licence or 'licence unknown'}; {pick.because}"


def _left_out(advice: Advice, *, explain: bool) -> list[str]:
    total = sum(advice.left_out.values())
    if not total:
        return []
    if not explain:
        return [text.dim(f"{total} models of the catalogue can't serve this need (--explain says why)")]
    rows = sorted(advice.left_out.items(), key=lambda pair: -pair[1])
    return [text.bold("Left out"), *(f"  {number} {reason}" for reason, number in rows)]
