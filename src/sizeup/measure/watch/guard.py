"""A guard on memory: says when a share is passed, and ends a process before the machine begins to swap."""

from __future__ import annotations

import contextlib
import os

import msgspec

from sizeup.errors import BadInput, NotFound
from sizeup.measure.watch.sample import Gpu, Sample

_GRACE_SECONDS = 5.0


class Alarm(msgspec.Struct, frozen=True):
    """The guard's share was passed. where: `memory` or a GPU's name. stopped: the processes that were ended."""

    where: str
    share: float
    limit: float
    holder: str
    stopped: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """What happened, in a line."""
        done = f"; ended {', '.join(map(str, self.stopped))}" if self.stopped else ""
        return f"{self.where} {self.share:.0%} full (guard at {self.limit:.0%}), most held by {self.holder}{done}"


def parse_share(text: str) -> float:
    """`95%`, `95` or `0.95` → 0.95. Raises BadInput."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    share = value / 100 if text.strip().endswith("%") or value > 1 else value
    if not 0 < share <= 1:
        raise BadInput(f"no share {text[:40]!r}", hint="such as 95%")
    return share


def check(sample: Sample, limit: float) -> Alarm | None:
    """The fullest of the memories that are past the limit."""
    holder = next(iter(sample.holders), None)
    named = f"{holder.name} ({holder.pid})" if holder else "nobody that is to be seen"
    shares = [("memory", sample.memory_share), *((gpu.name, _share(gpu)) for gpu in sample.gpus)]
    where, share = max(shares, key=lambda pair: pair[1])
    if share < limit:
        return None
    if where != "memory":
        on_gpu = max(sample.holders, key=lambda h: h.gpu_bytes, default=None)
        named = f"{on_gpu.name} ({on_gpu.pid})" if on_gpu and on_gpu.gpu_bytes else named
    return Alarm(where, share, limit, named)


def _share(gpu: Gpu) -> float:
    return gpu.used_bytes / gpu.total_bytes if gpu.used_bytes is not None and gpu.total_bytes else 0.0


def targets(text: str) -> list[int]:
    """The processes that a PID or a program's name means; never this one or those it descends from.

    Raises NotFound when there is none.
    """
    import psutil

    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    if text.isdigit():
        found = [int(text)] if psutil.pid_exists(int(text)) else []
    else:
        found = [process.pid for process in psutil.process_iter() if _is_named(process, text)]
    found = [pid for pid in found if pid not in own]
    if not found:
        raise NotFound(f"no process {text[:60]!r} to stop", hint="give a process id, or a program's name")
    return found


def stop(pids: list[int]) -> tuple[int, ...]:
    """End processes and those below them: SIGTERM, and SIGKILL after 5 seconds. Returns those that are gone."""
    import psutil

    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            processes += [process, *process.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(processes, _GRACE_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, 1.0)
    return tuple(pid for pid in pids if not _runs(pid))


def _runs(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _is_named(process: object, name: str) -> bool:
    import psutil

    try:
        own = process.name()  # type: ignore[attr-defined]
        first = os.path.basename((process.cmdline() or [""])[0])  # type: ignore[attr-defined]  # noqa: PTH119
    except psutil.Error:
        return False
    return name in {own, first}
