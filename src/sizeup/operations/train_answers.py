"""What `train` adds when asked: a device to fit, advice, a configuration, a simulation, a measurement."""

from __future__ import annotations

import msgspec

from sizeup.advice.training import (
    MOST_TOKENS,
    TrainAdvice,
    cheapest_device,
    largest_value,
    savings,
    step_seconds,
)  # fmt: skip
from sizeup.errors import BadInput
from sizeup.estimate.training.checks import check_device
from sizeup.estimate.training.models import Subject
from sizeup.estimate.training.settings import TrainSetting
from sizeup.machines.device import Device
from sizeup.operations.train import Simulated, TrainReport, TrainRequest


def answered(request: TrainRequest, what: Subject, report: TrainReport) -> TrainReport:
    """The report with the answers that were asked for."""
    device = _device(request.device, report.setting) if request.device else None
    budget = device.memory_bytes if device is not None else None
    changes: dict[str, object] = {}
    if device is not None and budget is not None:
        changes |= {
            "device": device.name, "device_bytes": budget, "fits": report.process_bytes.expected <= budget,
        }  # fmt: skip
    if request.advise or request.device:
        changes["advice"] = advice(what, report.setting, device)
    if request.emit:
        from sizeup.techniques.finetune_config import emit

        changes["configuration"] = emit(request.emit, report.model, report.setting)
    if request.simulate or request.measure:
        changes["simulated"] = _simulated(request, report)
    return msgspec.structs.replace(report, **changes)


def _device(name: str, setting: TrainSetting) -> Device:
    from sizeup.machines.spec import load_machine

    machine = load_machine(name)
    if not machine.gpus:
        raise BadInput(f"{name!r} has no GPU to train on", hint="name a GPU: 'RTX 4090', 'H100 80 GB'")
    device = machine.gpus[0]
    check_device(setting, device.name, device.compute)
    return device


def advice(what: Subject, setting: TrainSetting, device: Device | None) -> TrainAdvice:
    """Largest batch, sequence and rank on the device; savings; the cheapest device."""
    budget = device.memory_bytes if device is not None else None
    batch = sequence = rank = seconds = None
    if budget is not None:
        batch = largest_value(what.shape, setting, "batch", budget, MOST_TOKENS // setting.sequence)
        most = min(what.context or MOST_TOKENS, MOST_TOKENS)
        sequence = largest_value(what.shape, setting, "sequence", budget, most, 64 * setting.tensor_parallel)
        if setting.adapters:
            rank = largest_value(what.shape, setting, "lora_rank", budget, what.shape.hidden)
    flops = _flops(device, setting)
    if flops:
        seconds = step_seconds(what.shape, setting, flops)
    return TrainAdvice(
        budget_bytes=budget,
        largest_batch=batch,
        largest_sequence=sequence,
        largest_rank=rank,
        savings=savings(what.shape, setting),
        cheapest=cheapest_device(what.shape, setting),
        seconds=seconds,
        because="6 FLOP a parameter and token at 40 % of the dense peak" if seconds else "no device with known compute",
    )


def _flops(device: Device | None, setting: TrainSetting) -> int | None:
    if device is None:
        return None
    number = "fp8" if setting.precision == "fp8" else "fp32" if setting.precision == "fp32" else "bf16"
    return device.compute.get(number) or device.compute.get("fp16")


def _simulated(request: TrainRequest, report: TrainReport) -> Simulated:
    from sizeup.operations.train_subject import plain_configuration
    from sizeup.workers.training_host import measure_step, simulate_step

    config = plain_configuration(request.model, network=not request.offline)
    run = measure_step if request.measure else simulate_step
    found = run(config, report.setting)
    peak = int(found["peak_bytes"])
    return Simulated(
        peak_bytes=peak,
        phases={name: int(size) for name, size in found["phases"].items()},
        reserved_bytes=found.get("reserved_bytes"),
        process_bytes=found.get("process_bytes"),
        error=report.footprint.peak_bytes / peak - 1 if peak else 0.0,
        versions=found.get("versions", {}),
        kind="measure" if request.measure else "simulate",
    )
