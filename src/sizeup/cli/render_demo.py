"""The demo model for people: its files, how it was trained, what to try."""

from __future__ import annotations

import shlex
from pathlib import Path

from sizeup.cli import text
from sizeup.operations.demo import DemoReport
from sizeup.quantity.units import format_bytes, format_count


def render(report: DemoReport, *, explain: bool) -> list[str]:  # noqa: ARG001  every renderer takes it
    """Files first, then what to try."""
    lines = [text.heading("The demo model", report.folder)]
    if report.trained:
        done = report.trained
        lines.append(
            f"{format_count(done.parameters)} parameters, {done.tokens / 1e6:.1f} M tokens of {done.files} files in "
            f"{done.steps:,} steps; loss {done.loss:.2f} nats a token on files it hasn't seen"
        )
    rows = [(name, format_bytes(Path(path).stat().st_size), path) for name, path in report.files.items()]
    small, plain = shlex.quote(report.files["Q4_K_M"]), shlex.quote(report.files["F16"])
    tries = (f"sizeup bench {small}", f"sizeup eval {small} --reference {plain} --length 256", f"sizeup run {small}")
    return [*lines, "", *text.table(rows, align="<>"), "", "Try", *(f"  {text.bold(line)}" for line in tries)]
