"""Measure this machine in about a minute, and predict with what was found from then on.

Memory is read with one thread and with all; llama.cpp, if it is there, runs small models of random weights in the usual
formats. The result is kept with your data (SIZEUP_CALIBRATION names another file) and applies while the devices,
threads and memory stay the same. Close other programs first: what they take is missing here.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from sizeup.estimate.speed.ceilings import ceilings
from sizeup.estimate.speed.passes import rates
from sizeup.machines.probes import probe_machine
from sizeup.measure.calibrate import FormatRate, Measured, MemoryRate, calibrate
from sizeup.measure.calibration import apply, keep
from sizeup.progress import tell


class MachineCalibrateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure."""

    threads: Annotated[int | None, Meta(description="Threads to compute with; default: the cores.")] = None
    dry_run: Annotated[bool, Meta(description="Measure, but keep nothing.")] = False


class CalibratedDevice(msgspec.Struct, frozen=True):
    """A device as measured. bandwidth: bytes/s at which weights stream; corrections: on the seconds of single parts."""

    device: str
    bandwidth: float
    theoretical_bandwidth: float
    corrections: dict[str, float]


class MachineCalibrateReport(msgspec.Struct, frozen=True):
    """What was measured. kept: the file, empty after a dry run."""

    machine: str
    memory: tuple[MemoryRate, ...]
    multiply: dict[str, float]
    formats: tuple[FormatRate, ...]
    devices: tuple[CalibratedDevice, ...]
    kept: str
    notes: tuple[str, ...] = ()
    schema: str = "sizeup.machine_calibrate/1"


def machine_calibrate(request: MachineCalibrateRequest) -> MachineCalibrateReport:
    """Measure the machine at hand and keep what was found."""
    machine = probe_machine()
    found: Measured = calibrate(machine, threads=request.threads, say=tell)
    path = "" if request.dry_run else str(keep(found.calibration))
    known = {device.name: device for device in machine.devices}
    devices = tuple(
        CalibratedDevice(
            name,
            rates(apply(ceilings(known[name]), fitted)).streaming,
            ceilings(known[name]).bandwidth,
            fitted.corrections,
        )
        for name, fitted in found.calibration.devices.items()
    )
    return MachineCalibrateReport(machine.name, found.memory, found.multiply, found.formats, devices, path, found.notes)
