"""Devices and machines: plain facts, each with where it came from."""

from __future__ import annotations

import msgspec


class Link(msgspec.Struct, frozen=True, omit_defaults=True):
    """A road for bytes.

    kind: `pcie`, `nvlink`, `xgmi`, `soc` (the device sits on the host's memory).
    bytes_per_s: payload in one direction at the theoretical rate.
    """

    kind: str
    bytes_per_s: int
    generation: str = ""
    lanes: int | None = None


class Device(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One pool of memory and what computes on it.

    kind: `gpu` (memory of its own), `unified` (a GPU on the host's memory), `cpu`.
    klass: `desktop`, `laptop`, `workstation`, `datacentre`, `embedded`, `integrated`, `cpu`; empty when unknown.
    memory_bytes: the total the driver shows; of a unified device all the host's memory and its carve-out.
    free_bytes: what nobody uses now (of a unified device: of its carve-out); None when unknown.
    dedicated_bytes: of a unified device, the part that the firmware took away from the host (carve-out).
    memory_limit_bytes: of a unified device, the most the driver lets the GPU take (Metal working set, GTT).
    bandwidth: theoretical bytes/s of the memory.
    compute: dense FLOP/s (never sparse) by number type: fp32, fp16, bf16, fp8, fp4, int8, with 32-bit
        accumulation; `fp16_acc16` where accumulating in fp16 is faster. A missing type is not accelerated or unknown.
    units: streaming multiprocessors, compute units, Xe cores, GPU cores; of a CPU its physical cores.
    cache_bytes: the last cache before the memory.
    backend: `cuda`, `rocm`, `vulkan`, `metal`, `sycl`, `cpu`: the fastest that llama.cpp has for it.
    host_link: to the host; peer_link: to its like (NVLink, xGMI).
    price_usd: at launch, without tax.
    display: whether it drives a screen; None when unknown.
    identity: what tells it from its like here (UUID, PCI address).
    provenance: field → where it came from (`nvml`, `catalogue`, `described`, `assumed: …`).
    """

    name: str
    kind: str
    vendor: str
    memory_bytes: int | None = None
    free_bytes: int | None = None
    dedicated_bytes: int | None = None
    memory_limit_bytes: int | None = None
    memory_type: str = ""
    bandwidth: int | None = None
    compute: dict[str, int] = {}
    units: int | None = None
    cache_bytes: int | None = None
    backend: str = "cpu"
    arch: str = ""
    capability: str = ""
    klass: str = ""
    host_link: Link | None = None
    peer_link: Link | None = None
    power_w: int | None = None
    price_usd: int | None = None
    released: str = ""
    display: bool | None = None
    features: tuple[str, ...] = ()
    catalogue_id: str = ""
    identity: str = ""
    provenance: dict[str, str] = {}

    @property
    def integrated(self) -> bool:
        """Whether it works on the host's memory."""
        return self.kind == "unified"


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a container or a scheduler allows; None where it doesn't limit.

    memory_used_bytes: what this group uses of its memory now, without cache that can be dropped.
    """

    memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    cpus: float | None = None
    source: str = ""


class Disk(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where models are kept, and the room left there."""

    path: str
    free_bytes: int | None = None
    total_bytes: int | None = None


class Machine(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Everything an estimate wants to know of a machine.

    cpu: the host: its memory_bytes is the RAM, units its physical cores, features its instruction sets.
    cpu_threads: logical processors that may be used.
    evidence: `probed`, `described` or `file`.
    notes: what was assumed or could not be read, one sentence each.
    """

    name: str
    cpu: Device
    gpus: tuple[Device, ...] = ()
    cpu_threads: int | None = None
    disk: Disk | None = None
    os: str = ""
    limits: Limits = Limits()
    evidence: str = "described"
    notes: tuple[str, ...] = ()

    @property
    def unified(self) -> bool:
        """Whether every GPU works on the host's memory (Apple silicon, APUs, GB10)."""
        return bool(self.gpus) and all(gpu.integrated for gpu in self.gpus)

    @property
    def devices(self) -> tuple[Device, ...]:
        """The GPUs, then the host."""
        return (*self.gpus, self.cpu)
