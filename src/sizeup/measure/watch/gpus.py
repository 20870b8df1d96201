"""NVIDIA's GPUs through their library (NVML): memory, load, power, temperature, and the processes on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from sizeup.measure.watch.sample import Gpu


class Gpus:
    """The GPUs of this machine. Without NVML there are none; a question it can't answer is None."""

    def __init__(self) -> None:
        self._nvml, self._devices = _library()

    def now(self) -> tuple[Gpu, ...]:
        """Each GPU as it is."""
        return tuple(self._gpu(device) for device in self._devices)

    def held(self) -> Counter[int]:
        """Process id → bytes on all GPUs."""
        found: Counter[int] = Counter()
        for device in self._devices:
            for process in _asked(partial(self._nvml.nvmlDeviceGetComputeRunningProcesses, device)) or ():
                found[process.pid] += int(process.usedGpuMemory or 0)
        return found

    def close(self) -> None:
        """Let go of the library."""
        if self._devices:
            _asked(self._nvml.nvmlShutdown)

    def _gpu(self, device: Any) -> Gpu:
        nvml = self._nvml
        memory = _asked(lambda: nvml.nvmlDeviceGetMemoryInfo(device))
        rates = _asked(lambda: nvml.nvmlDeviceGetUtilizationRates(device))
        milliwatts = _asked(lambda: nvml.nvmlDeviceGetPowerUsage(device))
        celsius = _asked(lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU))
        name = _asked(lambda: nvml.nvmlDeviceGetName(device))
        return Gpu(
            name=name.decode() if isinstance(name, bytes) else str(name or "GPU"),
            used_bytes=int(memory.used) if memory else None,
            total_bytes=int(memory.total) if memory else None,
            busy=rates.gpu / 100 if rates else None,
            watts=None if milliwatts is None else milliwatts / 1000,
            celsius=None if celsius is None else float(celsius),
        )


def _library() -> tuple[Any, list[Any]]:
    """NVML and its devices. Any failure of a driver means none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml, [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except Exception:
        return None, []


def _asked(question: Callable[[], Any]) -> Any:
    """The driver's answer; None when it has none."""
    try:
        return question()
    except Exception:
        return None
