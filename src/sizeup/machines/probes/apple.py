"""Macs.

Sources, in this order:
1. `sysctl`: memory, chip, cores, and `iogpu.wired_limit_mb` when someone raised Metal's limit.
2. `vm_stat`: what is free, with what can be dropped.
3. `ioreg -c AGXAccelerator`: the number of GPU cores (20 ms); else `system_profiler SPDisplaysDataType -json`.
4. The catalogue by chip and GPU cores: bandwidth, compute.
An Intel Mac has no Metal GPU worth planning for: only its processor is listed, with a note.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from sizeup.machines import catalogue
from sizeup.machines.budget import metal_working_set
from sizeup.machines.cpu_facts import cpu_compute
from sizeup.machines.device import Device
from sizeup.machines.probes.files import to_int
from sizeup.machines.probes.host import ASSUMED_BANDWIDTH, ASSUMED_CLOCK_HZ
from sizeup.machines.probes.merge import completed
from sizeup.machines.probes.run import output_of
from sizeup.quantity.units import MIB

_KEYS = (
    "hw.memsize", "machdep.cpu.brand_string", "hw.physicalcpu", "hw.logicalcpu", "iogpu.wired_limit_mb",
    "hw.optional.arm.FEAT_I8MM", "hw.optional.arm.FEAT_BF16", "hw.optional.arm.FEAT_DotProd", "hw.optional.avx2_0",
    "hw.optional.avx512f",
)  # fmt: skip
_FEATURES = {
    "hw.optional.arm.FEAT_DotProd": "dotprod", "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16", "hw.optional.avx2_0": "avx2", "hw.optional.avx512f": "avx512",
}  # fmt: skip
# Pages that hold nothing, or only what can be dropped.
_DROPPABLE = ("Pages free", "Pages inactive", "Pages speculative", "Pages purgeable")
_PAGE = re.compile(r"page size of (\d{4,6}) bytes")
_CORES = re.compile(r'"gpu-core-count"\s*=\s*(\d{1,3})\b')


def read_apple(notes: list[str], run: Callable[..., str | None] = output_of) -> tuple[Device, int | None, list[Device]]:
    """(host, logical processors, GPUs) of a Mac; `run` starts the tools, and gives None where one fails."""
    keys = parse_sysctl(run("sysctl", *_KEYS) or run("sysctl", "-a") or "")
    memory = to_int(keys.get("hw.memsize"))
    chip = keys.get("machdep.cpu.brand_string", "").strip()
    free = parse_vm_stat(run("vm_stat") or "")
    if memory is None:
        notes.append("sysctl doesn't say how much memory there is")
    host = mac_host(keys, chip, memory, free)
    threads = to_int(keys.get("hw.logicalcpu"))
    if not chip.startswith("Apple"):
        notes.append("this Mac has no Apple GPU: only its processor is counted")
        return host, threads, []
    cores = parse_gpu_cores(run("ioreg", "-r", "-d1", "-c", "AGXAccelerator") or "")
    if cores is None:
        cores = parse_profiler(run("system_profiler", "SPDisplaysDataType", "-json", timeout_s=20.0) or "")
    limit = to_int(keys.get("iogpu.wired_limit_mb")) or 0
    gpu = mac_gpu(chip, cores, memory, limit * MIB, notes)
    return _with_bandwidth(host, gpu), threads, [gpu]


def mac_gpu(chip: str, cores: int | None, memory: int | None, wired_limit: int, notes: list[str]) -> Device:
    """The GPU of an Apple chip, with Metal's limit: as set, else by rule."""
    found = catalogue.candidates(chip)
    record = next((entry for entry in found if entry.units == cores), found[0] if found else None)
    if record is not None and record.units != cores:
        notes.append(f"the number of GPU cores of {chip} can't be read: {record.units} taken")
    limit = wired_limit or (metal_working_set(memory) if memory else None)
    source = "iogpu.wired_limit_mb" if wired_limit else "rule: Metal working set"
    probed = Device(
        name=record.name if record else chip, kind="unified", vendor="apple", backend="metal", memory_bytes=memory,
        memory_limit_bytes=limit, units=cores, display=True, provenance={"memory_limit_bytes": source},
    )  # fmt: skip
    return completed(probed, record, "sysctl", notes)


def mac_host(keys: Mapping[str, str], chip: str, memory: int | None, free: int | None) -> Device:
    """The processor and the memory of a Mac."""
    is_apple = chip.startswith("Apple")
    features = ["neon", "asimd_x4"] if is_apple else []
    features += [feature for key, feature in _FEATURES.items() if keys.get(key, "").strip() == "1"]
    cores = to_int(keys.get("hw.physicalcpu"))
    record = next(iter(catalogue.candidates(chip)), None)
    clock = (record.cpu_clock_hz if record else None) or ASSUMED_CLOCK_HZ
    if free is not None and memory is not None:
        free = min(free, memory)
    return Device(
        name=chip or "CPU", kind="cpu", vendor="apple" if is_apple else "intel", klass="cpu", memory_bytes=memory,
        free_bytes=free, bandwidth=ASSUMED_BANDWIDTH, units=cores, features=tuple(features),
        compute=cpu_compute(cores, clock, features) if cores else {},
        provenance={
            "memory_bytes": "sysctl", "free_bytes": "vm_stat", "units": "sysctl", "features": "sysctl",
            "bandwidth": "assumed: two channels of DDR4-3200", "compute": "rule: cores × clock × FLOP per cycle",
        },
    )  # fmt: skip


def parse_sysctl(text: str) -> dict[str, str]:
    """`name: value` a line."""
    return {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines()) if value
    }


def parse_vm_stat(text: str) -> int | None:
    """Bytes that are free or can be dropped, from `vm_stat`; None when it doesn't say."""
    page = _PAGE.search(text)
    rows = parse_sysctl(text)
    counts = [to_int(rows.get(name, "").rstrip(".")) for name in _DROPPABLE]
    if page is None or counts[0] is None:
        return None
    return int(page[1]) * sum(count or 0 for count in counts)


def parse_gpu_cores(text: str) -> int | None:
    """`"gpu-core-count" = 40` of ioreg."""
    match = _CORES.search(text)
    return int(match[1]) if match else None


def parse_profiler(text: str) -> int | None:
    """`sppci_cores` of `system_profiler SPDisplaysDataType -json`."""
    try:
        cards = json.loads(text)["SPDisplaysDataType"]
        return next((to_int(str(card["sppci_cores"])) for card in cards if "sppci_cores" in card), None)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _with_bandwidth(host: Device, gpu: Device) -> Device:
    """The processor works on the same memory as the GPU."""
    import msgspec

    if gpu.bandwidth is None:
        return host
    return msgspec.structs.replace(
        host, bandwidth=gpu.bandwidth, memory_type=gpu.memory_type,
        provenance=host.provenance | {"bandwidth": "catalogue"},
    )  # fmt: skip
