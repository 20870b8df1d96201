"""A device drawn to what was measured on it: shrinkage towards the physical model, not one scalar for all.

Each part of a pass (streaming, unpacking and multiplying of each packing, attention, launches …) has a correction, a
factor on its seconds whose logarithm has a prior of mean 0; measured passes pull those that they consist of. What no
measurement speaks of stays as the model has it, so that a fast prompt doesn't make decoding fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from sizeup.estimate.speed.ceilings import Ceilings
from sizeup.estimate.speed.decode import engine_of
from sizeup.estimate.speed.passes import pass_seconds, uncached_rates
from sizeup.estimate.speed.work import PACKINGS, Work

#: Standard deviations of a correction's logarithm before anything is measured: of the parts, and of single packings.
PARTS = {
    "streaming": 0.4, "caching": 0.4, "unpack": 0.6, "flop": 0.6, "attention": 0.6, "attention_one": 0.6,
    "activation": 0.6, "kernel": 0.8, "scatter": 0.6,
}  # fmt: skip
PACKING_PRIOR = 0.35
#: Standard deviation of one measurement's logarithm.
NOISE = 0.04
_SWEEPS, _STEP, _MOST = 12, 1e-3, 0.7


class Observation(msgspec.Struct, frozen=True):
    """So many passes of some work on one device took so many seconds. noise: of its logarithm."""

    work: Work
    passes: float
    seconds: float
    noise: float = NOISE


def names(seen: Sequence[Observation]) -> dict[str, float]:
    """The corrections that the observations can speak of, with their priors."""
    used = [name for place, name in enumerate(PACKINGS)
            if any(o.work.flops[place] or o.work.expert_flops[place] for o in seen)]  # fmt: skip
    return PARTS | {f"{part}.{name}": PACKING_PRIOR for part in ("unpack", "flop") for name in used}


def tightened(ceiling: Ceilings, seen: Sequence[Observation], engine: str = "llama.cpp") -> Ceilings:
    """The device with the corrections that explain the observations best, penalised for leaving the model.

    Minimises Σ (log(predicted / seen) / noise)² + Σ (log correction / prior)² by Gauss-Newton, starting from the
    corrections that the device has.
    """
    if not seen:
        return ceiling
    before = dict(ceiling.corrections)
    priors = names(seen)
    logs = dict.fromkeys(priors, 0.0)
    for _ in range(_SWEEPS):
        step = _step(ceiling, before, seen, engine, priors, logs)
        if max(map(abs, step.values())) < _STEP:
            break
        logs = {name: value + max(-_MOST, min(_MOST, step[name])) for name, value in logs.items()}
    return _corrected(ceiling, before, logs)


def _step(
    ceiling: Ceilings, before: dict[str, float], seen: Sequence[Observation], engine: str,
    priors: dict[str, float], logs: dict[str, float],
) -> dict[str, float]:  # fmt: skip
    """One Gauss-Newton step: (JᵀJ + P) · step = -(Jᵀr + P · logs), slopes by differences."""
    here = _residuals(_corrected(ceiling, before, logs), seen, engine)
    slopes = []
    for name in priors:
        moved = _residuals(_corrected(ceiling, before, logs | {name: logs[name] + _STEP}), seen, engine)
        slopes.append([(there - one) / _STEP for there, one in zip(moved, here, strict=True)])
    matrix = [[sum(a * b for a, b in zip(left, right, strict=True)) for right in slopes] for left in slopes]
    pull = []
    for place, (name, prior) in enumerate(priors.items()):
        matrix[place][place] += 1 / prior**2
        pull.append(-sum(a * r for a, r in zip(slopes[place], here, strict=True)) - logs[name] / prior**2)
    return dict(zip(priors, _solved(matrix, pull), strict=True))


def _solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """The solution of a symmetric positive definite system: Gaussian elimination without pivots."""
    size = len(right)
    for pivot in range(size):
        for row in range(pivot + 1, size):
            factor = matrix[row][pivot] / matrix[pivot][pivot]
            if factor:
                right[row] -= factor * right[pivot]
                for column in range(pivot, size):
                    matrix[row][column] -= factor * matrix[pivot][column]
    for pivot in reversed(range(size)):
        known = sum(matrix[pivot][column] * right[column] for column in range(pivot + 1, size))
        right[pivot] = (right[pivot] - known) / matrix[pivot][pivot]
    return right


def _residuals(ceiling: Ceilings, seen: Sequence[Observation], engine: str) -> list[float]:
    """log(predicted / seen) / noise of each observation."""
    rate, added = uncached_rates(ceiling), engine_of(engine).once([ceiling.stack])
    return [
        math.log((item.passes * pass_seconds(item.work, rate).total + added) / item.seconds) / item.noise
        for item in seen
    ]


def _corrected(ceiling: Ceilings, before: dict[str, float], logs: dict[str, float]) -> Ceilings:
    merged = before | {name: before.get(name, 1.0) * math.exp(value) for name, value in logs.items()}
    return msgspec.structs.replace(ceiling, corrections=tuple(merged.items()))
