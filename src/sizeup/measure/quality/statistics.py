"""How sure a share or a mean is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sizeup.quantity import Interval

#: 90 % of a normal distribution lie within so many standard deviations.
Z90 = 1.6449


def wilson(passed: int, count: int, z: float = Z90) -> Interval:
    """A share with its Wilson score interval.

    (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n) (Wilson 1927). Raises ValueError for no trials.
    """
    if count < 1:
        raise ValueError("no trials")
    share, spread = passed / count, z * z / count
    middle = share + spread / 2
    reach = z * math.sqrt((share * (1 - share) + spread / 4) / count)
    low, high = ((middle + side) / (1 + spread) for side in (-reach, reach))
    return Interval(share, max(0.0, min(low, share)), min(1.0, max(high, share)))


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error, s/√n; None for the error of a single value."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, math.sqrt(variance / count)
