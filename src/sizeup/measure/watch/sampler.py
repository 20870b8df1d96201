"""Takes samples of the machine, one after the other."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import msgspec

from sizeup.machines.probes.cgroup import read_limits
from sizeup.machines.probes.files import Files
from sizeup.measure.watch.gpus import Gpus
from sizeup.measure.watch.sample import Holder, Sample, ServerLoad
from sizeup.measure.watch.servers import Servers

_HOLDERS = 5
#: Load is a difference: before there is a sample to compare with, it takes a moment.
_FIRST_LOOK_SECONDS = 0.1
_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


class Sampler:
    """The machine, ready to be looked at again and again; use it in a `with` block.

    predicted_bytes: the host memory that a run will hold at its peak. urls: servers to look at besides those found.
    """

    def __init__(
        self, urls: Iterable[str] = (), *, predicted_bytes: int | None = None, search: bool = True, files: Any = None
    ) -> None:
        self._servers = Servers(urls, search=search)
        self._gpus = Gpus()
        self._predicted = predicted_bytes
        self._files: Files = files or Files()
        self._first = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gpus.close()

    def sample(self) -> Sample:
        """One look."""
        import psutil

        used, total = self._memory()
        servers = self._servers.now()
        found = Sample(
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            cpu=psutil.cpu_percent(_FIRST_LOOK_SECONDS if self._first else None) / 100,
            memory_used_bytes=used,
            memory_total_bytes=total,
            swap_used_bytes=int(psutil.swap_memory().used),
            cpu_celsius=_celsius(),
            gpus=self._gpus.now(),
            servers=servers,
            holders=holders(self._gpus.held()),
            headroom_bytes=self._headroom(total - used, servers),
        )
        self._first = False
        return found

    def _memory(self) -> tuple[int, int]:
        """In use and in all; of the container where its limit is nearer."""
        import psutil

        machine = psutil.virtual_memory()
        limits = read_limits(self._files)
        allowed, inside = limits.memory_bytes, limits.memory_used_bytes
        if allowed is not None and inside is not None and allowed - inside < machine.available:
            return inside, allowed
        return int(machine.total - machine.available), int(machine.total)

    def _headroom(self, free: int, servers: Iterable[ServerLoad]) -> int | None:
        """Free memory less what the run has yet to take: what its servers hold counts as taken."""
        if self._predicted is None:
            return None
        held = sum(_resident(server.pid) for server in servers if server.pid)
        return free - max(0, self._predicted - held)


def holders(on_gpus: Counter[int]) -> tuple[Holder, ...]:
    """The processes that hold most, on the host or on GPUs."""
    import psutil

    found = []
    for process in psutil.process_iter(["pid", "name", "memory_info"]):
        memory, pid = process.info["memory_info"], process.info["pid"]
        if memory is not None:
            found.append(Holder(pid, process.info["name"] or "?", int(memory.rss), on_gpus.get(pid, 0)))
    most = sorted(found, key=lambda holder: -(holder.bytes + holder.gpu_bytes))[:_HOLDERS]
    return tuple(msgspec.structs.replace(holder, name=_program(holder)) for holder in most)


def _program(holder: Holder) -> str:
    """The program's name; for an interpreter also what it runs: `python train.py`, `python -m vllm`."""
    import psutil

    if not holder.name.startswith(("python", "node", "java")):
        return holder.name
    with contextlib.suppress(psutil.Error):
        words = psutil.Process(holder.pid).cmdline()[1:]
        if words[:1] == ["-c"]:
            return f"{holder.name} -c"
        module = words.index("-m") + 1 if "-m" in words else len(words)
        script = next((word for word in words if not word.startswith("-")), "")
        what = f"-m {words[module]}" if module < len(words) else os.path.basename(script)  # noqa: PTH119  a word
        return f"{holder.name} {what}".strip()[:60]
    return holder.name


def _resident(pid: int) -> int:
    import psutil

    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def _celsius() -> float | None:
    """The hottest sensor of the processor; None where the system shows none."""
    import psutil

    with contextlib.suppress(AttributeError, OSError):
        sensors = psutil.sensors_temperatures()
        known = [sensor.current for name in _SENSORS for sensor in sensors.get(name, ())]
        return max(known, default=None)
    return None
