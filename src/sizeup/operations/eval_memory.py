"""Whether a model and its reference fit into memory together, one after the other, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from sizeup.advice.fitting import Fits, fits
from sizeup.errors import AnswerIsNo, NotFound
from sizeup.estimate.footprint import device_footprint, footprint
from sizeup.machines.budget import machine_budget
from sizeup.measure.quality.loss import Reference, Wanted, logits_bytes, loss_setting
from sizeup.operations.serving import Served, Wish, local_gguf, planned
from sizeup.quantity.units import format_bytes
from sizeup.workers.host import environments_folder


def reference_for(own: Served, wanted: Wanted, path: str, *, force: bool, gpu_layers: int | None) -> Reference:
    """How the reference is loaded: beside the model where both fit, else before it, its logits kept on disk.

    own: planned for the loss. Raises NotFound without the file; AnswerIsNo, with the figure, where it doesn't fit
    by itself, or its logits don't fit on the disk.
    """
    file = local_gguf(path)
    if file is None:
        raise NotFound(f"no GGUF file {path!r} to compare with", hint="give the path of a GGUF file")
    other = loss_plan(str(file), wanted, force=force, gpu_layers=gpu_layers)
    layers = other.plan.setting.gpu_layers
    reference = Reference(file, (other.model.scheme or other.model.dtype).upper(), layers)
    if force or together(own, other).verdict == "yes":
        return reference
    folder = environments_folder().parent / "unfinished"
    _needs_disk(folder, logits_bytes(wanted, other.model.vocabulary))
    return msgspec.structs.replace(reference, apart=folder)


def loss_plan(model: str, wanted: Wanted, *, force: bool, gpu_layers: int | None) -> Served:
    """The plan of a model for reading stretches of text. Raises AnswerIsNo, with the figure, when it doesn't fit."""
    setting = msgspec.structs.replace(loss_setting(wanted), gpu_layers=gpu_layers)
    return planned(Wish(model=model, contexts=(wanted.length,), setting=setting, force=force, offline=True))


def together(own: Served, other: Served) -> Fits:
    """Whether each device holds its part of both."""
    both = footprint(
        device_footprint(one.device, [*one.items, *two.items], one.budget_bytes)
        for one, two in zip(own.plan.footprint.devices, other.plan.footprint.devices, strict=True)
    )
    gpus = machine_budget(own.machine).gpus
    shared = {d.device: d.total_bytes for d, gpu in zip(both.devices, gpus, strict=False) if gpu.shared_bytes}
    return fits(both, shared, max(own.model.uncertainty, other.model.uncertainty))


def _needs_disk(folder: Path, needed: int) -> None:
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > free:
        raise AnswerIsNo(
            f"the model and its reference don't fit into memory together, and the reference's logits take "
            f"{format_bytes(needed)} of disk: {there} has {format_bytes(free)}",
            hint="fewer --stretches; or --force to load both",
        )
