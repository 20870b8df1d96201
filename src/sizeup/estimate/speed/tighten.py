"""Ceilings drawn to what was measured on a machine: shrinkage towards the physical model, not one scalar for all.

Every ceiling gets a factor whose logarithm has a prior of mean 0; measured passes pull those that bound them. What no
measurement speaks of stays theoretical, so that a fast prompt doesn't make decoding fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from sizeup.estimate.speed.ceilings import Ceilings
from sizeup.estimate.speed.decode import engine_of
from sizeup.estimate.speed.parameters import parameters
from sizeup.estimate.speed.passes import pass_seconds, rates
from sizeup.estimate.speed.work import Work

_FIELDS = ("bandwidth", "integer", "packed_matrix", "plain_matrix", "attention", "vector")
#: Standard deviation of a ceiling's logarithm before anything is measured, and of one measurement's.
PRIOR, NOISE = 0.6, 0.06
_SWEEPS, _STEP = 25, 1e-3


class Observation(msgspec.Struct, frozen=True):
    """So many passes of some work on one device took so many seconds."""

    work: Work
    passes: float
    seconds: float


def tightened(ceiling: Ceilings, seen: Sequence[Observation], engine: str = "llama.cpp") -> Ceilings:
    """The ceilings that explain the observations best, penalised for leaving theory; `source` becomes `measured`.

    Minimises Σ (log(predicted / seen) / NOISE)² + Σ (log factor / PRIOR)² by Newton steps on each factor in turn.
    """
    fitted = parameters()
    start = msgspec.structs.replace(
        ceiling, source="measured", bandwidth=ceiling.bandwidth * fitted.generations.get(ceiling.generation, 1.0)
    )
    factors = dict.fromkeys(_FIELDS, 0.0)
    for _ in range(_SWEEPS):
        for field in _FIELDS:
            factors[field] += _newton(start, seen, engine, factors, field)
    return _scaled(start, factors)


def _newton(start: Ceilings, seen: Sequence[Observation], engine: str, factors: dict[str, float], field: str) -> float:
    """The step of one factor that the slope of every residual suggests (Gauss-Newton), at most 0.5."""
    here = _residuals(_scaled(start, factors), seen, engine)
    there = _residuals(_scaled(start, factors | {field: factors[field] + _STEP}), seen, engine)
    pull, weight = factors[field] / PRIOR**2, 1 / PRIOR**2
    for one, other in zip(here, there, strict=True):
        slope = (other - one) / _STEP / NOISE
        pull += slope * one / NOISE
        weight += slope * slope
    return max(-0.5, min(0.5, -pull / weight))


def _residuals(ceiling: Ceilings, seen: Sequence[Observation], engine: str) -> list[float]:
    rate, once = rates(ceiling, parameters()), engine_of(engine).token_seconds
    return [math.log((item.passes * pass_seconds(item.work, rate).total + once) / item.seconds) for item in seen]


def _scaled(start: Ceilings, factors: dict[str, float]) -> Ceilings:
    return msgspec.structs.replace(
        start, **{field: getattr(start, field) * math.exp(factors[field]) for field in _FIELDS}
    )
