"""Fits the trend of `sizeup.advice.quality` on the catalogue's scores and writes `quality_fit.json`.

Ridge regression of logit(score) on one intercept for each benchmark and the four features of the trend. Prints the
coefficients, and the error on models left out, family by family. Run it after the catalogue's scores change.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np

from sizeup.advice import quality
from sizeup.advice.needs import is_code_only
from sizeup.models.catalogue.entry import Entry, entries
from sizeup.models.from_config import model_from_config

TARGET = Path(quality.__file__).with_name("quality_fit.json")
RIDGE = 0.5


def rows() -> list[tuple[Entry, str, list[float], float]]:
    """(model, benchmark, features, logit) of every score of a model with a date."""
    found = []
    for entry in entries():
        age = quality.years(entry.released)
        if not entry.scores or age is None:
            continue
        model = model_from_config(entry.config, name=entry.id)
        size = math.log(math.sqrt(model.parameters * model.active_parameters) / 1e9)
        for score in entry.scores:
            share = min(max(score.value / 100, 0.01), 0.99)
            code = score.benchmark in quality.CODE_BENCHMARKS and is_code_only(entry)
            hard = score.benchmark in quality.HARD_BENCHMARKS and quality.is_reasoner(entry)
            found.append((entry, score.benchmark, [size, age, float(code), float(hard)], math.log(share / (1 - share))))
    return found


def solve(data: list[tuple[Entry, str, list[float], float]], benchmarks: list[str]) -> np.ndarray:
    x = np.array([[float(b == name) for name in benchmarks] + features for _, b, features, _ in data])
    y = np.array([logit for *_, logit in data])
    penalty = np.diag([0.01] * len(benchmarks) + [RIDGE] * 4)
    return np.linalg.solve(x.T @ x + penalty, x.T @ y)


def main() -> None:
    data = rows()
    benchmarks = sorted({benchmark for _, benchmark, _, _ in data})
    weights = solve(data, benchmarks)
    errors = []
    for family in sorted({entry.family for entry, *_ in data}):
        kept = [row for row in data if row[0].family != family]
        held = solve(kept, benchmarks)
        errors += [
            logit - held[benchmarks.index(b)] - float(np.dot(held[len(benchmarks) :], features))
            for entry, b, features, logit in data
            if entry.family == family
        ]
    size, age, specialist, reasoner = (round(float(w), 4) for w in weights[len(benchmarks) :])
    fit = quality.Fit(
        difficulty={b: round(float(w), 4) for b, w in zip(benchmarks, weights, strict=False)},
        size=size,
        age=age,
        specialist=specialist,
        reasoner=reasoner,
        residual=round(float(np.std(errors)), 4),
        last_year=round(max(features[1] for _, _, features, _ in data), 3),
    )
    TARGET.write_bytes(msgspec.json.format(msgspec.json.encode(fit), indent=1) + b"\n")
    print(
        f"{len(data)} scores of {len({e.id for e, *_ in data})} models; left-out-family error {fit.residual:.2f} logits"
    )
    print(msgspec.json.format(msgspec.json.encode(fit), indent=1).decode())


if __name__ == "__main__":
    main()
