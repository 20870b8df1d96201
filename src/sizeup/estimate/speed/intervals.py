"""90 % intervals of predicted speeds: residuals on hardware that the fit had not seen, by set of kernels.

`log(predicted / measured)` of held-back rows lies between the two percentiles of `parameters.json` in nine cases
of ten, so the measured speed lies between predicted · exp(-high) and predicted · exp(-low).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from sizeup.estimate.speed.ceilings import Ceilings
from sizeup.estimate.speed.parameters import Spread, parameters
from sizeup.quantity import Interval

#: After calibration on the machine itself; this project's runs (docs/speed.md).
CALIBRATED_DECODE, CALIBRATED_PROMPT = Spread(-0.16, 0.16, 36), Spread(-0.15, 0.15, 22)
#: For processors, of which the published rows have none: as wide as the widest seen.
UNSEEN = Spread(-0.5, 0.6, 0)


def decode_interval(value: float, ceilings: Iterable[Ceilings]) -> Interval:
    """A decode speed with its interval: the widest of the devices'."""
    fitted = parameters().decode_spread
    return _around(value, [_of(c, fitted, CALIBRATED_DECODE, c.decode_runs) for c in ceilings])


def prompt_interval(value: float, ceilings: Iterable[Ceilings]) -> Interval:
    """A prompt speed with its interval."""
    fitted = parameters().prompt_spread
    return _around(value, [_of(c, fitted, CALIBRATED_PROMPT, c.prompt_runs) for c in ceilings])


def _of(ceiling: Ceilings, known: dict[str, Spread], calibrated: Spread, runs: int) -> Spread:
    """A device's spread. Runs of the user's own narrow it towards that of a calibrated one: variance / (1 + runs)."""
    if ceiling.calibrated:
        return calibrated
    spread = UNSEEN if ceiling.stack == "cpu" else known.get(ceiling.stack) or known["all"]
    if not runs:
        return spread
    narrow = (1 + runs) ** -0.5
    return Spread(
        min(calibrated.low, spread.low * narrow), max(calibrated.high, spread.high * narrow), spread.rows + runs
    )


def _around(value: float, spreads: list[Spread]) -> Interval:
    low, high = min(s.low for s in spreads), max(s.high for s in spreads)
    return Interval(value, value * math.exp(-high), value * math.exp(-low))
