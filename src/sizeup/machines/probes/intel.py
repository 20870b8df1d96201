"""Intel GPUs on Linux.

Sources, in this order:
1. /sys/class/drm/card*/device with vendor 0x8086 and driver xe or i915: numbers, PCIe link, screen.
2. Memory: xe's `tile0/physical_vram_size_bytes`, i915's `lmem_total_bytes` and `lmem_avail_bytes`; newer kernels
   dropped the first, then the catalogue's memory is taken and what is free is unknown.
3. The catalogue by PCI device. A GPU that isn't in it and has no memory of its own works on the host's.
ZE_AFFINITY_MASK is obeyed for whole devices.
"""

from __future__ import annotations

from collections.abc import Mapping

from sizeup.machines import catalogue
from sizeup.machines.budget import SHARED_SHARE
from sizeup.machines.catalogue import Entry
from sizeup.machines.device import Device
from sizeup.machines.probes.drm import Card, read_cards
from sizeup.machines.probes.files import Files
from sizeup.machines.probes.merge import completed
from sizeup.machines.probes.visible import visible

_VENDOR = "8086"


def read_intel(files: Files, env: Mapping[str, str], host_bytes: int | None, notes: list[str]) -> list[Device]:
    """The visible Intel GPUs that compute: cards, and those of processors."""
    devices = [intel_device(files, card, host_bytes, notes) for card in read_cards(files, _VENDOR)]
    mask = env.get("ZE_AFFINITY_MASK")
    whole = None if mask is None else ",".join(part.split(".")[0] for part in mask.split(","))
    return [devices[index] for index in visible(whole, [device.identity for device in devices])]


def intel_device(files: Files, card: Card, host_bytes: int | None, notes: list[str]) -> Device:
    """One GPU, completed from the catalogue."""
    record = catalogue.entry_of_hardware(*card.numbers)
    own = _first(
        files, f"{card.path}/tile0/physical_vram_size_bytes", f"{card.path.removesuffix('/device')}/lmem_total_bytes"
    )
    free = files.number(f"{card.path.removesuffix('/device')}/lmem_avail_bytes")
    if own or (record is not None and record.kind == "gpu"):
        probed = Device(
            name=record.name if record else f"Intel GPU {card.numbers[1]}", kind="gpu", vendor="intel", backend="sycl",
            memory_bytes=own, free_bytes=free if own else None, display=card.display, host_link=card.link,
            identity=card.address,
        )  # fmt: skip
        return completed(probed, record, "sysfs", notes)
    return _unified(card, record, host_bytes, notes)


def _unified(card: Card, record: Entry | None, host_bytes: int | None, notes: list[str]) -> Device:
    """A processor's GPU: half of the host's memory, as drivers allow by default."""
    limit = None if host_bytes is None else int(host_bytes * SHARED_SHARE)
    probed = Device(
        name=record.name if record else f"Intel graphics {card.numbers[1]}", kind="unified", vendor="intel",
        backend=record.backend if record else "vulkan", memory_bytes=host_bytes, memory_limit_bytes=limit,
        display=card.display, identity=card.address,
        provenance={"memory_bytes": "the host's memory", "memory_limit_bytes": "rule: half of the host's memory"},
    )  # fmt: skip
    return completed(probed, record, "sysfs", notes)


def _first(files: Files, *paths: str) -> int | None:
    return next((number for path in paths if (number := files.number(path))), None)
