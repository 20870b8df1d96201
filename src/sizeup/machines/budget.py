"""What may be used on each device: what is free, within what the driver and the container allow, minus a reserve.

Every budget is a Term whose parts say what was taken away and why, so `--explain` shows the same figure.
"""

from __future__ import annotations

import msgspec

from sizeup.machines.device import Device, Machine
from sizeup.quantity import Term, leaf, total
from sizeup.quantity.units import GIB, MIB, format_bytes

# A described card has no process on it; the driver keeps about 1.5 % (page tables, firmware, error correction
# bookkeeping): `nvidia-smi -q` shows 300 to 640 MiB "reserved" on 24 to 80 GB cards.
DRIVER_SHARE = 0.015
DRIVER_LEAST = 150 * MIB
# A card that drives a screen loses memory to the desktop while a model runs (windows, browser, compositor).
DISPLAY_IN_USE = 600 * MIB
DISPLAY_RESERVE = 256 * MIB
# Left alone on every GPU: allocators round up to 2 MiB pages and other contexts come and go.
GPU_RESERVE = 64 * MIB
# A described host runs an operating system and a light desktop; macOS holds more (wired memory, window server, caches
# that don't give way) before anything is opened.
HOST_IN_USE, MACOS_IN_USE = 2 * GIB, 4 * GIB
HOST_IN_USE_LARGEST_SHARE = 0.25
# Left alone on every host, so that it neither swaps nor loses the page cache of what runs beside.
HOST_RESERVE_SHARE = 0.03
HOST_RESERVE_LEAST = 256 * MIB
# Metal's recommended working set: two thirds of memory below 36 GiB, three quarters from there on.
METAL_SMALL_SHARE, METAL_LARGE_SHARE, METAL_LARGE_FROM = 2 / 3, 3 / 4, 36 * GIB
# Linux gives a GPU half of the host's memory (TTM's default page limit) unless told otherwise.
GTT_SHARE = 0.5
# Windows shares half of the host's memory with a GPU that has none.
SHARED_SHARE = 0.5


class DeviceBudget(msgspec.Struct, frozen=True):
    """What may be used on one device.

    usable: the bytes, with their derivation. shared_bytes: how many of them come out of the host's budget,
    so that both together never exceed the host's memory.
    """

    device: str
    usable: Term
    shared_bytes: int = 0

    @property
    def usable_bytes(self) -> int | None:
        """The bytes, or None when they are unknown (the term says why)."""
        return None if _is_unknown(self.usable) else int(self.usable.value)


class Budget(msgspec.Struct, frozen=True):
    """What may be used on a machine: its GPUs in the machine's order, and its host."""

    gpus: tuple[DeviceBudget, ...]
    host: DeviceBudget

    def total_bytes(self) -> int:
        """All that can be used at once: memory that a GPU shares with the host counts once."""
        own = sum((gpu.usable_bytes or 0) - gpu.shared_bytes for gpu in self.gpus)
        return own + (self.host.usable_bytes or 0)


def machine_budget(machine: Machine) -> Budget:
    """The budget of every device of a machine."""
    host = host_budget(machine)
    return Budget(gpus=tuple(gpu_budget(gpu, host.usable) for gpu in machine.gpus), host=host)


def host_budget(machine: Machine) -> DeviceBudget:
    """RAM: free now, no more than a container allows, minus the reserve of the operating system."""
    cpu = machine.cpu
    if cpu.memory_bytes is None:
        return DeviceBudget(cpu.name, leaf(cpu.name, None, "the size of the memory is unknown"))
    memory, limit = cpu.memory_bytes, machine.limits.memory_bytes
    parts = [leaf("memory", memory, f"{format_bytes(memory)} in all", source=_source(cpu, "memory_bytes"))]
    parts.append(_host_use(cpu, memory, MACOS_IN_USE if _runs_macos(machine) else HOST_IN_USE))
    if limit is not None:
        free = int(sum(part.value for part in parts))
        used = machine.limits.memory_used_bytes or 0
        beyond = free - max(0, limit - used)
        if beyond > 0:
            why = f"{format_bytes(limit)} allowed, {format_bytes(used)} of it in use"
            parts.append(_taken("not allowed to this container", beyond, parts, why, machine.limits.source))
    reserve = max(HOST_RESERVE_LEAST, int(HOST_RESERVE_SHARE * memory))
    why = f"max(256 MiB, 3 % of {format_bytes(memory)}), so that the host doesn't swap"
    parts.append(_taken("reserve", reserve, parts, why))
    return DeviceBudget(cpu.name, total(cpu.name, parts, "free and allowed, minus a reserve"))


def gpu_budget(gpu: Device, host: Term) -> DeviceBudget:
    """VRAM, or the part of the host's memory that the driver lets a GPU take."""
    if gpu.integrated:
        return _unified_budget(gpu, host)
    if gpu.memory_bytes is None:
        return DeviceBudget(gpu.name, leaf(gpu.name, None, "the driver doesn't say how much memory it has"))
    parts = _own_memory(gpu, gpu.memory_bytes, gpu.free_bytes)
    return DeviceBudget(gpu.name, total(gpu.name, parts, "free, minus a reserve"))


def metal_working_set(memory_bytes: int) -> int:
    """The most that Metal recommends to keep resident, bytes.

    2/3 of the memory below 36 GiB, 3/4 from there on; `iogpu.wired_limit_mb` overrides it. Source: the values of
    `recommendedMaxWorkingSetSize` that llama.cpp prints at start: 11,453 of 17,180 MB, 17,180 of 25,770, 28,991 of
    38,655. Known error: macOS 26 gives more (12,713 of 17,180 MB; 55,663 of 68,719; 115,449 of 137,439), so this is
    4 to 12 % of the memory too careful there.
    """
    share = METAL_LARGE_SHARE if memory_bytes >= METAL_LARGE_FROM else METAL_SMALL_SHARE
    return int(memory_bytes * share)


def _unified_budget(gpu: Device, host: Term) -> DeviceBudget:
    """A GPU on the host's memory: its carve-out, plus as much of the host's memory as the driver and the host allow."""
    dedicated = gpu.dedicated_bytes or 0
    parts = _own_memory(gpu, dedicated, gpu.free_bytes) if dedicated > DRIVER_LEAST + GPU_RESERVE else []
    if _is_unknown(host):
        return DeviceBudget(gpu.name, leaf(gpu.name, None, "the size of the host's memory is unknown"))
    allowed = gpu.memory_limit_bytes
    parts.append(leaf("shared with the host", int(host.value), "what the host can spare", source="host budget"))
    shared = int(host.value)
    if allowed is not None and allowed < shared:
        formula = f"the driver lets the GPU take {format_bytes(allowed)}"
        parts.append(
            leaf("beyond the driver's limit", allowed - shared, formula, source=_source(gpu, "memory_limit_bytes"))
        )
        shared = allowed
    return DeviceBudget(gpu.name, total(gpu.name, parts, "carve-out and shared memory"), shared_bytes=shared)


def _own_memory(gpu: Device, memory: int, free: int | None) -> list[Term]:
    """The terms of memory that only this GPU uses: all of it, what is in use, the reserve."""
    parts = [leaf("memory", memory, f"{format_bytes(memory)} in all", source=_source(gpu, "memory_bytes"))]
    if free is not None:
        parts.append(
            _taken("in use", memory - free, parts, "by the driver and by programs", _source(gpu, "free_bytes"))
        )
    else:
        held = max(DRIVER_LEAST, int(DRIVER_SHARE * memory))
        parts.append(_taken("driver", held, parts, "max(150 MiB, 1.5 %) that a driver usually keeps"))
        if gpu.display:
            parts.append(_taken("desktop", DISPLAY_IN_USE, parts, "a desktop on its screen"))
    if gpu.display:
        return [*parts, _taken("reserve", DISPLAY_RESERVE, parts, "for windows that open meanwhile")]
    return [*parts, _taken("reserve", GPU_RESERVE, parts, "for rounding and small contexts")]


def _runs_macos(machine: Machine) -> bool:
    return any(gpu.backend == "metal" for gpu in machine.gpus)


def _host_use(cpu: Device, memory: int, usual: int) -> Term:
    """What programs hold now, or what a described host usually holds (`usual`, but no more than a quarter)."""
    total_memory = [leaf("memory", memory)]
    if cpu.free_bytes is not None:
        why = "by programs, without droppable cache"
        return _taken("in use", memory - cpu.free_bytes, total_memory, why, _source(cpu, "free_bytes"))
    used = min(usual, int(HOST_IN_USE_LARGEST_SHARE * memory))
    why = f"min({format_bytes(usual)}, a quarter): a system with a light desktop"
    return _taken("operating system", used, total_memory, why)


def _taken(name: str, amount: int, parts: list[Term], why: str, source: str = "sizeup.machines.budget") -> Term:
    """A deduction, of no more than what the parts leave: a budget is never negative."""
    left = int(sum(part.value for part in parts))
    return leaf(name, -min(max(0, amount), max(0, left)), why, source=source)


def _source(device: Device, field: str) -> str:
    return device.provenance.get(field, "")


def _is_unknown(term: Term) -> bool:
    return not term.parts and term.amount is None
