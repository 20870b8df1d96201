"""Where the bytes of a plan live: on each device, by component, each with its derivation."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sizeup.quantity import Term, total

#: What memory is held for. Every item has exactly one.
COMPONENTS = ("weights", "cache", "compute", "overhead")


class Item(msgspec.Struct, frozen=True):
    """One amount of memory on one device.

    component: one of COMPONENTS. name: what exactly (`KV cache, 62 layers`). derivation: the tree it is the sum of.
    """

    component: str
    name: str
    bytes: int
    derivation: Term


class DeviceFootprint(msgspec.Struct, frozen=True):
    """All that a plan holds on one device, against what the device has to give (None: unknown)."""

    device: str
    items: tuple[Item, ...]
    total_bytes: int
    budget_bytes: int | None = None


class Footprint(msgspec.Struct, frozen=True):
    """All that a plan holds, on all devices."""

    devices: tuple[DeviceFootprint, ...]
    total_bytes: int

    def component(self, component: str) -> int:
        """Bytes of one component over all devices."""
        return sum(item.bytes for device in self.devices for item in device.items if item.component == component)

    @property
    def term(self) -> Term:
        """The whole as one tree of terms."""
        return total("memory", [total(d.device, [item.derivation for item in d.items]) for d in self.devices])


def item(component: str, derivation: Term) -> Item:
    """An item whose bytes are the sum of its derivation."""
    if component not in COMPONENTS:
        raise ValueError(f"no such component: {component}")
    return Item(component, derivation.name, int(derivation.value), derivation)


def device_footprint(device: str, items: Iterable[Item], budget_bytes: int | None = None) -> DeviceFootprint:
    """The items of one device and their sum."""
    kept = tuple(items)
    return DeviceFootprint(device, kept, sum(i.bytes for i in kept), budget_bytes)


def footprint(devices: Iterable[DeviceFootprint]) -> Footprint:
    """The devices and their sum."""
    kept = tuple(devices)
    return Footprint(kept, sum(d.total_bytes for d in kept))
