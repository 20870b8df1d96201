"""A server that was started, for people: its address first; then it is waited for."""

from __future__ import annotations

import click

from sizeup.cli import text
from sizeup.operations.run import RunReport
from sizeup.quantity.units import format_bytes, format_tokens


def render(report: RunReport, *, explain: bool) -> list[str]:
    """The address, what runs there, and how to end it."""
    plan = report.plan
    lines = [
        f"{text.bold(report.url)}  {text.good('ready')}",
        f"model   {report.model}, {plan.format}, {format_tokens(plan.context)} tokens of context, {plan.placement}",
        f"engine  {' '.join(filter(None, (report.engine, report.version)))} ({report.how}), process {report.pid}",
        f"memory  {format_bytes(plan.footprint.total_bytes)} expected, {plan.fits.probability:.0%} sure that it fits",
    ]
    if explain:
        lines.append(f"plan    {plan.command}")
    return [*lines, text.dim(f"chat: sizeup chat {report.url}   end: Ctrl-C")]


def follow(report: RunReport) -> int:
    """Wait for Ctrl-C, SIGTERM or the server's own end, and leave nothing of it."""
    try:
        status = report.wait()
        click.echo(f"error: the server ended with status {status}: {report.last_words()[-300:]}", err=True)
    except KeyboardInterrupt:
        status = 0
        click.echo("stopped", err=True)
    finally:
        report.stop()
    return 1 if status else 0
