"""Runs cells one after the other: warm-up, repetitions, and each cell's result as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sizeup.measure.bench.cells import Cell
from sizeup.measure.bench.client import Client
from sizeup.measure.bench.resources import Watch
from sizeup.measure.bench.results import CellResult, Prediction, summarize
from sizeup.progress import tell

_WARM_UP = Cell(prompt=32, generate=8)
_NO_PREDICTION = Prediction()


def bench(
    client: Client,
    cells: Sequence[Cell],
    *,
    repetitions: int,
    pid: int | None,
    predict: Callable[[Cell], Prediction] = lambda _: _NO_PREDICTION,
) -> Iterator[CellResult]:
    """Measure cells and yield each result as soon as its runs are done. Raises NetworkError when the server fails.

    pid: of the server, when it runs here. predict: what is expected of a cell.
    """
    every = 1 + len(cells) * repetitions
    tell("warming up", 0, every)
    client.run(_WARM_UP, seed=0)
    done = 1
    for number, cell in enumerate(cells):
        runs = []
        with Watch(pid) as watch:
            for repetition in range(repetitions):
                tell(cell.words, done, every)
                runs.append(client.run(cell, seed=1 + number * repetitions + repetition))
                done += 1
        yield summarize(cell, runs, watch.usage(), predict(cell))
    tell("done", every, every)
