"""NVIDIA GPUs.

Sources, in this order:
1. Traces: /proc/driver/nvidia, /dev/nvidiactl, /dev/dxg (WSL), a Jetson's device tree. Without any, and not on
   Windows, there is no NVIDIA driver and nothing is loaded or started.
2. NVML through nvidia-ml-py: name, UUID, memory in all and free, clocks and bus width (bandwidth = 2 × clock × bits ÷
   8), PCIe link, power limit, compute capability, screen, MIG slices.
3. nvidia-smi, for the same fields, when NVML can't be loaded.
4. /proc/driver/nvidia/gpus/*/information: the names; the catalogue gives the memory.
5. A Jetson's model name in the device tree.
CUDA_VISIBLE_DEVICES is obeyed (indices in PCI order, UUIDs, MIG UUIDs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sizeup.machines import catalogue
from sizeup.machines.catalogue import Entry
from sizeup.machines.device import Device, Link
from sizeup.machines.probes.files import Files
from sizeup.machines.probes.merge import completed, record_named
from sizeup.machines.probes.nvidia_rates import tensor_rates
from sizeup.machines.probes.run import output_of
from sizeup.machines.probes.visible import visible
from sizeup.quantity.units import MIB

_TRACES = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg")
_SMI_FIELDS = (
    "name", "uuid", "memory.total", "memory.free", "clocks.max.memory", "power.max_limit", "compute_cap",
    "display_active", "pcie.link.gen.max", "pcie.link.width.max",
)  # fmt: skip
_PCIE_LANE_BYTES = {1: 250e6, 2: 500e6, 3: 985e6, 4: 1969e6, 5: 3938e6, 6: 7563e6}


class NvidiaGpu(msgspec.Struct, frozen=True):
    """What a driver said of one GPU or MIG slice; None where it said nothing."""

    name: str
    uuid: str = ""
    memory_bytes: int | None = None
    free_bytes: int | None = None
    memory_clock_hz: int | None = None
    bus_bits: int | None = None
    pcie_generation: int | None = None
    pcie_lanes: int | None = None
    power_w: int | None = None
    capability: str = ""
    cuda_cores: int | None = None
    clock_hz: int | None = None
    display: bool | None = None
    slice_share: float | None = None


def read_nvidia(
    files: Files, system: str, env: Mapping[str, str], host_bytes: int | None, notes: list[str]
) -> list[Device]:
    """The visible NVIDIA GPUs; empty without a driver."""
    jetson = (files.read("/proc/device-tree/model") or "").strip("\x00 \n")
    is_jetson = "jetson" in jetson.lower()
    if not (is_jetson or system == "windows" or any(files.exists(trace) for trace in _TRACES)):
        return []
    found, source = _first_source(files, notes)
    if not found and is_jetson:
        found, source = [NvidiaGpu(name=jetson)], "/proc/device-tree/model"
    chosen = visible(env.get("CUDA_VISIBLE_DEVICES"), [gpu.uuid for gpu in found])
    if len({gpu.name for gpu in found}) > 1 and env.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        notes.append("GPUs of several kinds: CUDA counts the fastest first unless CUDA_DEVICE_ORDER=PCI_BUS_ID")
    return [nvidia_device(found[index], source, host_bytes, notes) for index in chosen]


def nvidia_device(gpu: NvidiaGpu, source: str, host_bytes: int | None, notes: list[str]) -> Device:
    """The device of what a driver said, completed from the catalogue."""
    if "jetson" in gpu.name.lower():
        record = _jetson_record(gpu.name, host_bytes)
    else:
        record = record_named(gpu.name, None if gpu.slice_share else gpu.memory_bytes)
    if record is not None and record.kind == "unified":
        return _unified(gpu, record, source, host_bytes, notes)
    probed = Device(
        name=gpu.name, kind="gpu", vendor="nvidia", backend="cuda", identity=gpu.uuid, memory_bytes=gpu.memory_bytes,
        free_bytes=gpu.free_bytes, bandwidth=bandwidth(gpu.memory_clock_hz, gpu.bus_bits),
        capability=gpu.capability, power_w=gpu.power_w, display=gpu.display,
        host_link=_pcie(gpu.pcie_generation, gpu.pcie_lanes),
        compute=_rates(gpu) if record is None else {},
    )  # fmt: skip
    device = completed(probed, record, source, notes)
    return device if gpu.slice_share is None else _sliced(device, gpu.slice_share)


def bandwidth(memory_clock_hz: int | None, bus_bits: int | None) -> int | None:
    """bytes/s = 2 × memory clock × bus width ÷ 8; the clock as NVML gives it already counts GDDR's multiple."""
    if not memory_clock_hz or not bus_bits:
        return None
    return 2 * memory_clock_hz * bus_bits // 8


def parse_smi(text: str) -> list[NvidiaGpu]:
    """`nvidia-smi --query-gpu=… --format=csv,noheader,nounits`, one GPU a line; other lines are passed over."""
    gpus = []
    for line in text.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(_SMI_FIELDS) or not values[1].startswith("GPU-"):
            continue
        row = dict(zip(_SMI_FIELDS, values, strict=True))
        clock = _number(row["clocks.max.memory"])
        power = _number(row["power.max_limit"])
        gpus.append(NvidiaGpu(
            name=row["name"], uuid=row["uuid"], memory_bytes=_mebibytes(row["memory.total"]),
            free_bytes=_mebibytes(row["memory.free"]), memory_clock_hz=int(clock * 1e6) if clock else None,
            power_w=int(power) if power else None,
            capability=row["compute_cap"] if _number(row["compute_cap"]) else "",
            display={"enabled": True, "disabled": False}.get(row["display_active"].lower()),
            pcie_generation=_whole(row["pcie.link.gen.max"]), pcie_lanes=_whole(row["pcie.link.width.max"]),
        ))  # fmt: skip
    return gpus


def parse_information(text: str) -> NvidiaGpu | None:
    """/proc/driver/nvidia/gpus/*/information: `Model:` and `GPU UUID:`."""
    rows = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    name = rows.get("Model", "")
    uuid = rows.get("GPU UUID", "")
    return NvidiaGpu(name=name, uuid="" if "?" in uuid else uuid) if name else None


def read_nvml(nvml: Any) -> list[NvidiaGpu]:
    """Every GPU, or its MIG slices, through the module `pynvml`. Raises what NVML raises when it can't start."""
    nvml.nvmlInit()
    try:
        gpus: list[NvidiaGpu] = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            whole = _nvml_gpu(nvml, handle)
            gpus += _nvml_slices(nvml, handle, whole) or [whole]
        return gpus
    finally:
        nvml.nvmlShutdown()


def _first_source(files: Files, notes: list[str]) -> tuple[list[NvidiaGpu], str]:
    """The GPUs from the first source that answers, and its name."""
    try:
        import pynvml

        return read_nvml(pynvml), "nvml"
    except Exception as error:  # a broken driver raises more than NVMLError
        notes.append(f"NVML can't be used ({error})")
    query = f"--query-gpu={','.join(_SMI_FIELDS)}"
    listed = parse_smi(output_of("nvidia-smi", query, "--format=csv,noheader,nounits") or "")
    if listed:
        return listed, "nvidia-smi"
    folder = "/proc/driver/nvidia/gpus"
    texts = [files.read(f"{folder}/{name}/information") for name in files.names(folder)]
    named = [gpu for text in texts if text and (gpu := parse_information(text))]
    if named:
        notes.append("only the GPUs' names can be read: their memory is the catalogue's, what is free is unknown")
    return named, "/proc/driver/nvidia"


def _nvml_gpu(nvml: Any, handle: Any) -> NvidiaGpu:
    """One GPU; a field that the driver doesn't support stays None."""
    memory = _asked(nvml, "nvmlDeviceGetMemoryInfo", handle)
    capability = _asked(nvml, "nvmlDeviceGetCudaComputeCapability", handle)
    power = _asked(nvml, "nvmlDeviceGetPowerManagementDefaultLimit", handle)
    display = _asked(nvml, "nvmlDeviceGetDisplayActive", handle)
    clock = _asked(nvml, "nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_MEM)
    sm_clock = _asked(nvml, "nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_SM)
    return NvidiaGpu(
        name=_text(_asked(nvml, "nvmlDeviceGetName", handle)) or "NVIDIA GPU",
        uuid=_text(_asked(nvml, "nvmlDeviceGetUUID", handle)),
        memory_bytes=None if memory is None else int(memory.total),
        free_bytes=None if memory is None else int(memory.free),
        memory_clock_hz=None if clock is None else int(clock) * 10**6,
        bus_bits=_asked(nvml, "nvmlDeviceGetMemoryBusWidth", handle),
        pcie_generation=_asked(nvml, "nvmlDeviceGetMaxPcieLinkGeneration", handle),
        pcie_lanes=_asked(nvml, "nvmlDeviceGetMaxPcieLinkWidth", handle),
        power_w=None if power is None else int(power) // 1000,
        capability="" if capability is None else f"{capability[0]}.{capability[1]}",
        cuda_cores=_asked(nvml, "nvmlDeviceGetNumGpuCores", handle),
        clock_hz=None if sm_clock is None else int(sm_clock) * 10**6,
        display=None if display is None else bool(display),
    )


def _nvml_slices(nvml: Any, handle: Any, whole: NvidiaGpu) -> list[NvidiaGpu]:
    """The MIG slices of a GPU that is cut into them; each has its memory and its share of the multiprocessors."""
    mode = _asked(nvml, "nvmlDeviceGetMigMode", handle)
    if not mode or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return []
    slices = []
    for index in range(_asked(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
        part = _asked(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
        memory = None if part is None else _asked(nvml, "nvmlDeviceGetMemoryInfo", part)
        if memory is None:
            continue
        share = memory.total / whole.memory_bytes if whole.memory_bytes else 1.0
        slices.append(msgspec.structs.replace(
            whole, uuid=_text(_asked(nvml, "nvmlDeviceGetUUID", part)), memory_bytes=int(memory.total),
            free_bytes=int(memory.free), slice_share=min(1.0, share),
        ))  # fmt: skip
    return slices


def _sliced(device: Device, share: float) -> Device:
    """A MIG slice: memory as read, bandwidth and compute in proportion to its memory."""
    scaled = None if device.bandwidth is None else int(device.bandwidth * share)
    return msgspec.structs.replace(
        device, name=f"{device.name} (MIG slice)", bandwidth=scaled,
        compute={kind: int(rate * share) for kind, rate in device.compute.items()},
        units=None if device.units is None else max(1, round(device.units * share)),
        provenance=device.provenance | dict.fromkeys(("bandwidth", "compute", "units"), "rule: share of the memory"),
    )  # fmt: skip


def _unified(gpu: NvidiaGpu, record: Entry, source: str, host_bytes: int | None, notes: list[str]) -> Device:
    """Jetson and GB10: the GPU works on the host's memory, of which NVML says nothing."""
    probed = Device(
        name=gpu.name, kind="unified", vendor="nvidia", backend="cuda", identity=gpu.uuid, memory_bytes=host_bytes,
        memory_limit_bytes=host_bytes, capability=gpu.capability, display=gpu.display,
        provenance={"memory_bytes": "the host's memory", "memory_limit_bytes": "the host's memory"},
    )  # fmt: skip
    return completed(probed, record, source, notes)


def _jetson_record(name: str, host_bytes: int | None) -> Entry | None:
    """A Jetson's board name without the words that only say that it is a kit; its memory tells variants apart."""
    short = name.lower().replace("developer kit", "").replace("engineering reference", "").strip()
    found = catalogue.candidates(short)
    if not found or host_bytes is None:
        return next(iter(found), None)
    return min(found, key=lambda record: abs(max(record.memory_choices, default=0) - host_bytes))


def _rates(gpu: NvidiaGpu) -> dict[str, int]:
    if gpu.cuda_cores and gpu.clock_hz:
        return tensor_rates(gpu.capability, gpu.cuda_cores, gpu.clock_hz, gpu.name)
    return {}


def _pcie(generation: int | None, lanes: int | None) -> Link | None:
    """A PCIe link: lanes × payload bytes/s of its generation, one direction."""
    rate = _PCIE_LANE_BYTES.get(generation or 0)
    if rate is None or not lanes:
        return None
    return Link(kind="pcie", bytes_per_s=int(rate * lanes), generation=f"{generation}.0", lanes=lanes)


def _asked(nvml: Any, query: str, *arguments: Any) -> Any:
    """A query's answer, None when this library, driver or device doesn't support it."""
    try:
        return getattr(nvml, query)(*arguments)
    except Exception:  # NVMLError, and AttributeError or OSError of mismatched libraries
        return None


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value or "")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 1e12 else None


def _whole(text: str) -> int | None:
    value = _number(text)
    return None if value is None else int(value)


def _mebibytes(text: str) -> int | None:
    value = _number(text)
    return None if value is None else int(value * MIB)
