"""Which placement fits and decodes fastest: all layers on the GPUs, else experts on the host, else fewer layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from sizeup.engines.llamacpp.footprint import assignment_of, footprint, gpus_in_use
from sizeup.engines.llamacpp.names import layer_count
from sizeup.engines.llamacpp.setting import ALL_LAYERS, LlamaSetting
from sizeup.estimate.footprint import Footprint
from sizeup.machines.budget import Budget, machine_budget
from sizeup.machines.device import Machine
from sizeup.models.model import Model

#: Layers that are moved between GPUs, one at a time, before a balanced split is given up.
_MOVES = 64


class Placement(msgspec.Struct, frozen=True):
    """A setting with its placement decided, its footprint, and whether every device's budget holds it."""

    setting: LlamaSetting
    footprint: Footprint
    fits: bool


class _Task(msgspec.Struct, frozen=True):
    """What is placed, and on what."""

    model: Model
    setting: LlamaSetting
    machine: Machine
    budget: Budget

    def with_(self, **changes: object) -> LlamaSetting:
        """The setting, changed."""
        return msgspec.structs.replace(self.setting, **changes)

    def placed(self, setting: LlamaSetting) -> Placement:
        """That setting's footprint against the budget."""
        found = footprint(self.model, setting, self.machine, self.budget)
        return Placement(setting, found, _fits(found, gpus_in_use(setting, self.machine), self.budget))


def place(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget | None = None) -> Placement:
    """The fastest placement of a setting that fits; the one without GPUs when none does.

    A setting that names `gpu_layers` is taken as it is. Otherwise, in order of speed:
    1. every layer on the GPUs, several GPUs sharing by what each holds;
    2. every layer on the GPUs, but routed experts of as few layers as possible on the host (mixtures only):
       what every token reads stays on the GPU;
    3. as many whole layers as fit; 4. none.
    Raises BadInput for a setting that llama.cpp refuses, NotFound for a family that it doesn't load.
    """
    task = _Task(model, setting, machine, budget or machine_budget(machine))
    if setting.gpu_layers is not None or not machine.gpus:
        return task.placed(setting)
    found = next((placed for placed in map(task.placed, _candidates(task)) if placed.fits), None)
    return found or task.placed(task.with_(gpu_layers=0))


def _fits(found: Footprint, gpus: tuple[int, ...], budget: Budget) -> bool:
    """Whether each device holds its part, and the host both its own part and what GPUs share of it."""
    shared = 0
    for device, gpu in zip(found.devices, gpus, strict=False):
        if device.budget_bytes is not None and device.total_bytes > device.budget_bytes:
            return False
        if budget.gpus[gpu].shared_bytes:
            shared += device.total_bytes
    host = budget.host.usable_bytes
    return host is None or found.devices[-1].total_bytes + shared <= host


def _candidates(task: _Task) -> Iterator[LlamaSetting]:
    """Settings from the fastest to the one that asks least; each search yields its best only."""
    everything = task.with_(gpu_layers=ALL_LAYERS)
    yield everything
    yield from _balanced(task, everything)
    layers = layer_count(task.model)
    missing = _missing(task, everything)
    if not task.setting.cpu_moe_layers and any(b.feed_forward and b.feed_forward.experts for b in task.model.blocks):
        fewest = _least(
            layers,
            lambda n: task.placed(task.with_(gpu_layers=ALL_LAYERS, cpu_moe_layers=n)).fits,
            _layers_of(missing, task, everything, "routed experts"),
        )
        if fewest is not None:
            yield task.with_(gpu_layers=ALL_LAYERS, cpu_moe_layers=fewest)
    hosted = _least(
        layers,
        lambda n: task.placed(task.with_(gpu_layers=layers + 1 - n)).fits,
        _layers_of(missing, task, everything, ""),
    )
    if hosted is not None:
        yield task.with_(gpu_layers=layers + 1 - hosted)
    yield task.with_(gpu_layers=0)


def _missing(task: _Task, setting: LlamaSetting) -> int:
    """Bytes by which the GPUs together fall short of a setting."""
    devices = task.placed(setting).footprint.devices[:-1]
    return sum(max(0, device.total_bytes - (device.budget_bytes or 0)) for device in devices)


def _layers_of(missing: int, task: _Task, setting: LlamaSetting, item: str) -> int:
    """About how many layers give up so many bytes: of that item, or of weights and cache; where a search starts."""
    held = sum(
        i.bytes
        for device in task.placed(setting).footprint.devices[:-1]
        for i in device.items
        if (i.name == item if item else i.component in {"weights", "cache"})
    )
    return -(-missing * layer_count(task.model) // max(1, held))


def _balanced(task: _Task, setting: LlamaSetting) -> Iterator[LlamaSetting]:
    """The same layers on other GPUs: moved one by one from the fullest to the emptiest until each holds its own."""
    if setting.tensor_split or len(gpus_in_use(setting, task.machine)) < 2:
        return
    places = assignment_of(task.model, setting, task.machine, task.budget)
    counts = [[*places.layers, places.output].count(gpu) for gpu in range(len(task.machine.gpus))]
    for _ in range(_MOVES):
        candidate = msgspec.structs.replace(setting, tensor_split=tuple(float(count) for count in counts))
        room = [
            (device.budget_bytes or 0) - device.total_bytes for device in task.placed(candidate).footprint.devices[:-1]
        ]
        if min(room) >= 0:
            yield candidate
            return
        if max(room) <= 0:
            return
        fullest, emptiest = room.index(min(room)), room.index(max(room))
        if not counts[fullest]:
            return
        counts[fullest] -= 1
        counts[emptiest] += 1


def _least(high: int, test: Callable[[int], bool], guess: int) -> int | None:
    """The smallest number in 1..high that passes a test which larger numbers pass too; None when none does.

    guess: where it probably is; a right guess takes two tests.
    """
    low, top = 1, high + 1
    for probe in (guess, guess - 1, guess + 1):
        if low <= probe < top:
            low, top = (low, probe) if test(probe) else (probe + 1, top)
    while low < top:
        middle = (low + top) // 2
        low, top = (low, middle) if test(middle) else (middle + 1, top)
    return low if low <= high else None


__all__ = ["Placement", "place"]
