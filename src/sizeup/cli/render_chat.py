"""A chat in a terminal: a line in, an answer out as it comes."""

from __future__ import annotations

import contextlib

import click

from sizeup.cli import text
from sizeup.errors import SizeupError
from sizeup.operations.chat import ChatReport


def render(report: ChatReport, *, explain: bool) -> list[str]:  # noqa: ARG001  every renderer takes it
    """The answer to a single prompt; else whom one talks to."""
    if report.once:
        return [report.answer]
    return [text.heading(report.model, f"{report.engine} at {report.url}; Ctrl-C stops an answer, Ctrl-D ends")]


def follow(report: ChatReport) -> int:
    """Ask and answer until the input ends."""
    if report.once:
        return 0
    with report:
        while True:
            try:
                line = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                click.echo()
                return 0
            if line:
                _answer(report, line)


def _answer(report: ChatReport, line: str) -> None:
    pieces = report.say(line)
    try:
        for piece in pieces:
            click.echo(piece, nl=False)
    except KeyboardInterrupt:
        with contextlib.suppress(SizeupError):
            pieces.close()  # type: ignore[attr-defined]  # a generator
    except SizeupError as error:
        click.echo(f"\nerror: {error.message}", err=True)
    click.echo()
