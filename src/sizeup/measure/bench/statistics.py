"""Medians, percentiles and spreads of what was measured."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

#: Runs that differ by more than this, relative to their mean, are called noisy.
NOISY = 0.05


class Measured(msgspec.Struct, frozen=True):
    """Several runs of one thing: their median, extremes and spread (standard deviation over mean)."""

    value: float
    low: float
    high: float
    spread: float
    runs: tuple[float, ...]


class Percentiles(msgspec.Struct, frozen=True):
    """Many times of one thing, in seconds."""

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    count: int


def measured(runs: Sequence[float]) -> Measured | None:
    """The summary of some runs; None without any."""
    if not runs:
        return None
    mean = sum(runs) / len(runs)
    variance = sum((run - mean) ** 2 for run in runs) / (len(runs) - 1) if len(runs) > 1 else 0.0
    spread = variance**0.5 / mean if mean else 0.0
    return Measured(percentile(runs, 0.5), min(runs), max(runs), spread, tuple(runs))


def percentiles(times: Sequence[float]) -> Percentiles | None:
    """The percentiles of some times; None without any."""
    if not times:
        return None
    p50, p90, p95, p99 = (percentile(times, share) for share in (0.5, 0.9, 0.95, 0.99))
    return Percentiles(p50, p90, p95, p99, sum(times) / len(times), len(times))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies, interpolated between neighbours (as numpy does by default)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def drift(runs: Sequence[float]) -> float:
    """How much the last run differs from the first, relative to it: warming up, or throttling."""
    return (runs[-1] - runs[0]) / runs[0] if len(runs) > 1 and runs[0] else 0.0
