"""Answers about a training step: the largest that fits, what saves most for its time, what to train on, how long."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.advice.training_changes import Saving, Way
from sizeup.advice.training_devices import CheapestDevice
from sizeup.estimate.training.architectures.programs import Shape
from sizeup.estimate.training.estimate import training_peak
from sizeup.estimate.training.process import process_range
from sizeup.estimate.training.settings import TrainSetting
from sizeup.quantity import Interval

MOST_TOKENS = 2**24


class TrainAdvice(msgspec.Struct, frozen=True):
    """Answers for one setting.

    largest_*: what still fits in the budget with everything else as asked; None without a budget or when nothing
    does. savings: single changes, ranked by bytes saved for the time they cost. ways: when the step doesn't fit, the
    quickest changes with which it does, for each method. cheapest: devices of the catalogue, the cheapest first.
    seconds: of a step, hours: of as many tokens as were asked for; None when unknown. because: what they rest on.
    """

    budget_bytes: int | None
    largest_batch: int | None
    largest_sequence: int | None
    largest_rank: int | None
    savings: tuple[Saving, ...]
    ways: tuple[Way, ...] = ()
    cheapest: tuple[CheapestDevice, ...] = ()
    seconds: Interval | None = None
    hours: Interval | None = None
    because: str = ""


def largest(fits: Callable[[int], bool], most: int) -> int | None:
    """The largest number from 1 to `most` that fits, by doubling and then halving the gap; None when 1 doesn't."""
    if not fits(1):
        return None
    low, high = 1, 2
    while high <= most and fits(high):
        low, high = high, high * 2
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def process_fits(shape: Shape, setting: TrainSetting, budget: int) -> bool:
    """Whether what the process is expected to take is within the budget."""
    peak = training_peak(shape, setting)
    return process_range(peak, devices=setting.world).expected <= budget


def largest_value(shape: Shape, setting: TrainSetting, name: str, budget: int, most: int, step: int = 1) -> int | None:
    """The largest multiple of `step` of one field of the setting that fits."""

    def fits(count: int) -> bool:
        return process_fits(shape, msgspec.structs.replace(setting, **{name: count * step}), budget)

    found = largest(fits, max(1, most // step))
    return None if found is None else found * step
