"""The memory of a training step on each device: its peak, by phase and by component, and what would make it fit.

The peak is that of torch's allocator in a steady step; `process_bytes` is what the driver shows for the process.
"""

from __future__ import annotations

from sizeup.errors import BadInput
from sizeup.estimate.training.checks import beyond_context, check
from sizeup.estimate.training.estimate import training_footprint
from sizeup.estimate.training.image_checks import image_notes
from sizeup.estimate.training.method_checks import method_notes, method_uncertainty
from sizeup.estimate.training.parallel import derived
from sizeup.estimate.training.process import process_bytes
from sizeup.estimate.training.scan_road import scan_road
from sizeup.estimate.training.settings import TrainSetting
from sizeup.operations.train_report import Targets, TrainReport, TrainRequest
from sizeup.operations.train_subject import subject

#: What asks for more than the footprint.
ANSWERS = ("device", "machine", "tokens", "advise", "emit", "simulate", "measure")


def train(request: TrainRequest) -> TrainReport:
    """Estimate the step; then whatever else was asked."""
    what = subject(request.model, network=not request.offline)
    setting = setting_of(request)
    unchecked, notes = scan_road(setting, what.shape, what.notes)
    check(setting, what.shape, what.context)
    found = training_footprint(what.shape, setting, itemised=request.itemise)
    process = process_bytes(found.peak_bytes, devices=setting.world)
    beyond, reasons = derived(setting, what.shape)
    report = TrainReport(
        model=what.name, setting=setting, footprint=found, process_bytes=process,
        uncertainty=max(what.uncertainty, beyond, unchecked, method_uncertainty(setting)),
        notes=(
            *notes, *image_notes(setting, what.shape), *method_notes(setting), *reasons,
            *filter(None, (beyond_context(setting, what.context),)),
        ),
    )  # fmt: skip
    if any(getattr(request, name) for name in ANSWERS):
        from sizeup.operations.train_answers import answered

        return answered(request, what, report)
    return report


def setting_of(request: TrainRequest) -> TrainSetting:
    """The request in the estimate's own words."""
    given = {name: getattr(request, name) for name in TrainSetting.__struct_fields__ if hasattr(request, name)}
    given["checkpointing"] = _checkpointing(request.checkpointing)
    given["lora_rank"] = 16 if request.lora_rank is None else request.lora_rank
    given["lora_targets"] = _targets(request.lora_targets)
    given["modules_to_save"] = _targets(request.modules_to_save)
    given["adapter_precision"] = request.adapter_precision or "fp32"
    if request.method == "full" and (request.lora_rank is not None or given["lora_targets"]):
        named = "lora_targets are given" if given["lora_targets"] else f"lora_rank is {request.lora_rank}"
        raise BadInput(f"{named}, but method full trains no adapters", hint="set method=lora, or drop it")
    if request.fsdp:
        for name, value, fitting in (
            ("sharding", request.sharding, {"none", "fsdp"}),
            ("data_parallel", request.data_parallel, {1, request.fsdp}),
        ):
            if value not in fitting:
                raise BadInput(f"fsdp is {request.fsdp}, but {name} is {value}", hint="give only one of the two")
        given["data_parallel"], given["sharding"] = request.fsdp, "fsdp"
    given["offload_weights"] = request.offload_weights or request.offload_params
    given["reshard"] = request.fsdp_reshard is not False
    return TrainSetting(**given)


def _checkpointing(value: str | bool) -> str:
    if isinstance(value, bool):
        return "full" if value else "none"
    return {"true": "full", "false": "none", "off": "none", "on": "full", "": "none"}.get(value.lower(), value.lower())


def _targets(value: Targets) -> tuple[str, ...]:
    if value is None or value in {"all-linear", ""}:
        return ()
    names = value.split(",") if isinstance(value, str) else value
    return tuple(name.strip() for name in names if name.strip())
