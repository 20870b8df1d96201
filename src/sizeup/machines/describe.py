"""From wishes (which devices, how much RAM) to a machine, with every assumption said."""

from __future__ import annotations

import msgspec

from sizeup.errors import BadInput
from sizeup.machines.budget import GTT_SHARE, metal_working_set
from sizeup.machines.catalogue import Entry
from sizeup.machines.cpu_facts import CORE_BANDWIDTH, cpu_compute
from sizeup.machines.device import Device, Disk, Machine
from sizeup.quantity.units import GIB, format_bytes

# What is taken when a description doesn't say: the smallest RAM that a PC with a graphics card is sold with, and
# the most common memory.
ASSUMED_RAM = 16 * GIB
ASSUMED_CORES = 8
ASSUMED_CLOCK_HZ = 3_500_000_000
_TRANSFERS = {
    "DDR3": 1600, "DDR4": 3200, "DDR5": 5600, "LPDDR4": 3200, "LPDDR4X": 4266, "LPDDR5": 6400, "LPDDR5X": 7500,
}  # fmt: skip
_SLOWEST_TRANSFERS = 1600
_DDR5_ARCHS = frozenset((
    "Ada Lovelace", "Blackwell", "RDNA 3", "RDNA 3.5", "RDNA 4", "Xe2", "Hopper", "CDNA 3", "CDNA 4",
))  # fmt: skip


class GpuWish(msgspec.Struct, frozen=True):
    """A device that a description asks for."""

    entry: Entry
    count: int = 1
    memory_bytes: int | None = None
    free_bytes: int | None = None


class HostWish(msgspec.Struct, frozen=True):
    """What a description says of the host; None where it says nothing."""

    memory_bytes: int | None = None
    free_bytes: int | None = None
    memory_type: str = ""
    transfers_per_s: int | None = None
    channels: int | None = None
    cpu: Entry | None = None
    sockets: int = 1
    cores: int | None = None
    threads: int | None = None
    disk_bytes: int | None = None
    os: str = ""
    display: bool | None = None
    cpu_only: bool = False


def build_machine(name: str, wishes: list[GpuWish], host: HostWish, notes: list[str]) -> Machine:
    """The machine that was described. Raises BadInput for contradictions."""
    if host.cpu_only and wishes:
        raise BadInput(f"{name!r} asks for no GPU and for {wishes[0].entry.name}", hint="leave one of them out")
    if not wishes and host.cpu is None and host.memory_bytes is None and not host.cpu_only:
        raise BadInput(f"no device and no RAM in {name!r}", hint="for example '2x RTX 4090, 64 GB RAM'")
    soc = next((wish for wish in wishes if wish.entry.kind == "unified"), None)
    if soc is not None and soc.count > 1:
        raise BadInput(f"{soc.count} × {soc.entry.name} are {soc.count} machines", hint="describe one of them")
    said = list(notes)
    memory = _host_memory(wishes, host, soc, said)
    if host.free_bytes is not None and host.free_bytes > memory:
        raise BadInput(f"{format_bytes(host.free_bytes)} free of {format_bytes(memory)} RAM", hint="give what is free")
    cpu = _host_device(host, soc, wishes, memory, said)
    gpus = [_gpu(wish, memory, host, said) for wish in wishes for _ in range(wish.count)]
    disk = None if host.disk_bytes is None else Disk(path="", free_bytes=host.disk_bytes)
    return Machine(
        name=name, cpu=cpu, gpus=tuple(gpus), cpu_threads=_threads(host, soc, cpu), disk=disk,
        os=host.os or ("macos" if soc and soc.entry.vendor == "apple" else ""), notes=tuple(said),
    )  # fmt: skip


def _host_memory(wishes: list[GpuWish], host: HostWish, soc: GpuWish | None, notes: list[str]) -> int:
    """The RAM: what was said, else the only size the chip has, else an assumption with a note."""
    said = host.memory_bytes
    if soc is not None:
        return _soc_memory(soc, said)
    if said is not None:
        return said
    server = any(wish.entry.klass == "datacentre" for wish in wishes)
    vram = sum((wish.entry.memory_bytes or 0) * wish.count for wish in wishes)
    assumed = max(ASSUMED_RAM, vram) if server else ASSUMED_RAM
    notes.append(f"RAM isn't given: {format_bytes(assumed)} assumed; add ', 64 GB RAM'")
    return assumed


def _soc_memory(soc: GpuWish, said: int | None) -> int:
    """A chip's memory: said with it or as RAM; one of the sizes it is sold with. Raises BadInput otherwise."""
    choices = soc.entry.memory_choices
    sizes = ", ".join(f"{size // GIB} GB" for size in choices)
    if soc.memory_bytes is not None and said is not None and soc.memory_bytes != said:
        raise BadInput(f"two sizes for the one memory of {soc.entry.name}", hint="give it once")
    memory = soc.memory_bytes or said
    if memory is None:
        if len(choices) != 1:
            raise BadInput(
                f"{soc.entry.name} comes with {sizes}", hint=f"say how much: '{soc.entry.name} {sizes.split(', ')[0]}'"
            )
        return choices[0]
    if choices and memory not in choices:
        raise BadInput(f"{soc.entry.name} doesn't come with {format_bytes(memory)}", hint=f"it has {sizes}")
    return memory


def _gpu(wish: GpuWish, host_memory: int, host: HostWish, notes: list[str]) -> Device:
    """One GPU of a described machine."""
    if wish.entry.kind != "unified":
        device = wish.entry.device()
        if wish.free_bytes is not None and wish.free_bytes > (device.memory_bytes or wish.free_bytes):
            raise BadInput(
                f"more free than {device.name} has: {format_bytes(wish.free_bytes)}", hint="give what is free"
            )
        return msgspec.structs.replace(device, free_bytes=wish.free_bytes, display=host.display)
    device = wish.entry.device(host_memory)
    share = wish.entry.gpu_share
    if device.backend == "metal":
        limit, source = metal_working_set(host_memory), "rule: Metal working set"
    else:
        limit, source = int(host_memory * (share or GTT_SHARE)), "catalogue: share of memory for the GPU"
        if share is not None and share > GTT_SHARE:
            notes.append(
                f"{device.name} is taken with {share:.0%} of memory for its GPU, which firmware or kernel must allow"
            )
    return msgspec.structs.replace(
        device,
        bandwidth=_soc_bandwidth(wish.entry, host),
        memory_limit_bytes=limit,
        display=host.display,
        provenance=device.provenance | {"memory_limit_bytes": source},
    )


def _host_device(host: HostWish, soc: GpuWish | None, wishes: list[GpuWish], memory: int, notes: list[str]) -> Device:
    """The host as a device, with its bandwidth from what was said, from the CPU, from the chip, or assumed."""
    provenance = {"memory_bytes": "described" if host.memory_bytes or soc else "assumed"}
    cpu = host.cpu
    if soc is not None and cpu is None:
        return _soc_host(soc.entry, memory, host, provenance)
    known_cores = cpu.units * host.sockets if cpu and cpu.units else None
    cores = host.cores or known_cores or (host.threads or 0) // 2 or None
    bandwidth, memory_type = _ram_bandwidth(host, wishes, cores, provenance, notes)
    if cores is None:
        cores = ASSUMED_CORES
        provenance["units"] = "assumed"
    features = cpu.cpu_features if cpu else ("avx2",)
    clock = (cpu.cpu_clock_hz if cpu else None) or ASSUMED_CLOCK_HZ
    provenance["compute"] = "rule: cores × clock × FLOP per cycle" + ("" if cpu else ", assumed CPU")
    return Device(
        name=cpu.name if cpu else "CPU", kind="cpu", vendor=cpu.vendor if cpu else "", klass="cpu",
        arch=cpu.arch if cpu else "", memory_bytes=memory, free_bytes=host.free_bytes, memory_type=memory_type,
        bandwidth=bandwidth, units=cores, cache_bytes=cpu.cache_bytes if cpu else None,
        compute=cpu_compute(cores, clock, features), power_w=_times(cpu.power_w, host.sockets) if cpu else None,
        price_usd=_times(cpu.price_usd, host.sockets) if cpu else None, features=features,
        catalogue_id=cpu.id if cpu else "", provenance=provenance,
    )  # fmt: skip


def _times(amount: int | None, sockets: int) -> int | None:
    return None if amount is None else amount * sockets


def _soc_host(record: Entry, memory: int, host: HostWish, provenance: dict[str, str]) -> Device:
    cores = host.cores or record.cpu_cores or ASSUMED_CORES
    clock = record.cpu_clock_hz or ASSUMED_CLOCK_HZ
    provenance |= {"bandwidth": "catalogue", "units": "catalogue", "compute": "rule: cores × clock × FLOP per cycle"}
    return Device(
        name=record.cpu_name or record.name, kind="cpu", vendor=record.vendor, klass="cpu", memory_bytes=memory,
        free_bytes=host.free_bytes, memory_type=record.memory_type, bandwidth=_soc_bandwidth(record, host),
        units=cores,
        compute=cpu_compute(cores, clock, record.cpu_features), features=record.cpu_features,
        catalogue_id=record.id, provenance=provenance,
    )  # fmt: skip


def _ram_bandwidth(
    host: HostWish, wishes: list[GpuWish], cores: int | None, provenance: dict[str, str], notes: list[str]
) -> tuple[int, str]:
    """Channels × transfers/s × 8 bytes: said, of the CPU, or assumed (then no more than the cores can use)."""
    cpu = host.cpu
    if cpu is not None and cpu.bandwidth and not _says_ram(host):
        provenance["bandwidth"] = "catalogue"
        return cpu.bandwidth * host.sockets, cpu.memory_type
    server = any(wish.entry.klass == "datacentre" for wish in wishes)
    kind = host.memory_type or (cpu.memory_type.split("-")[0] if cpu and cpu.memory_type else "") or _usual_ram(wishes)
    transfers = host.transfers_per_s or _TRANSFERS.get(kind, _SLOWEST_TRANSFERS) * 10**6
    own_channels = (cpu.memory_channels or 2) * host.sockets if cpu else (8 if server else 2)
    channels = host.channels or own_channels
    label = f"{kind}-{transfers // 10**6}"
    bandwidth = channels * transfers * 8
    if _says_ram(host):
        provenance["bandwidth"] = f"described: {channels} channels × {transfers // 10**6} MT/s × 8 bytes"
        return bandwidth, label
    provenance["bandwidth"] = f"assumed: {channels} channels of {label}"
    notes.append(f"the kind of RAM isn't given: {channels} channels of {label} assumed")
    return min(bandwidth, (cores or ASSUMED_CORES) * CORE_BANDWIDTH), label


def _says_ram(host: HostWish) -> bool:
    """Whether a description says more of the RAM than its size."""
    return bool(host.memory_type or host.channels)


def _soc_bandwidth(record: Entry, host: HostWish) -> int | None:
    """A chip's memory is the catalogue's, unless a description gives other modules' speed."""
    if host.transfers_per_s is None:
        return record.bandwidth
    return (host.channels or record.memory_channels or 2) * host.transfers_per_s * 8


def _usual_ram(wishes: list[GpuWish]) -> str:
    """What machines with such devices usually have; DDR4, the slower, without any."""
    return "DDR5" if any(wish.entry.arch in _DDR5_ARCHS for wish in wishes) else "DDR4"


def _threads(host: HostWish, soc: GpuWish | None, cpu: Device) -> int | None:
    if host.threads:
        return host.threads
    record = host.cpu or (soc.entry if soc else None)
    if record is not None and record.cpu_threads and not host.cores:
        return record.cpu_threads * host.sockets
    return cpu.units
