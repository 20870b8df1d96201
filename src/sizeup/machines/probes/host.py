"""The host: processor, instruction sets, RAM in all and free, and how fast the RAM is.

Linux, in this order:
1. /proc/cpuinfo: name, family and model, cores, threads, instruction sets; Arm boards: /proc/device-tree/model.
2. /proc/meminfo: MemTotal, MemAvailable.
3. /sys/firmware/dmi/tables/DMI (root only): the modules' width and speed → bandwidth.
4. The catalogue: by name, cores and clock and memory; else by family and model, memory channels and speed only.
5. /sys/devices/system/cpu/cpu0/cache/index3: the last cache, times how many of them there are.
6. No bandwidth from 3 or 4: two channels of DDR4-3200, marked as assumed.
macOS: see `apple`. Elsewhere: psutil for the sizes, and 6.
"""

from __future__ import annotations

import os

import msgspec

from sizeup.machines import catalogue
from sizeup.machines.catalogue import Entry
from sizeup.machines.cpu_facts import CORE_BANDWIDTH, cpu_compute
from sizeup.machines.device import Device
from sizeup.machines.probes.cpuinfo import CpuInfo, parse_cpuinfo, parse_meminfo
from sizeup.machines.probes.dmi import parse_dmi, ram_bandwidth
from sizeup.machines.probes.files import Files, to_int

ASSUMED_BANDWIDTH = 2 * 3_200_000_000 * 8
ASSUMED_CLOCK_HZ = 3_000_000_000


def read_host(files: Files, notes: list[str]) -> tuple[Device, int | None]:
    """The host of a Linux system, and its logical processors; what can't be read is noted."""
    info = parse_cpuinfo(files.read("/proc/cpuinfo") or "")
    total, free = parse_meminfo(files.read("/proc/meminfo") or "")
    source = "/proc/meminfo"
    if total is None:
        total, free = _psutil_memory(notes)
        source = "psutil"
    if not info.name and (board := files.read("/proc/device-tree/model")):
        info = msgspec.structs.replace(info, name=board.strip("\x00 \n"))
    clock = files.number("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if clock:
        info = msgspec.structs.replace(info, clock_hz=clock * 1000)
    modules = parse_dmi(files.read_bytes("/sys/firmware/dmi/tables/DMI") or b"")
    record = next(iter(catalogue.candidates(product_name(info.name))), None)
    platform = record or catalogue.entry_of_hardware(info.number)
    channels = platform.memory_channels if platform else None
    measured = ram_bandwidth(modules, channels * info.sockets if channels else None)
    kind = modules[0].memory_type if modules else ""
    provenance = {"memory_bytes": source, "free_bytes": source}
    bandwidth, memory_type = _bandwidth(info, platform, measured, kind, provenance, notes)
    cache = last_cache(files, info.threads)
    device = host_device(info, record, provenance)
    return msgspec.structs.replace(
        device, memory_bytes=total, free_bytes=free, bandwidth=bandwidth, memory_type=memory_type,
        cache_bytes=cache or device.cache_bytes,
    ), info.threads  # fmt: skip


def host_device(info: CpuInfo, record: Entry | None, provenance: dict[str, str]) -> Device:
    """The processor from what was read, and from its record when its very name is known; without its memory."""
    clock = info.clock_hz or (record.cpu_clock_hz if record else None) or ASSUMED_CLOCK_HZ
    given = {"name": "/proc/cpuinfo", "units": "/proc/cpuinfo", "features": "/proc/cpuinfo"}
    return Device(
        name=info.name or "CPU", kind="cpu", vendor=info.vendor, klass="cpu", arch=record.arch if record else "",
        units=info.cores, cache_bytes=record.cache_bytes if record else None,
        compute=cpu_compute(info.cores, clock, info.features) if info.cores else {},
        power_w=record.power_w * info.sockets if record and record.power_w else None, features=info.features,
        catalogue_id=record.id if record else "",
        provenance=given | provenance | {"compute": "rule: cores × clock × FLOP per cycle"},
    )  # fmt: skip


def product_name(name: str) -> str:
    """`AMD Ryzen 9 5950X 16-Core Processor`, `Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz` → without what follows."""
    for tail in (" w/ ", " with ", " @ ", " CPU"):
        name = name.partition(tail)[0]
    words = name.split()
    return " ".join(word for word in words if not word.endswith("-Core") and word != "Processor")


def last_cache(files: Files, threads: int | None) -> int | None:
    """The third-level cache of all dies: the size of one × threads ÷ the threads that share it, bytes."""
    folder = "/sys/devices/system/cpu/cpu0/cache/index3"
    size = to_int((files.read(f"{folder}/size") or "").strip().rstrip("K"))
    sharing = count_cpus(files.read(f"{folder}/shared_cpu_list") or "")
    if not size or not sharing:
        return None
    return size * 1024 * max(1, (threads or 0) // sharing)


def count_cpus(text: str) -> int:
    """How many processors a list like `0-7,16-23` names; 0 when it can't be read."""
    total = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        low, high = to_int(first), to_int(last or first)
        if low is None or high is None or high < low:
            return 0
        total += high - low + 1
    return total


def allowed_threads(threads: int | None, cpus: float | None) -> int | None:
    """Logical processors that this process may use: within its affinity and its container's share."""
    counts = [count for count in (threads, _affinity()) if count]
    if cpus:
        counts.append(max(1, int(cpus)))
    return min(counts, default=None)


def _bandwidth(
    info: CpuInfo, record: Entry | None, dmi: int | None, dmi_type: str, provenance: dict[str, str], notes: list[str]
) -> tuple[int, str]:
    """Bandwidth and type of the RAM, by the ladder in the module's docstring."""
    if dmi is not None:
        provenance["bandwidth"] = "/sys/firmware/dmi/tables/DMI"
        return dmi, dmi_type
    if record is not None and record.bandwidth:
        platform = record.bandwidth * info.sockets
        reachable = (info.cores or 1) * CORE_BANDWIDTH
        provenance["bandwidth"] = f"assumed: {record.arch} at its fastest memory ({record.memory_type})"
        if reachable < platform:
            provenance["bandwidth"] = f"assumed: 25 GB/s for each of {info.cores} cores of {record.arch}"
        return min(platform, reachable), record.memory_type
    notes.append(
        "the RAM's speed isn't known: two channels of DDR4-3200 assumed; `sizeup machine calibrate` measures it"
    )
    provenance["bandwidth"] = "assumed: two channels of DDR4-3200"
    return ASSUMED_BANDWIDTH, ""


def _affinity() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count()


def _psutil_memory(notes: list[str]) -> tuple[int | None, int | None]:
    try:
        import psutil

        memory = psutil.virtual_memory()
        return int(memory.total), int(memory.available)
    except Exception as error:
        notes.append(f"the RAM can't be read: {error}")
        return None, None
