"""How far estimates may be off: intervals and probabilities from what they were off in the ledger.

`residuals.json` is made from the ledger by scripts/build_ledger.py; reading it needs neither SQLite nor the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from sizeup.estimate.footprint import DeviceFootprint, Footprint
from sizeup.measure.accuracy import Comparison, quantile
from sizeup.quantity import Interval

#: The shares at which residuals are kept.
SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
#: Where an engine or component has no rows: relative error assumed, as an interval of 90 %.
ASSUMED = {"weights": 0.02, "cache": 0.05, "compute": 0.30, "overhead": 0.50}
_SAME_EVERYWHERE = frozenset({"weights", "cache"})


class Residual(msgspec.Struct, frozen=True):
    """How the known amounts lie around the estimates of one component: known / estimated - 1, at SHARES.

    rows, families: how many it rests on. low, high: the 90 % interval.
    """

    engine: str
    machine_class: str
    component: str
    rows: int
    families: int
    quantiles: tuple[float, ...]

    @property
    def low(self) -> float:
        """The residual that 5 % of rows are below."""
        return self.quantiles[SHARES.index(0.05)]

    @property
    def high(self) -> float:
        """The residual that 5 % of rows are above."""
        return self.quantiles[SHARES.index(0.95)]

    @property
    def middle(self) -> float:
        """The median residual."""
        return self.quantiles[SHARES.index(0.5)]


def residuals_of(comparisons: Iterable[Comparison]) -> tuple[Residual, ...]:
    """Residuals by engine, machine class and component, without what others published of other versions.

    Every family counts the same, however many rows it has: what an interval must cover is the next family.
    """
    groups: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for comparison in comparisons:
        if comparison.estimated > 0 and not comparison.published:
            key = (comparison.engine, comparison.machine_class, comparison.component)
            residual = comparison.known / comparison.estimated - 1
            groups.setdefault(key, {}).setdefault(comparison.family, []).append(residual)
    return tuple(_residual(key, groups[key]) for key in sorted(groups))


def _residual(key: tuple[str, str, str], families: Mapping[str, Sequence[float]]) -> Residual:
    weighted = sorted((value, 1 / len(values)) for values in families.values() for value in values)
    rows = sum(map(len, families.values()))
    return Residual(*key, rows, len(families), tuple(_weighted_quantile(weighted, share) for share in SHARES))


def _weighted_quantile(ordered: Sequence[tuple[float, float]], share: float) -> float:
    """The value at a share of the whole weight: a step for few families, so that extremes stay in."""
    if len({weight for _, weight in ordered}) == 1:
        return quantile([value for value, _ in ordered], share)
    wanted, passed = share * sum(weight for _, weight in ordered), 0.0
    for value, weight in ordered:
        passed += weight
        if passed >= wanted:
            return value
    return ordered[-1][0]


class Residuals:
    """The residuals that estimates are given intervals from."""

    def __init__(self, residuals: Iterable[Residual]) -> None:
        self._known = {(r.engine, r.machine_class, r.component): r for r in residuals}

    def spread(self, engine: str, machine_class: str, component: str) -> tuple[float, float, float]:
        """(low, middle, high) of a component's residual.

        Weights and cache are laid out by the same rules on every device, so those of the host serve where a machine
        class has none. Where nothing was ever measured, the assumed one.
        """
        found = self._known.get((engine, machine_class, component))
        if found is None and component in _SAME_EVERYWHERE:
            found = self._known.get((engine, "cpu", component))
        if found is None:
            share = ASSUMED.get(component, max(ASSUMED.values()))
            return -share, 0.0, share
        return found.low, found.middle, found.high

    def device(self, device: DeviceFootprint, engine: str, machine_class: str) -> Interval:
        """What a device will hold, with 90 %: the components' spreads, taken as independent of each other.

        value = Σ estimate · (1 + middle); low, high = value ∓ √Σ (estimate · (middle - low))².
        """
        value, below, above = 0.0, 0.0, 0.0
        amounts: dict[str, int] = {}
        for item in device.items:
            amounts[item.component] = amounts.get(item.component, 0) + item.bytes
        for component, amount in amounts.items():
            low, middle, high = self.spread(engine, machine_class, component)
            value += amount * (1 + middle)
            below += (amount * (middle - low)) ** 2
            above += (amount * (high - middle)) ** 2
        return Interval(value, max(0.0, value - math.sqrt(below)), value + math.sqrt(above))


def widened(interval: Interval, confidence: float) -> Interval:
    """The same interval for another confidence, each side taken as half of a normal distribution."""
    factor = normal_quantile((1 + confidence) / 2) / normal_quantile((1 + interval.confidence) / 2)
    low = max(0.0, interval.value - (interval.value - interval.low) * factor)
    return Interval(
        interval.value, low, interval.value + (interval.high - interval.value) * factor, confidence, interval.evidence
    )


def probability_below(interval: Interval, limit: float) -> float:
    """How probable it is that the true value is at most `limit`: each side half of a normal distribution.

    A side without width is a step: certain on one side of the value, impossible on the other.
    """
    distance = limit - interval.value
    width = interval.high - interval.value if distance > 0 else interval.value - interval.low
    if distance == 0:
        return 0.5 if width else 1.0
    if width <= 0:
        return 1.0 if distance > 0 else 0.0
    sigma = width / normal_quantile((1 + interval.confidence) / 2)
    return 0.5 * (1 + math.erf(distance / (sigma * math.sqrt(2))))


def normal_quantile(share: float) -> float:
    """The standard normal distribution's quantile, by bisection of its distribution function."""
    low, high = -10.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        if 0.5 * (1 + math.erf(middle / math.sqrt(2))) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def intervals(found: Footprint, engine: str = "llama.cpp") -> tuple[Interval, ...]:
    """What each device of a footprint will hold, with 90 %; the host is the last device."""
    known = shipped_residuals()
    last = len(found.devices) - 1
    return tuple(
        known.device(device, engine, "cpu" if place == last else "gpu") for place, device in enumerate(found.devices)
    )


def total_interval(found: Footprint, engine: str = "llama.cpp") -> Interval:
    """What all devices together will hold, with 90 %."""
    each = intervals(found, engine)
    value = sum(interval.value for interval in each)
    below = math.sqrt(sum((interval.value - interval.low) ** 2 for interval in each))
    above = math.sqrt(sum((interval.high - interval.value) ** 2 for interval in each))
    return Interval(value, max(0.0, value - below), value + above)


def fit_probability(
    found: Footprint, budgets: Sequence[int | None] | None = None, engine: str = "llama.cpp"
) -> float | None:
    """How probable it is that every device holds its part; None when no device's budget is known.

    budgets: bytes for each device of the footprint; by default its own. The devices' errors have the same causes, so
    the least probable device decides.
    """
    limits = [device.budget_bytes for device in found.devices] if budgets is None else list(budgets)
    known = [
        probability_below(interval, limit)
        for interval, limit in zip(intervals(found, engine), limits, strict=True)
        if limit is not None
    ]
    return min(known) if known else None


@lru_cache(maxsize=1)
def shipped_residuals() -> Residuals:
    """The residuals that come with the package."""
    path = Path(__file__).parent / "data" / "residuals.json"
    raw = path.read_bytes() if path.exists() else b"[]"
    return Residuals(msgspec.json.decode(raw, type=tuple[Residual, ...]))
