r"""AMD and Intel GPUs on Windows, from the registry's display adapters.

Sources: `HKLM\SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}\000N`: `DriverDesc`,
`HardwareInformation.qwMemorySize`, `MatchingDeviceId`. What is free isn't said there. NVIDIA is left to NVML.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.machines import catalogue
from sizeup.machines.budget import SHARED_SHARE
from sizeup.machines.device import Device
from sizeup.machines.probes.merge import completed, record_named

_CLASS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
_VENDORS = {"ven_1002": ("amd", "1002"), "ven_8086": ("intel", "8086")}


def read_windows(host_bytes: int | None, notes: list[str]) -> list[Device]:
    """The AMD and Intel display adapters of this Windows machine."""
    return [device for row in _registry_rows() if (device := adapter(row, host_bytes, notes)) is not None]


def adapter(row: dict[str, Any], host_bytes: int | None, notes: list[str]) -> Device | None:
    """The device of one registry key; None for other vendors and for virtual adapters."""
    matching = str(row.get("MatchingDeviceId", "")).lower()
    vendor, number = next((pair for key, pair in _VENDORS.items() if key in matching), ("", ""))
    name = str(row.get("DriverDesc", "")).strip()
    if not vendor or not name:
        return None
    size = row.get("HardwareInformation.qwMemorySize")
    memory = size if isinstance(size, int) and 0 < size < 1 << 50 else None
    device_number = matching.partition("dev_")[2][:4]
    record = record_named(name, memory) or catalogue.entry_of_hardware(f"{number}:{device_number}")
    probed = Device(
        name=name, kind="gpu", vendor=vendor, backend="vulkan", memory_bytes=memory, identity=matching, display=None,
    )  # fmt: skip
    if record is not None and record.kind == "unified":
        limit = None if host_bytes is None else int(host_bytes * SHARED_SHARE)
        probed = msgspec.structs.replace(
            probed, kind="unified", dedicated_bytes=memory, memory_bytes=host_bytes, memory_limit_bytes=limit,
            provenance={"memory_limit_bytes": "rule: Windows shares half of the host's memory"},
        )  # fmt: skip
    return completed(probed, record, "registry", notes)


def _registry_rows() -> list[dict[str, Any]]:
    """The values of every numbered key of the display class; empty where there is no registry."""
    try:
        import winreg
    except ImportError:
        return []
    rows: list[dict[str, Any]] = []
    registry: Any = winreg
    try:
        with registry.OpenKey(registry.HKEY_LOCAL_MACHINE, _CLASS) as parent:
            for index in range(64):
                try:
                    with registry.OpenKey(parent, f"{index:04d}") as key:
                        count = registry.QueryInfoKey(key)[1]
                        rows.append(
                            {name: value for name, value, _ in (registry.EnumValue(key, n) for n in range(count))}
                        )
                except OSError:
                    continue
    except OSError:
        return rows
    return rows
