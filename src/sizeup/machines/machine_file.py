"""Machine files: a machine written down in TOML, and a machine written out as one.

    name = "the lab's server"
    os = "linux"
    notes = ["measured in the night"]

    [cpu]
    name = "EPYC 9354"             # a known CPU fills in what isn't given
    memory = "384 GB"              # or memory_bytes = 412316860416
    free = "350 GB"
    bandwidth = 460800000000       # bytes/s

    [[gpu]]
    device = "RTX 6000 Ada"        # a known device fills in what isn't given; without it, give name, kind and memory
    count = 2
    free = "46 GB"
    display = false

    [limits]                       # of a container, when there is one
    memory = "64 GB"
    cpus = 8

Every field of Device may stand in `[cpu]` and `[[gpu]]` under its own name; `memory`, `free` and `dedicated` are
texts with a unit (GB of memory are 2^30 bytes), their `…_bytes` forms are integers.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from sizeup.errors import BadFile, BadInput, NotFound
from sizeup.machines import catalogue
from sizeup.machines.device import Device, Disk, Limits, Machine
from sizeup.quantity.units import parse_bytes

_MAX_FILE_BYTES = 1 << 20
_MAX_COUNT = 4096
_TOP = frozenset({"name", "os", "notes", "cpu", "gpu", "limits", "disk", "cpu_threads", "evidence"})
_SIZES = {"memory": "memory_bytes", "free": "free_bytes", "dedicated": "dedicated_bytes"}


def read_machine_file(path: str | Path) -> Machine:
    """The machine of a TOML file. Raises NotFound, or BadFile naming what is wrong with it."""
    file = Path(path).expanduser()
    try:
        if file.stat().st_size > _MAX_FILE_BYTES:
            raise BadFile(f"{file}: too large for a machine file", hint="see docs/machine-file.md")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"no machine file {file}", hint="see docs/machine-file.md for what it holds") from None
    except (OSError, ValueError) as error:
        raise BadFile(f"{file}: {error}", hint="see docs/machine-file.md") from error
    return machine_from_toml(text, name=file.stem)


def machine_from_toml(text: str, *, name: str = "machine file") -> Machine:
    """The machine that TOML text describes; `name` is used when it gives none. Raises BadFile."""
    try:
        data = tomllib.loads(text)
        return _machine(data, name)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, BadInput, NotFound, ValueError, RecursionError) as error:
        raise BadFile(f"{name}: {error}", hint=getattr(error, "hint", "") or "see docs/machine-file.md") from error


def machine_to_toml(machine: Machine) -> str:
    """TOML that `machine_from_toml` reads back as the same machine."""
    lines = [f"name = {_value(machine.name)}"]
    lines += [f"{field} = {_value(text)}" for field in ("os", "evidence") if (text := getattr(machine, field))]
    if machine.cpu_threads is not None:
        lines.append(f"cpu_threads = {machine.cpu_threads}")
    if machine.notes:
        lines.append(f"notes = {_value(list(machine.notes))}")
    lines += ["", "[cpu]", *_table(machine.cpu)]
    for gpu in machine.gpus:
        lines += ["", "[[gpu]]", *_table(gpu)]
    for key, part in (("limits", machine.limits), ("disk", machine.disk)):
        if part is not None and (rows := _table(part)):
            lines += ["", f"[{key}]", *rows]
    return "\n".join(lines) + "\n"


def _machine(data: dict[str, Any], name: str) -> Machine:
    if unknown := data.keys() - _TOP:
        raise BadInput(f"unknown entries: {', '.join(sorted(unknown))}", hint=f"known are {', '.join(sorted(_TOP))}")
    gpus = data.get("gpu", [])
    if not isinstance(gpus, list) or not all(isinstance(gpu, dict) for gpu in gpus):
        raise BadInput("gpu must be a list of tables", hint="write [[gpu]] above each")
    cpu = data.get("cpu")
    if not isinstance(cpu, dict):
        raise BadInput("no [cpu] table", hint="at least its memory is needed")
    limits, disk = data.get("limits", {}), data.get("disk")
    return Machine(
        name=msgspec.convert(data.get("name", name), str),
        cpu=_device(cpu, default_kind="cpu"),
        gpus=tuple(device for gpu in gpus for device in _devices(gpu)),
        cpu_threads=msgspec.convert(data.get("cpu_threads"), int | None),
        disk=None if disk is None else msgspec.convert(_sizes(disk), Disk),
        os=msgspec.convert(data.get("os", ""), str),
        limits=msgspec.convert(_sizes(limits), Limits),
        evidence=msgspec.convert(data.get("evidence", "file"), str),
        notes=msgspec.convert(data.get("notes", []), tuple[str, ...]),
    )


def _devices(gpu: dict[str, Any]) -> list[Device]:
    count = msgspec.convert(gpu.get("count", 1), int)
    if not 0 < count <= _MAX_COUNT:
        raise BadInput(f"count = {count}", hint=f"between 1 and {_MAX_COUNT}")
    return [_device({key: value for key, value in gpu.items() if key != "count"}, default_kind="gpu")] * count


class _CheckedDevice(Device, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device as a file must give it: a misspelt field is an error."""


def _device(table: dict[str, Any], default_kind: str) -> Device:
    """A device from its table, completed from the catalogue when it names a known one.

    A table with `provenance`, as `machine_to_toml` writes it, is complete and taken as it is.
    """
    given = _sizes(table)
    if "provenance" not in given:
        given = _completed(given, default_kind)
    device = msgspec.convert(given, _CheckedDevice)
    _check(device)
    return Device(**{field: getattr(device, field) for field in Device.__struct_fields__})


def _completed(given: dict[str, Any], default_kind: str) -> dict[str, Any]:
    """What is given over what the catalogue knows of the device named."""
    is_cpu = default_kind == "cpu"
    name = given.pop("device", None) or (given.get("name") if is_cpu else None)
    known: dict[str, Any] = {"name": default_kind.upper(), "kind": default_kind, "vendor": "", "provenance": {}}
    if isinstance(name, str) and (not is_cpu or catalogue.candidates(name)):
        memory = None if is_cpu else given.get("memory_bytes")
        known |= msgspec.to_builtins(catalogue.find_device(name, memory_bytes=memory))
    return known | given | {"provenance": known["provenance"] | dict.fromkeys(given, "file")}


def _check(device: Device) -> None:
    """Sizes and rates are positive, and no more is free than there is. Raises BadInput."""
    for field in ("memory_bytes", "bandwidth", "units", "cache_bytes", "power_w"):
        value = getattr(device, field)
        if value is not None and value <= 0:
            raise BadInput(f"{device.name}: {field} = {value}", hint="leave out what isn't known")
    if device.free_bytes is not None and not 0 <= device.free_bytes <= (device.memory_bytes or device.free_bytes):
        raise BadInput(f"{device.name}: free_bytes = {device.free_bytes}", hint="between 0 and memory_bytes")


def _sizes(table: Any) -> dict[str, Any]:
    """The table with `memory = "64 GB"` written as `memory_bytes = …`."""
    if not isinstance(table, dict):
        raise BadInput(f"a table is needed, not {table!r}", hint="see docs/machine-file.md")
    sizes: dict[str, Any] = {}
    for key, value in table.items():
        is_text = key in _SIZES and isinstance(value, str)
        sizes[_SIZES.get(str(key), str(key))] = _binary_bytes(value) if is_text else value
    return sizes


def _binary_bytes(text: str) -> int:
    """`24 GB` of memory → 24 · 2^30, as memory is sold."""
    unit = text.strip().lower()
    return parse_bytes(unit.removesuffix("b") if unit.endswith(("kb", "mb", "gb", "tb")) else unit)


def _table(part: msgspec.Struct) -> list[str]:
    """The lines of a table: every field that isn't at its default."""
    rows = msgspec.to_builtins(part)
    return [f"{key} = {_value(value)}" for key, value in rows.items() if value is not None]


def _value(value: Any) -> str:
    """A TOML value. JSON's strings are TOML's basic strings but for DEL, which TOML wants escaped."""
    if isinstance(value, dict):
        inner = ", ".join(f"{_value(str(key))} = {_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
