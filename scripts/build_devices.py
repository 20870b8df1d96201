"""Checks `src/sizeup/machines/devices/*.toml` and compiles them into `src/sizeup/machines/devices.json`.

Run it after editing a TOML file: `python scripts/build_devices.py`. With `--check` it writes nothing and fails when
the JSON is out of date. Refuses two devices with one name, facts without a source, and unknown fields.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from sizeup.machines.catalogue import Entry, Source, System
from sizeup.machines.names import normalise

FOLDER = Path(__file__).parents[1] / "src" / "sizeup" / "machines"
FACT_GROUPS = {
    "memory": ("memory_bytes", "memory_choices", "bandwidth", "cache_bytes"),
    "compute": ("compute", "units"),
    "power": ("power_w",),
    "price": ("price_usd",),
}


def main() -> int:
    text = build()
    target = FOLDER / "devices.json"
    if "--check" in sys.argv[1:]:
        if target.read_bytes() != text:
            print("devices.json is out of date: run scripts/build_devices.py", file=sys.stderr)
            return 1
        return 0
    target.write_bytes(text)
    devices = msgspec.json.decode(text)["devices"]
    print(f"{len(devices)} devices, {len(text):,} bytes")
    return 0


def build(folder: Path = FOLDER / "devices") -> bytes:
    """The compiled catalogue. Raises ValueError that names the device and what is wrong with it."""
    devices: dict[str, dict[str, Any]] = {}
    systems: dict[str, Any] = {}
    names: dict[str, list[str]] = {}
    system_names: dict[str, str] = {}
    hardware_ids: dict[str, str] = {}
    sources: dict[str, Any] = {}
    choices: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.toml")):
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        for key, source in data.get("source", {}).items():
            msgspec.convert(source, Source)
            add(sources, key, source, "source")
        for raw in data.get("device", []):
            record = {**data.get("defaults", {}), **raw}
            aliases = record.pop("aliases", [])
            for number in (*record.pop("cpuids", []), *record.pop("pci_ids", [])):
                add(hardware_ids, number, record["id"], "hardware number")
            add(devices, record["id"], checked(record), "device id")
            for key in dict.fromkeys(normalise(name) for name in (record["id"], record["name"], *aliases)):
                add(names, key, [record["id"]], "device name")
        for system in data.get("system", []):
            aliases = system.pop("aliases", [])
            add(systems, system["id"], msgspec.to_builtins(msgspec.convert(system, System)), "system id")
            for key in dict.fromkeys(normalise(name) for name in (system["id"], system["name"], *aliases)):
                add(system_names, key, system["id"], "system name")
        choices += data.get("choice", [])
    for choice in choices:
        for device_id in choice["devices"]:
            if device_id not in devices:
                raise ValueError(f"choice {choice['names']}: no device {device_id}")
        for key in dict.fromkeys(normalise(name) for name in choice["names"]):
            add(names, key, choice["devices"], "device name")
    check_sources(devices, sources)
    if both := names.keys() & system_names.keys():
        raise ValueError(f"both a device and a system: {sorted(both)}")
    file = {
        "devices": devices, "systems": systems, "names": names,
        "system_names": system_names, "hardware_ids": hardware_ids, "sources": sources,
    }  # fmt: skip
    return msgspec.json.encode(file) + b"\n"


def add(table: dict[str, Any], key: str, value: Any, what: str) -> None:
    if not key:
        raise ValueError(f"an empty {what} for {value}")
    if key in table:
        raise ValueError(f"two times the {what} {key!r}: {table[key]} and {value}")
    table[key] = value


def checked(record: dict[str, Any]) -> dict[str, Any]:
    try:
        return msgspec.to_builtins(msgspec.convert(record, CheckedEntry))
    except msgspec.ValidationError as error:
        raise ValueError(f"device {record.get('id')}: {error}") from error


class CheckedEntry(Entry, frozen=True, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """An entry as the files must give it: a misspelt field is an error."""


def check_sources(devices: dict[str, dict[str, Any]], sources: dict[str, Any]) -> None:
    """Every group of facts has a source, and every source that is named exists."""
    for device_id, record in devices.items():
        given = record.get("fact_sources", {})
        for group, fields in FACT_GROUPS.items():
            if any(record.get(field) for field in fields) and group not in given:
                raise ValueError(f"device {device_id}: no source for {group}")
        for group, key in given.items():
            if key not in sources:
                raise ValueError(f"device {device_id}: unknown source {key!r} for {group}")


if __name__ == "__main__":
    sys.exit(main())
