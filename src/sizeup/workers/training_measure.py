"""Worker: a real training step on this machine's GPU, or on its processor where there is none.

    job      {"config": config.json, "setting": {the fields of TrainSetting}, "needed": bytes it is estimated to take}
    answer   {"event": "result", "peak_bytes", "reserved_bytes", "process_bytes", "phases", "device", "versions",
              "seconds_per_step", "stand_ins"}

On a GPU: what the allocator handed out and reserved, and what the driver books for the process. On a processor, which
has no such allocator: every tensor that the step's operations make is tracked, and the process's resident peak is read.
Weights are whatever memory holds: bytes and speed don't depend on values. Packed weights are stand-ins of the same
bytes. One device only.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.protocol import Refused, Say, answer
from sizeup.workers.training_simulate import REFUSED, simulated

STEPS = 3
GIB = 1 << 30


def work(job: dict[str, Any], say: Say) -> None:
    """Build, run a few steps, report the last."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    warnings.simplefilter("ignore")
    import torch

    setting = job["setting"]
    allowed: dict[str, set[object]] = {**REFUSED, "sharding": {"none"}, "data_parallel": {1}}
    for name, known in allowed.items():
        if setting.get(name) not in known:
            raise Refused("config", f"{name}={setting.get(name)!r} isn't measured: one device, plain settings")
    found = measured(torch, job["config"], setting) if torch.cuda.is_available() else on_processor(job, setting)
    stand_ins = setting["method"] == "qlora"
    say("result", **found, stand_ins=stand_ins)


def on_processor(job: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    """The step on real tensors of the processor, tracked; the process's resident peak beside it."""
    import platform
    import resource

    free, needed = _free_bytes(), job.get("needed", 0)
    if free is not None and needed > free:
        sizes = f"the step needs {needed / GIB:,.0f} GiB of the {free / GIB:,.0f} GiB that are free"
        raise Refused("config", f"this machine has no GPU, and {sizes}; simulate it instead")
    found = simulated({**job, "real": True, "replay": False}, setting)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if platform.system() == "Darwin" else 1024
    kept = {name: found[name] for name in ("peak_bytes", "phases", "versions")}
    return kept | {
        "reserved_bytes": None,
        "process_bytes": None,
        "resident_bytes": peak * unit,
        "device": "cpu",
        "seconds_per_step": None,
    }


def _free_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system doesn't say."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    return None


def measured(torch: Any, given: dict[str, Any], setting: dict[str, Any], kind: str = "cuda") -> dict[str, Any]:
    """Run the steps on the first GPU. kind: torch's name of where tensors lie."""
    import transformers

    from sizeup.workers.training_model import built, dtype_of, without_cache
    from sizeup.workers.training_optimizers import optimizer_of
    from sizeup.workers.training_step import run_step, with_images
    from sizeup.workers.training_task import head_of, inputs_of, with_labels
    from sizeup.workers.training_tracker import Ledger
    from sizeup.workers.transformers_meta import configuration

    head = head_of(given, setting)
    config = with_labels(configuration(given), given, setting)
    without_cache(config)
    model = built(torch, config, setting, kind, head)
    optimizer = optimizer_of(torch, model, setting)
    inputs = inputs_of(torch, config, setting, head, dtype_of(torch, setting), kind, real=True)
    if setting.get("images"):
        with_images(torch, config, setting, inputs, kind, real=True)
    seconds = 0.0
    for _ in range(STEPS):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        run_step(torch, model, optimizer, inputs, setting, Ledger(kind), kind)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    return {
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
        "process_bytes": _process_bytes(),
        "phases": {},
        "device": torch.cuda.get_device_name(0),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "seconds_per_step": seconds,
    }


def _process_bytes() -> int | None:
    """What the driver books for this process; None where it doesn't say."""
    with contextlib.suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid == os.getpid() and process.usedGpuMemory:
                return int(process.usedGpuMemory)
    return None


if __name__ == "__main__":
    sys.exit(answer(work))
