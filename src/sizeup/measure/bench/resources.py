"""What a server holds and draws while it is measured: memory by kind, GPU memory, power."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

_SECONDS = 0.2
_KIB = 1024
_RAPL = Path("/sys/class/powercap")


class Usage(msgspec.Struct, frozen=True):
    """The most that was held during a stretch of time, in bytes, and the mean power; None where nobody says.

    anonymous: memory of the process's own. mapped: pages of files, the model's mostly. resident: all of it.
    gpu: of all GPUs, other programs' included. gpu_watts, cpu_watts: means.
    """

    resident: int | None = None
    anonymous: int | None = None
    mapped: int | None = None
    gpu: int | None = None
    gpu_watts: float | None = None
    cpu_watts: float | None = None


class Watch:
    """Samples a process and the machine in a thread of its own, for the length of a `with` block."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._most: dict[str, int] = {}
        self._watts: list[float] = []
        self._joules = _joules()
        self._since = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def usage(self) -> Usage:
        """What has been seen so far."""
        seconds, joules = time.monotonic() - self._since, _joules()
        spent = None if joules is None or self._joules is None else joules - self._joules
        return Usage(
            self._most.get("resident"),
            self._most.get("anonymous"),
            self._most.get("mapped"),
            self._most.get("gpu"),
            sum(self._watts) / len(self._watts) if self._watts else None,
            spent / seconds if spent is not None and spent > 0 and seconds > 0 else None,
        )

    def _sample(self) -> None:
        with contextlib.ExitStack() as stack:
            gpus = _gpus(stack)
            while True:
                found = process_memory(self._pid) if self._pid else {}
                if gpus:
                    used, watts = _gpu_load(*gpus)
                    found["gpu"] = used
                    self._watts += [watts] if watts else []
                for name, amount in found.items():
                    self._most[name] = max(self._most.get(name, 0), amount)
                if self._stop.wait(_SECONDS):
                    return


def process_memory(pid: int) -> dict[str, int]:
    """What a process holds now, by kind; its resident memory only where the system doesn't tell kinds apart."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return _resident(pid)
    fields = {name: rest for name, _, rest in (line.partition(":") for line in text.splitlines())}
    kinds = {"resident": "VmRSS", "anonymous": "RssAnon", "mapped": "RssFile"}
    return {kind: int(fields[name].split()[0]) * _KIB for kind, name in kinds.items() if name in fields}


def listener_pid(port: int) -> int | None:
    """The process that listens at a port of this machine; None when it isn't to be seen."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                return int(connection.pid) if connection.pid else None
    return None


def _resident(pid: int) -> dict[str, int]:
    import psutil

    with contextlib.suppress(psutil.Error):
        return {"resident": psutil.Process(pid).memory_info().rss}
    return {}


def _gpus(stack: contextlib.ExitStack) -> tuple[Any, list[Any]] | None:
    """NVIDIA's library and its devices; None without them. Any failure of a driver means none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        stack.callback(pynvml.nvmlShutdown)
        devices = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except Exception:
        return None
    return (pynvml, devices) if devices else None


def _gpu_load(library: Any, devices: list[Any]) -> tuple[int, float]:
    used, watts = 0, 0.0
    for device in devices:
        with contextlib.suppress(library.NVMLError):
            used += int(library.nvmlDeviceGetMemoryInfo(device).used)
            watts += library.nvmlDeviceGetPowerUsage(device) / 1000
    return used, watts


def _joules() -> float | None:
    """Energy that the processor packages have drawn so far (Linux powercap); None where it may not be read."""
    try:
        readings = [int((zone / "energy_uj").read_text()) for zone in _RAPL.glob("intel-rapl:?")]
    except (OSError, ValueError):
        return None
    return sum(readings) / 1e6 if readings else None
