"""Which placement fits and decodes fastest: all layers on the GPUs, else experts on the host, else fewer layers."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sizeup.engines.llamacpp.footprint import footprint
from sizeup.engines.llamacpp.names import layer_count
from sizeup.engines.llamacpp.setting import ALL_LAYERS, LlamaSetting
from sizeup.estimate.footprint import Footprint
from sizeup.machines.budget import Budget, machine_budget
from sizeup.machines.device import Machine
from sizeup.models.model import Model


class Placement(msgspec.Struct, frozen=True):
    """A setting with its placement decided, its footprint, and whether every device's budget holds it."""

    setting: LlamaSetting
    footprint: Footprint
    fits: bool


def fits(found: Footprint, budget: Budget) -> bool:
    """Whether each device holds its part, and the host both its own part and what GPUs share of it."""
    shared = 0
    for device, gpu in zip(found.devices[:-1], budget.gpus, strict=False):
        if gpu.usable_bytes is not None and device.total_bytes > gpu.usable_bytes:
            return False
        if gpu.shared_bytes:
            shared += device.total_bytes
    host = budget.host.usable_bytes
    return host is None or found.devices[-1].total_bytes + shared <= host


def place(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget | None = None) -> Placement:
    """The fastest placement of a setting that fits; the one that asks least of the GPUs when none does.

    A setting that names `gpu_layers` is taken as it is. Otherwise, in order of speed:
    1. every layer on the GPUs;
    2. every layer on the GPUs, but routed experts of as few layers as possible on the host (mixtures only):
       what every token reads stays on the GPU;
    3. as many whole layers as fit; 4. none.
    """
    budget = budget or machine_budget(machine)
    if setting.gpu_layers is not None or not machine.gpus:
        found = footprint(model, setting, machine, budget)
        return Placement(setting, found, fits(found, budget))
    last: Placement | None = None
    for candidate in _candidates(model, setting, machine, budget):
        found = footprint(model, candidate, machine, budget)
        last = Placement(candidate, found, fits(found, budget))
        if last.fits:
            return last
    assert last is not None  # noqa: S101  there is always the candidate without GPU layers
    return last


def _candidates(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget) -> Iterator[LlamaSetting]:
    """Settings from the fastest to the one that asks least; each search yields its best only."""
    yield msgspec.structs.replace(setting, gpu_layers=ALL_LAYERS)
    layers = layer_count(model)
    if not setting.cpu_moe_layers and any(b.feed_forward and b.feed_forward.experts for b in model.blocks):
        fewest = _least(
            1,
            layers,
            lambda n: _fits(
                model, msgspec.structs.replace(setting, gpu_layers=ALL_LAYERS, cpu_moe_layers=n), machine, budget
            ),
        )
        if fewest is not None:
            yield msgspec.structs.replace(setting, gpu_layers=ALL_LAYERS, cpu_moe_layers=fewest)
    hosted = _least(
        1, layers, lambda n: _fits(model, msgspec.structs.replace(setting, gpu_layers=layers + 1 - n), machine, budget)
    )
    if hosted is not None:
        yield msgspec.structs.replace(setting, gpu_layers=layers + 1 - hosted)
    yield msgspec.structs.replace(setting, gpu_layers=0)


def _fits(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget) -> bool:
    return fits(footprint(model, setting, machine, budget), budget)


def _least(low: int, high: int, test: object) -> int | None:
    """The smallest number in low..high that passes a test which larger numbers pass too; None when none does."""
    check = test
    assert callable(check)  # noqa: S101
    if low > high or not check(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if check(middle):
            high = middle
        else:
            low = middle + 1
    return low
