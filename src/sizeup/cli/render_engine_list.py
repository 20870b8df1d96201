"""The engines that are here, for people."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.operations.engine_list import EngineListReport


def render(report: EngineListReport, *, explain: bool) -> list[str]:  # noqa: ARG001  every renderer takes it
    """What was found, then what wasn't."""
    rows = [(text.bold(f.engine), f.how, f.version, text.dim(f.url or f.path)) for f in report.found]
    lines = text.table(rows) or ["no engine found"]
    if "llama.cpp" in report.missing:
        lines += ["", "sizeup engine install llama.cpp  installs one into an environment of its own"]
    return [*lines, text.dim(f"not found: {', '.join(report.missing)}")] if report.missing else lines
