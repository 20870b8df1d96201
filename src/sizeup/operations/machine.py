"""The machine at hand, or one described: memory, links and speeds, what is usable, and where each fact is from.

Describe a machine with --machine "2x RTX 4090, 64 GB RAM", --machine "MacBook Pro M4 Max 64 GB" or a TOML file.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from sizeup.machines.budget import machine_budget
from sizeup.machines.device import Machine
from sizeup.machines.spec import load_machine
from sizeup.quantity import Term


class MachineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which machine."""

    machine: Annotated[str, Meta(description="'2x RTX 4090, 64 GB RAM', a TOML file; default: this machine.")] = ""


class UsableMemory(msgspec.Struct, frozen=True):
    """What may be used on one device; bytes is None when unknown, and the derivation says why."""

    device: str
    kind: str
    bytes: int | None
    shared_bytes: int
    derivation: Term


class MachineReport(msgspec.Struct, frozen=True):
    """The machine, and what may be used on each of its devices."""

    machine: Machine
    usable: tuple[UsableMemory, ...]
    schema: str = "sizeup.machine/1"


def machine(request: MachineRequest) -> MachineReport:
    """Probe or read the machine."""
    return report_on(load_machine(request.machine or None))


def report_on(found: Machine) -> MachineReport:
    """What may be used on each device of a machine."""
    budget = machine_budget(found)
    kinds = [device.kind for device in found.devices]
    usable = tuple(
        UsableMemory(b.device, kind, b.usable_bytes, b.shared_bytes, b.usable)
        for b, kind in zip((*budget.gpus, budget.host), kinds, strict=True)
    )
    return MachineReport(found, usable)
