"""Whether a footprint fits a budget: a probability, because the footprint is an estimate with a known spread."""

from __future__ import annotations

import math

import msgspec

from sizeup.estimate.footprint import Footprint

#: From this probability on a plan counts as fitting; below the lower one as not fitting; between them it is tight.
SURE, HOPELESS = 0.9, 0.5


class Fits(msgspec.Struct, frozen=True):
    """Whether every device holds its part.

    probability: that it does. verdict: `yes`, `tight` or `no`. headroom_bytes: of the tightest device (negative: what
    is missing there). device: the tightest one.
    """

    probability: float
    verdict: str
    headroom_bytes: int
    device: str


def verdict(probability: float) -> str:
    """`yes` from SURE on, `no` below HOPELESS, else `tight`."""
    return "yes" if probability >= SURE else "no" if probability < HOPELESS else "tight"


def fits(found: Footprint, spread: float, shared: dict[str, int] | None = None) -> Fits:
    """Whether every device's budget holds its part.

    P = min over devices of Φ((budget - bytes) / (spread · bytes)).
    spread: relative standard deviation of the estimate. shared: device → bytes that it takes out of the host's budget
    (the last device). A device with an unknown budget is left out; with none known, the probability is 1.
    """
    taken = sum((shared or {}).values())
    worst = Fits(1.0, "yes", 0, "")
    first = True
    for place, device in enumerate(found.devices):
        if device.budget_bytes is None:
            continue
        held = device.total_bytes + (taken if place == len(found.devices) - 1 else 0)
        headroom = device.budget_bytes - held
        probability = _normal(headroom / max(1.0, spread * held))
        if first or (probability, headroom) < (worst.probability, worst.headroom_bytes):
            worst = Fits(probability, verdict(probability), headroom, device.device)
            first = False
    return worst


def _normal(z: float) -> float:
    """Φ(z), the standard normal distribution."""
    return (1 + math.erf(z / math.sqrt(2))) / 2
