"""An engine that was installed, for people."""

from __future__ import annotations

from sizeup.cli import text
from sizeup.operations.engine_install import EngineInstallReport


def render(report: EngineInstallReport, *, explain: bool) -> list[str]:  # noqa: ARG001  every renderer takes it
    """What and where."""
    return [f"{text.bold(report.engine)} {text.good('installed')}: {report.package} in {report.seconds:.0f} s",
            text.dim(report.python)]  # fmt: skip
