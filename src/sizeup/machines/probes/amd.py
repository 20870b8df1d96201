"""AMD GPUs on Linux.

Sources, in this order:
1. /sys/class/drm/card*/device with vendor 0x1002: numbers, VRAM in all and used, GTT in all and used, PCIe link,
   power cap, screen. Without such a card nothing else is looked at.
2. The name: `product_name`, else the catalogue by PCI device and revision, else libdrm's amdgpu.ids.
3. /sys/class/kfd/kfd/topology/nodes/*: compute units and gfx version; without it (no ROCm kernel driver, no access)
   Vulkan is taken as the backend.
ROCR_VISIBLE_DEVICES, then HIP_VISIBLE_DEVICES, are obeyed. No tool is started and no ROCm library loaded: `amdsmi`
has nothing that the kernel doesn't say, and raises when it doesn't match the driver.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sizeup.machines import catalogue
from sizeup.machines.catalogue import Entry
from sizeup.machines.device import Device
from sizeup.machines.probes.drm import Card, read_cards
from sizeup.machines.probes.files import Files, to_int
from sizeup.machines.probes.merge import completed, record_named
from sizeup.machines.probes.visible import visible

_VENDOR = "1002"
_NODES = "/sys/class/kfd/kfd/topology/nodes"
# No card for computing has so little memory; it is the usual carve-out of a processor's graphics.
_CARVE_OUT_LIKELY = 1 << 30
_IDS = ("/usr/share/libdrm/amdgpu.ids", "/opt/amdgpu/share/libdrm/amdgpu.ids")


class KfdNode(msgspec.Struct, frozen=True):
    """A GPU as the compute driver sees it."""

    units: int | None
    gfx: str
    identity: str
    has_cpu: bool


def read_amd(files: Files, env: Mapping[str, str], host_bytes: int | None, notes: list[str]) -> list[Device]:
    """The visible AMD GPUs, discrete ones and those of processors."""
    cards = read_cards(files, _VENDOR)
    if not cards:
        return []
    nodes = _read_nodes(files)
    devices = [amd_device(files, card, nodes.get(card.address), host_bytes, notes) for card in cards]
    for variable in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        devices = [devices[index] for index in visible(env.get(variable), [device.identity for device in devices])]
    return devices


def amd_device(files: Files, card: Card, node: KfdNode | None, host_bytes: int | None, notes: list[str]) -> Device:
    """One card, completed from the catalogue."""
    vram = files.number(f"{card.path}/mem_info_vram_total")
    used = files.number(f"{card.path}/mem_info_vram_used")
    name, record = _named(files, card, vram)
    unified = record.kind == "unified" if record else _looks_integrated(vram, node)
    power = _power(files, card)
    free = None if vram is None or used is None else max(0, vram - used)
    probed = Device(
        name=name, kind="gpu", vendor="amd", backend="rocm" if node else "vulkan", memory_bytes=vram, free_bytes=free,
        units=node.units if node else None, capability=node.gfx if node else "", power_w=power, display=card.display,
        host_link=None if unified else card.link, identity=node.identity if node else card.address,
    )  # fmt: skip
    if unified:
        probed = _unified(files, card, probed, vram, host_bytes)
    return completed(probed, record, "sysfs", notes)


def parse_properties(text: str) -> dict[str, int]:
    """A KFD `properties` file: `name value` a line."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: value for row in rows if len(row) == 2 and (value := to_int(row[1])) is not None}


def parse_gfx(version: int) -> str:
    """110001 → `gfx1101`, 90010 → `gfx90a`: major, minor and stepping, the last two in hexadecimal."""
    major, rest = divmod(version, 10000)
    minor, stepping = divmod(rest, 100)
    return f"gfx{major}{minor:x}{stepping:x}" if version else ""


def parse_ids(text: str, number: str) -> str:
    """The product name of `vendor:device:revision` in an amdgpu.ids file, empty when it isn't there."""
    _, device, revision = number.split(":")
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",", 2)]
        if len(parts) == 3 and parts[0].lower() == device and parts[1].lower() == revision:
            return parts[2]
    return ""


def _named(files: Files, card: Card, vram: int | None) -> tuple[str, Entry | None]:
    """The name and the record, by the ladder above."""
    product = (files.read(f"{card.path}/product_name") or "").strip()
    record = record_named(product, vram) if product else None
    record = record or catalogue.entry_of_hardware(*card.numbers)
    if record is not None:
        return product or record.name, record
    texts = (files.read(path) for path in _IDS)
    listed = next((name for text in texts if text and (name := parse_ids(text, card.numbers[0]))), "")
    return product or listed or f"AMD GPU {card.numbers[1]}", record_named(listed, vram) if listed else None


def _unified(files: Files, card: Card, probed: Device, vram: int | None, host_bytes: int | None) -> Device:
    """A processor's GPU: its carve-out, and as much of the host's memory as GTT lets it take."""
    gtt = files.number(f"{card.path}/mem_info_gtt_total")
    total = None if host_bytes is None else host_bytes + (vram or 0)
    source = {"dedicated_bytes": "sysfs: VRAM carve-out", "memory_limit_bytes": "sysfs: mem_info_gtt_total"}
    return msgspec.structs.replace(
        probed, kind="unified", memory_bytes=total, dedicated_bytes=vram, memory_limit_bytes=gtt,
        provenance=source | {"memory_bytes": "the host's memory and the carve-out"},
    )  # fmt: skip


def _read_nodes(files: Files) -> dict[str, KfdNode]:
    """PCI address → node of the compute driver."""
    nodes = {}
    for name in files.names(_NODES):
        rows = parse_properties(files.read(f"{_NODES}/{name}/properties") or "")
        if not rows.get("simd_count"):
            continue
        location, domain = rows.get("location_id", 0), rows.get("domain", 0)
        address = f"{domain:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.{location & 7}"
        simds = rows.get("simd_per_cu") or 0
        unique = rows.get("unique_id", 0)
        nodes[address] = KfdNode(
            units=rows["simd_count"] // simds if simds else None, gfx=parse_gfx(rows.get("gfx_target_version", 0)),
            identity=f"GPU-{unique:016x}" if unique else address, has_cpu=rows.get("cpu_cores_count", 0) > 0,
        )  # fmt: skip
    return nodes


def _looks_integrated(vram: int | None, node: KfdNode | None) -> bool:
    """Whether an unknown GPU belongs to a processor: its node has CPU cores, or it has next to no VRAM."""
    return bool(node and node.has_cpu) or (vram is not None and vram <= _CARVE_OUT_LIKELY)


def _power(files: Files, card: Card) -> int | None:
    """The power cap of the card's sensor, watt."""
    folder = f"{card.path}/hwmon"
    caps = (files.number(f"{folder}/{name}/power1_cap") for name in files.names(folder))
    return next((cap // 10**6 for cap in caps if cap), None)
