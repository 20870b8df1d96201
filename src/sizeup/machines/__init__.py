"""Devices, machines, budgets: what there is, what of it may be used, and how fast it is.

The names below are imported when they are first asked for, so that `import sizeup.machines` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sizeup.machines.budget import Budget, DeviceBudget, machine_budget
    from sizeup.machines.catalogue import Entry, System, entries, find_device, find_entry, systems
    from sizeup.machines.device import Device, Disk, Limits, Link, Machine
    from sizeup.machines.machine_file import machine_to_toml, read_machine_file
    from sizeup.machines.probes import probe_machine
    from sizeup.machines.spec import load_machine
    from sizeup.machines.words import device_named, parse_machine

_HOMES = {
    "Budget": "budget", "DeviceBudget": "budget", "machine_budget": "budget",
    "Entry": "catalogue", "System": "catalogue", "entries": "catalogue", "find_device": "catalogue",
    "find_entry": "catalogue", "systems": "catalogue",
    "Device": "device", "Disk": "device", "Limits": "device", "Link": "device", "Machine": "device",
    "machine_to_toml": "machine_file", "read_machine_file": "machine_file",
    "probe_machine": "probes",
    "device_named": "words", "load_machine": "spec", "parse_machine": "words",
}  # fmt: skip

__all__ = [
    "Budget", "Device", "DeviceBudget", "Disk", "Entry", "Limits", "Link", "Machine", "System", "device_named",
    "entries", "find_device", "find_entry", "load_machine", "machine_budget", "machine_to_toml", "parse_machine",
    "probe_machine", "read_machine_file", "systems",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Imports a public name from its module."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)
