"""Fits the trend of `sizeup.advice.quality` on the catalogue's scores and writes `quality_fit.json`.

Ridge regression of logit(score) on an intercept for each benchmark, an offset for each source of a benchmark, and the
four features of the trend. Prints the
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
#: Holds what a source adds to a benchmark's difficulty near 0, unless many scores say otherwise.
SOURCE_RIDGE = 2.0


Row = tuple[Entry, str, str, list[float], float]


def rows() -> list[Row]:
    """(model, benchmark, source, features, logit) of every score of a model with a date."""
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
            features = [size, age, float(code), float(hard)]
            found.append((entry, score.benchmark, score.source, features, math.log(share / (1 - share))))
    return found


def solve(data: list[Row], benchmarks: list[str]) -> np.ndarray:
    """Coefficients of the benchmarks, then of the features. What a source adds to a benchmark is fitted and dropped."""
    pairs = sorted({(benchmark, source) for _, benchmark, source, _, _ in data})
    x = np.array(
        [
            [float(b == name) for name in benchmarks] + features + [float((b, source) == pair) for pair in pairs]
            for _, b, source, features, _ in data
        ]
    )
    y = np.array([logit for *_, logit in data])
    penalty = np.diag([0.01] * len(benchmarks) + [RIDGE] * 4 + [SOURCE_RIDGE] * len(pairs))
    return np.linalg.solve(x.T @ x + penalty, x.T @ y)[: len(benchmarks) + 4]


def left_out_errors(data: list[Row], benchmarks: list[str]) -> list[float]:
    """Errors in logits of each family's scores, predicted without the family."""
    errors = []
    for family in sorted({entry.family for entry, *_ in data}):
        held = solve([row for row in data if row[0].family != family], benchmarks)
        for entry, benchmark, _, features, logit in data:
            if entry.family == family:
                errors.append(
                    logit - held[benchmarks.index(benchmark)] - float(np.dot(held[len(benchmarks) :], features))
                )
    return errors


def main() -> None:
    data = rows()
    benchmarks = sorted({benchmark for _, benchmark, *_ in data})
    weights = solve(data, benchmarks)
    size, age, specialist, reasoner = (round(float(w), 4) for w in weights[len(benchmarks) :])
    fit = quality.Fit(
        difficulty={b: round(float(w), 4) for b, w in zip(benchmarks, weights, strict=False)},
        size=size,
        age=age,
        specialist=specialist,
        reasoner=reasoner,
        residual=round(float(np.std(left_out_errors(data, benchmarks))), 4),
        last_year=round(max(features[1] for *_, features, _ in data), 3),
    )
    TARGET.write_bytes(msgspec.json.format(msgspec.json.encode(fit), indent=1) + b"\n")
    print(
        f"{len(data)} scores of {len({e.id for e, *_ in data})} models; left-out-family error {fit.residual:.2f} logits"
    )
    print(msgspec.json.format(msgspec.json.encode(fit), indent=1).decode())


if __name__ == "__main__":
    main()
