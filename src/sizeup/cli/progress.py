"""Progress on a terminal's standard error: a bar while the amount is known, else words. Nothing when it is piped."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sizeup.progress import listening

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextlib.contextmanager
def shown_progress() -> Iterator[None]:
    """Show what is told inside a `with` block; the bar is gone at its end."""
    if not sys.stderr.isatty():
        yield
        return
    with contextlib.closing(_Bar()) as bar, listening(bar.hear):
        yield


class _Bar:
    """A bar that is made when the first progress is told, so that quick answers don't pay for it."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def hear(self, what: str, done: float, every: float) -> None:
        """Show what is being done."""
        if self._progress is None:
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._progress.start()
            self._task = self._progress.add_task(what, total=None)
        if self._task is not None:
            self._progress.update(self._task, description=what, completed=done if every else 0, total=every or None)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
