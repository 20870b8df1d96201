"""What `train` adds when asked: a device or machine to fit, advice, a configuration, a simulation, a measurement."""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.advice.training import MOST_TOKENS, TrainAdvice, largest_value, process_fits
from sizeup.advice.training_changes import savings, ways
from sizeup.advice.training_devices import cheapest_devices
from sizeup.advice.training_time import Rig, rig_of, step_seconds
from sizeup.errors import BadInput
from sizeup.estimate.speed.training import ranged_seconds
from sizeup.estimate.training.checks import check_device
from sizeup.estimate.training.models import Subject
from sizeup.estimate.training.process import process_bytes
from sizeup.estimate.training.settings import TrainSetting
from sizeup.machines.device import Device, Machine
from sizeup.operations.train_report import Simulated, TrainReport, TrainRequest
from sizeup.operations.train_subject import plain_configuration
from sizeup.quantity.units import format_bytes, parse_count


def answered(request: TrainRequest, what: Subject, report: TrainReport) -> TrainReport:
    """The report with the answers that were asked for."""
    target = _target(request, report.setting)
    changes: dict[str, object] = {}
    if target is not None:
        unfit = _unfit(target, report)
        changes |= {"device": target.name, "device_bytes": target.budget, "fits": not unfit, "unfit": unfit}
    if request.tokens and target is None:
        raise BadInput(f"tokens are {request.tokens}, but no device to time them on", hint="give --device or --machine")
    if request.advise or target is not None:
        changes["advice"] = advice(
            what, report.setting, target, parse_count(request.tokens) if request.tokens else None
        )
    if request.emit:
        from sizeup.techniques.finetune_config import emit

        config = plain_configuration(request.model, network=not request.offline)
        changes["configuration"] = emit(request.emit, report.model, report.setting, config)
    if request.simulate or request.measure:
        changes["simulated"] = _simulated(request, report)
    return msgspec.structs.replace(report, **changes)


#: Up to so many layers a simulation runs the whole depth and replays the caching allocator (a second for each four);
#: beyond, two small depths are drawn on.
REPLAYED_LAYERS = 64


class Target(msgspec.Struct, frozen=True):
    """What the step is to fit: a device with all its memory, or a machine's GPUs with what is free on them.

    budget: bytes on each GPU. gpus: how many there are. host_bytes, host_bandwidth: the host's budget and the bytes/s
    of its memory. disk_bytes: free on its disk. None for a single device.
    """

    name: str
    device: Device
    budget: int
    gpus: int | None = None
    host_bytes: int | None = None
    host_bandwidth: int | None = None
    disk_bytes: int | None = None


def _target(request: TrainRequest, setting: TrainSetting) -> Target | None:
    if request.device and request.machine:
        raise BadInput(
            f"device is {request.device!r} and machine {request.machine!r}: both say what to fit",
            hint="give one of them",
        )
    if not request.device and not request.machine:
        return None
    from sizeup.machines.spec import load_machine

    here = request.machine == "here"
    machine = load_machine(None if here else request.device or request.machine)
    if not machine.gpus:
        raise BadInput(
            f"{machine.name} has no GPU to train on" if here else f"{request.device or request.machine!r} has no GPU",
            hint="name a GPU: 'RTX 4090', 'H100 80 GB'",
        )
    device = machine.gpus[0]
    check_device(setting, device.name, device.compute)
    if request.device:
        if device.memory_bytes is None:
            raise BadInput(f"the memory of {device.name} isn't known", hint="describe it: 'RTX 4090 24 GB'")
        return Target(device.name, device, device.memory_bytes)
    return _machine_target(machine, setting)


def _machine_target(machine: Machine, setting: TrainSetting) -> Target:
    """The GPUs that the step would use: the roomiest ones."""
    from sizeup.machines.budget import machine_budget

    budget = machine_budget(machine)
    rooms = sorted((gpu.usable_bytes for gpu in budget.gpus if gpu.usable_bytes is not None), reverse=True)
    if not rooms:
        raise BadInput(f"the memory of {machine.name}'s GPUs isn't known", hint="describe it: '2x RTX 4090 24 GB'")
    used = rooms[: setting.world]
    host = budget.host.usable_bytes
    disk = None if machine.disk is None else machine.disk.free_bytes
    return Target(machine.name, machine.gpus[0], used[-1], len(rooms), host, machine.cpu.bandwidth, disk)


def _unfit(target: Target, report: TrainReport) -> str:
    """Why the step doesn't fit; empty when it does."""
    world, expected = report.setting.world, report.process_bytes.expected
    if target.gpus is not None and world > target.gpus:
        return f"it takes {world} devices, and {target.name} has {target.gpus}"
    if expected > target.budget:
        return f"a process is likely to take {format_bytes(expected)} of {format_bytes(target.budget)}"
    host = sum(rank.host_bytes for rank in report.footprint.devices) * (world // len(report.footprint.devices))
    if target.host_bytes is not None and host > target.host_bytes:
        return f"{format_bytes(host)} lie on the host, which has {format_bytes(target.host_bytes)}"
    disk = sum(rank.disk_bytes for rank in report.footprint.devices) * (world // len(report.footprint.devices))
    if target.disk_bytes is not None and disk > target.disk_bytes:
        return f"{format_bytes(disk)} lie on NVMe, where {format_bytes(target.disk_bytes)} are free"
    return ""


def advice(what: Subject, setting: TrainSetting, target: Target | None, tokens: int | None = None) -> TrainAdvice:
    """Largest batch, sequence and rank on the device; savings, and ways to fit; the cheapest devices; the time."""
    shape, rig = what.shape, _rig(target, setting)
    made = TrainAdvice(
        budget_bytes=None, largest_batch=None, largest_sequence=None, largest_rank=None,
        savings=savings(shape, setting, rig or _reference(setting)), cheapest=cheapest_devices(shape, setting),
    )  # fmt: skip
    if target is None:
        return msgspec.structs.replace(made, because=f"no device is named: times are those of {REFERENCE}")
    if rig is None:
        return msgspec.structs.replace(
            _limits(made, what, setting, target), because=f"the compute or bandwidth of {target.name} isn't known"
        )
    made = _limits(made, what, setting, target)
    if not process_fits(shape, setting, target.budget):
        made = msgspec.structs.replace(made, ways=ways(shape, setting, target.budget, rig))
    seconds = step_seconds(shape, setting, rig, setting.micro_batches)
    each_step = setting.batch * setting.sequence * setting.data_parallel * setting.micro_batches
    return msgspec.structs.replace(
        made,
        seconds=ranged_seconds(seconds),
        hours=None if tokens is None else ranged_seconds(seconds * tokens / each_step / 3600),
        because="the speed model fitted on published training runs (docs/speed.md); 90 % interval",
    )


#: The device whose times rank the savings when none is named.
REFERENCE = "NVIDIA H100 80GB HBM3"


def _rig(target: Target | None, setting: TrainSetting) -> Rig | None:
    return None if target is None else rig_of(target.device, setting, target.host_bandwidth)


def _reference(setting: TrainSetting) -> Rig | None:
    from sizeup.machines.catalogue import find_device

    return rig_of(find_device(REFERENCE), setting)


def _limits(made: TrainAdvice, what: Subject, setting: TrainSetting, target: Target) -> TrainAdvice:
    """With the largest batch, sequence and rank that fit."""
    shape, budget = what.shape, target.budget
    most = min(what.context or MOST_TOKENS, MOST_TOKENS)
    return msgspec.structs.replace(
        made,
        budget_bytes=budget,
        largest_batch=largest_value(shape, setting, "batch", budget, MOST_TOKENS // setting.sequence),
        largest_sequence=largest_value(shape, setting, "sequence", budget, most, 64 * setting.tensor_parallel),
        largest_rank=largest_value(shape, setting, "lora_rank", budget, shape.hidden) if setting.adapters else None,
    )


def _simulated(request: TrainRequest, report: TrainReport) -> Simulated:
    """The worker's answer, kept in the ledger."""
    from sizeup.workers.training_host import depth_of, measure_step, simulate_step

    config = plain_configuration(request.model, network=not request.offline)
    if request.measure:
        found = measure_step(config, report.setting, needed=report.footprint.peak_bytes)
    else:
        found = simulate_step(config, report.setting, replay=depth_of(config) <= REPLAYED_LAYERS)
    peak, reserved = int(found["peak_bytes"]), found.get("reserved_bytes")
    made = Simulated(
        peak_bytes=peak,
        phases={name: int(size) for name, size in found["phases"].items()},
        reserved_bytes=reserved,
        process_bytes=found.get("process_bytes"),
        error=report.footprint.peak_bytes / peak - 1 if peak else 0.0,
        versions=found.get("versions", {}),
        kind="measure" if request.measure else "simulate",
        process=None if reserved is None else process_bytes(peak, reserved, report.setting.world),
        resident_bytes=found.get("resident_bytes"),
        device=found.get("device", "fake cuda"),
        stand_ins=bool(found.get("stand_ins")),
        seconds_per_step=found.get("seconds_per_step"),
    )
    _keep(report, config, made)
    return made


def _keep(report: TrainReport, config: dict[str, Any], made: Simulated) -> None:
    """Write a simulated or measured step to the user's ledger."""
    import datetime as dt

    from sizeup.measure.ledger import Ledger
    from sizeup.measure.torch_rows import MEASUREMENT, SIMULATION, train_record, train_row

    amounts = {
        "peak": made.peak_bytes, "reserved": made.reserved_bytes, "process": made.process_bytes,
        "resident": made.resident_bytes,
    }  # fmt: skip
    record = train_record(config, report.model)
    several = report.setting.world > 1
    row = train_row(
        record,
        report.setting,
        {name: amount for name, amount in amounts.items() if amount is not None},
        kind=made.kind,
        method=SIMULATION if made.kind == "simulate" else MEASUREMENT,
        version=", ".join(f"{name} {version}" for name, version in sorted(made.versions.items())),
        machine=made.device,
        machine_class="cpu" if made.device == "cpu" else "several gpus" if several else "gpu",
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        note="packed weights and 8-bit states are stand-ins of the same bytes" if made.stand_ins else "",
    )
    with Ledger() as ledger:
        ledger.add([record, row])
