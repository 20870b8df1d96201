"""The device catalogue: facts of known devices and of machines that are sold whole.

People edit `devices/*.toml`; `scripts/build_devices.py` checks them and writes `devices.json`, which is what is
loaded here, once, when first asked for. Each record is decoded only when it is wanted.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import msgspec

from sizeup.errors import BadInput, NotFound
from sizeup.machines.device import Device, Link
from sizeup.machines.names import normalise
from sizeup.quantity.units import GB, GIB

_FILE = Path(__file__).with_name("devices.json")
# What a driver shows is up to 1.5 % less than what is soldered on.
_DRIVER_TOLERANCE = 0.015
# Cards for data centres are labelled in 10^9 bytes, or before what error correction takes (an L4's 24 GB: 23,034 MiB).
_LABEL_TOLERANCE = 0.045


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a group of facts comes from. how: `read` (on that date), `recalled`, `derived`."""

    title: str
    how: str
    checked: str
    url: str = ""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One catalogue record; the fields are those of Device where they have the same name.

    memory_choices: of a unified device, the sizes it is sold with. gpu_share: of a unified device, the share of the
    host's memory that its GPU may take; None for Metal, which has a rule of its own. fact_sources: group of facts
    (`memory`, `compute`, `power`, `link`, `price`) → key in the sources.
    """

    id: str
    name: str
    kind: str
    vendor: str
    klass: str
    backend: str = "cpu"
    arch: str = ""
    capability: str = ""
    released: str = ""
    units: int | None = None
    memory_bytes: int | None = None
    memory_choices: tuple[int, ...] = ()
    memory_type: str = ""
    gpu_share: float | None = None
    bandwidth: int | None = None
    cache_bytes: int | None = None
    compute: dict[str, int] = {}
    power_w: int | None = None
    price_usd: int | None = None
    host_link: Link | None = None
    peer_link: Link | None = None
    cpu_name: str = ""
    cpu_cores: int | None = None
    cpu_threads: int | None = None
    cpu_clock_hz: int | None = None
    cpu_features: tuple[str, ...] = ()
    fact_sources: dict[str, str] = {}

    @property
    def memory_channels(self) -> int | None:
        """64-bit channels of RAM: bandwidth ÷ (transfers/s × 8 bytes), where the type says the speed (`DDR5-4800`)."""
        speed = self.memory_type.rpartition("-")[2]
        if self.bandwidth is None or not speed.isdigit():
            return None
        return max(1, round(self.bandwidth / (int(speed) * 8e6)))

    def device(self, memory_bytes: int | None = None) -> Device:
        """The device itself; a unified one with the memory given, or with its only size."""
        memory = memory_bytes or self.memory_bytes
        if memory is None and len(self.memory_choices) == 1:
            memory = self.memory_choices[0]
        fields = {name: getattr(self, name) for name in _SHARED_FIELDS}
        return Device(
            **fields,
            memory_bytes=memory,
            features=self.cpu_features if self.kind == "cpu" else (),
            catalogue_id=self.id,
            provenance={name: "catalogue" for name, value in fields.items() if value} | {"memory_bytes": "catalogue"},
        )


class System(msgspec.Struct, frozen=True, omit_defaults=True):
    """A machine that is sold or rented whole, as the text that `parse_machine` reads."""

    id: str
    name: str
    machine: str
    price_usd: int | None = None
    released: str = ""
    source: str = ""


class _File(msgspec.Struct, frozen=True):
    devices: dict[str, msgspec.Raw]
    systems: dict[str, System]
    names: dict[str, tuple[str, ...]]
    system_names: dict[str, str]
    hardware_ids: dict[str, str]
    sources: dict[str, Source]


_SHARED_FIELDS = (
    "name", "kind", "vendor", "klass", "backend", "arch", "capability", "released", "units", "memory_type",
    "bandwidth", "cache_bytes", "compute", "power_w", "price_usd", "host_link", "peer_link",
)  # fmt: skip


@lru_cache(maxsize=1)
def _catalogue() -> _File:
    return msgspec.json.decode(_FILE.read_bytes(), type=_File)


@lru_cache(maxsize=512)
def entry(device_id: str) -> Entry:
    """The record with that id. Raises KeyError for an id that isn't there."""
    return msgspec.json.decode(_catalogue().devices[device_id], type=Entry)


def entries() -> tuple[Entry, ...]:
    """Every record, in the order of the files."""
    return tuple(entry(device_id) for device_id in _catalogue().devices)


def systems() -> tuple[System, ...]:
    """Every machine that is sold whole."""
    return tuple(_catalogue().systems.values())


def sources() -> dict[str, Source]:
    """Where the facts come from, by key."""
    return _catalogue().sources


def find_system(name: str) -> System | None:
    """The machine of exactly that name, or None."""
    file = _catalogue()
    system_id = file.system_names.get(normalise(name))
    return None if system_id is None else file.systems[system_id]


def candidates(name: str) -> tuple[Entry, ...]:
    """The records that a name can mean: none, one, or several (the most common first)."""
    return tuple(entry(device_id) for device_id in _catalogue().names.get(normalise(name), ()))


def entry_of_hardware(*numbers: str) -> Entry | None:
    """The record of the first hardware number that is known, or None.

    Numbers are `vendor:device[:revision]` of PCI in hexadecimal (`1002:744c:c8`), `vendor-family-model` of a CPU as
    /proc/cpuinfo prints them (`AuthenticAMD-25-33`), or `ARM-implementer-part`.
    """
    known = _catalogue().hardware_ids
    device_id = next((known[number] for number in numbers if number in known), None)
    return None if device_id is None else entry(device_id)


def find_entry(name: str, *, memory_bytes: int | None = None, bandwidth: int | None = None) -> Entry:
    """The record that a name means, narrowed by its memory and bandwidth when the name alone is not enough.

    Names that differ only in form (A100 PCIe or SXM) give the most common one. Raises NotFound for an unknown name,
    with the nearest known ones; BadInput when variants with different memory remain.
    """
    found = candidates(name)
    if not found:
        raise NotFound(f"unknown device: {name!r}", hint=nearest(name))
    if memory_bytes is not None and not any(has_memory(record, memory_bytes) for record in found):
        sizes = ", ".join(_memory_labels(found))
        raise BadInput(f"{name} doesn't come with {_label(memory_bytes)}", hint=f"it has {sizes}")
    found = narrowed(found, memory_bytes=memory_bytes, bandwidth=bandwidth)
    if len({(e.memory_bytes, e.memory_choices) for e in found}) > 1:
        choices = ", ".join(f"'{choice}'" for choice in _choices(found))
        raise BadInput(f"{name!r} can mean several devices", hint=f"say which: {choices}")
    return found[0]


def narrowed(
    found: tuple[Entry, ...], *, memory_bytes: int | None = None, bandwidth: int | None = None
) -> tuple[Entry, ...]:
    """Those that have the memory, of them the one whose bandwidth is nearest; what is None doesn't narrow."""
    if memory_bytes is not None:
        found = tuple(record for record in found if has_memory(record, memory_bytes))
    if bandwidth is not None and found:
        return (min(found, key=lambda record: abs((record.bandwidth or 0) - bandwidth)),)
    return found


def find_device(name: str, *, memory_bytes: int | None = None, bandwidth: int | None = None) -> Device:
    """The device that a name means; see `find_entry`."""
    return find_entry(name, memory_bytes=memory_bytes, bandwidth=bandwidth).device(memory_bytes)


def has_memory(record: Entry, memory_bytes: int) -> bool:
    """Whether a size, as people or drivers give it, is one that the device comes with."""
    if record.memory_choices:
        return memory_bytes in record.memory_choices
    if record.memory_bytes is None:
        return True
    if _near(record.memory_bytes, memory_bytes, _DRIVER_TOLERANCE):
        return True
    return record.klass == "datacentre" and _near(record.memory_bytes, memory_bytes * GB // GIB, _LABEL_TOLERANCE)


def _near(size: int, other: int, tolerance: float) -> bool:
    return abs(size - other) <= tolerance * size


def _choices(found: tuple[Entry, ...]) -> list[str]:
    labels = []
    for record in found:
        sizes = [_label(size) for size in record.memory_choices]
        labels.append(f"{record.name} ({', '.join(sizes)})" if sizes else f"{record.name}")
    return labels


def _memory_labels(found: tuple[Entry, ...]) -> list[str]:
    sizes = {size for record in found for size in (record.memory_choices or (record.memory_bytes or 0,))}
    return [_label(size) for size in sorted(sizes)]


def _label(size: int) -> str:
    return f"{round(size / GIB)} GB"


def nearest(name: str) -> str:
    """A hint that names the known devices with the most similar names."""
    import difflib

    file = _catalogue()
    close = difflib.get_close_matches(normalise(name), [*file.names, *file.system_names], n=4, cutoff=0.6)
    known = dict.fromkeys(_known_name(file, key) for key in close)
    if not known:
        return "describe it in a TOML file (docs/machine-file.md)"
    return f"nearest known: {', '.join(known)}; or describe it in a TOML file (docs/machine-file.md)"


def _known_name(file: _File, key: str) -> str:
    if key in file.names:
        return entry(file.names[key][0]).name
    return file.systems[file.system_names[key]].name
