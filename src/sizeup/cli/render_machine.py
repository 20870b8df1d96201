"""A machine for people: its devices, what may be used, and what could not be read."""

from __future__ import annotations

from collections.abc import Iterator

from sizeup.cli import text
from sizeup.cli.explain import term_lines
from sizeup.machines.device import Device
from sizeup.operations.machine import MachineReport, UsableMemory
from sizeup.quantity.units import GB, format_bytes

_TYPES = ("bf16", "fp16", "fp8", "fp4", "int8", "fp32")


def render(report: MachineReport, *, explain: bool) -> list[str]:
    """Devices as a table; the derivation of what is usable when explaining; notes last."""
    found = report.machine
    lines = [text.heading(found.name, f"{found.evidence}{', ' + found.os if found.os else ''}"), ""]
    rows = [_row(device, usable) for device, usable in zip(found.devices, report.usable, strict=True)]
    lines += text.table(rows, header=("device", "memory", "usable", "bandwidth", "compute"), align="<>>>")
    lines += _host_lines(report)
    if explain:
        lines += ["", text.bold("What may be used, and why")]
        for usable in report.usable:
            lines += term_lines(usable.derivation)
        lines += ["", text.bold("Where each fact is from"), *_provenance(report)]
    lines += [line for note in found.notes for line in text.wrap(f"note: {note}")]
    return lines


def _row(device: Device, usable: UsableMemory) -> tuple[str, ...]:
    return (
        device.name,
        format_bytes(device.memory_bytes),
        format_bytes(usable.bytes),
        "unknown" if device.bandwidth is None else f"{device.bandwidth / GB:,.0f} GB/s",
        next((f"{device.compute[t] / 1e12:,.0f} TFLOP/s {t}" for t in _TYPES if t in device.compute), "unknown"),
    )


def _host_lines(report: MachineReport) -> Iterator[str]:
    found = report.machine
    features = f", {' '.join(found.cpu.features)}" if found.cpu.features else ""
    yield ""
    yield f"{found.cpu.units or '?'} cores, {found.cpu_threads or '?'} threads{features}"
    if found.disk:
        yield f"{format_bytes(found.disk.free_bytes)} free on {found.disk.path}"


def _provenance(report: MachineReport) -> Iterator[str]:
    for device in report.machine.devices:
        yield f"  {device.name}"
        for field, source in sorted(device.provenance.items()):
            yield text.dim(f"    {field}: {source}")
