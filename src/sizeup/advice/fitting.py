"""Whether a footprint fits: a probability, because a footprint is an estimate whose errors the ledger knows."""

from __future__ import annotations

import msgspec

from sizeup.estimate.footprint import Footprint
from sizeup.measure.residuals import intervals, probability_below, total_interval
from sizeup.quantity import Interval

#: From this probability on a plan counts as fitting; below the lower one as not fitting; between them it is tight.
SURE, HOPELESS = 0.9, 0.5


class Fits(msgspec.Struct, frozen=True):
    """Whether every device holds its part.

    probability: that it does. verdict: `yes`, `tight` or `no`. headroom_bytes: of the tightest device (negative: what
    is missing there). device: the tightest one. total: what it will hold, with 90 %.
    """

    probability: float
    verdict: str
    headroom_bytes: int
    device: str
    total: Interval


def verdict(probability: float) -> str:
    """`yes` from SURE on, `no` below HOPELESS, else `tight`."""
    return "yes" if probability >= SURE else "no" if probability < HOPELESS else "tight"


def fits(found: Footprint, shared: dict[str, int], uncertainty: float = 0.0) -> Fits:
    """Whether every device's budget holds its part; the least probable device decides.

    shared: device → bytes that it takes out of the host's budget (the host is the last device).
    uncertainty: relative error of the model's own counts, for roads that aren't exact; it widens the interval.
    A device with an unknown budget is left out; with none known the probability is 1.
    """
    taken = sum(shared.values())
    tightest: tuple[float, int, str] | None = None
    for place, (device, holds) in enumerate(zip(found.devices, intervals(found), strict=True)):
        if device.budget_bytes is None:
            continue
        budget = device.budget_bytes - (taken if place == len(found.devices) - 1 else 0)
        probability = probability_below(_widened(holds, uncertainty), budget)
        entry = (probability, budget - device.total_bytes, device.device)
        tightest = entry if tightest is None or entry < tightest else tightest
    probability, headroom, name = tightest or (1.0, 0, "")
    return Fits(probability, verdict(probability), headroom, name, _widened(total_interval(found), uncertainty))


def _widened(interval: Interval, uncertainty: float) -> Interval:
    """The interval with a relative error added on both sides, as independent errors add."""
    if not uncertainty:
        return interval
    extra = interval.value * uncertainty
    below = ((interval.value - interval.low) ** 2 + extra**2) ** 0.5
    above = ((interval.high - interval.value) ** 2 + extra**2) ** 0.5
    return Interval(interval.value, max(0.0, interval.value - below), interval.value + above, interval.confidence)
