"""Run llama.cpp's allocator dry, or a real load of it: prepare the file, start the worker, read what it says."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sizeup.engines.llamacpp import report
from sizeup.engines.llamacpp.randomweights import write_random
from sizeup.engines.llamacpp.report import MeasuredRun
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import SimulatedFootprint, as_mapped, batches, file_content, job, read_answers
from sizeup.engines.llamacpp.weightless import weightless_file
from sizeup.measure.llamacpp_road import ENVIRONMENT, Road, find_road, worker_python
from sizeup.measure.llamacpp_road import PYTHON_VARIABLE as VARIABLE
from sizeup.models.model import Model
from sizeup.workers.host import WorkerDied, run_worker

__all__ = ["ENVIRONMENT", "VARIABLE", "measure", "measure_file", "simulate", "simulate_file", "worker_python"]


def simulate(
    model: Model, settings: Sequence[LlamaSetting], *, threads: int | None = None, timeout: float = 600
) -> list[SimulatedFootprint]:
    """What llama.cpp would allocate for each setting, in their order.

    threads: also plan the CPU's work buffer for so many threads.
    Raises MissingPart without any llama.cpp, NotFound for a family that llama.cpp doesn't run, BadFile when it
    refuses the file, and SizeupError when the worker fails or takes longer than `timeout` seconds for one load.
    """
    found: dict[int, SimulatedFootprint] = {}
    for places in batches(settings):
        chosen = [settings[place] for place in places]
        with weightless_file(*file_content(model, chosen[0])) as path:
            answers = simulate_file(path, chosen, threads=threads, timeout=timeout)
            found |= dict(zip(places, (as_mapped(model, answer) for answer in answers), strict=True))
    return [found[place] for place in range(len(settings))]


def simulate_file(
    path: Path, settings: Sequence[LlamaSetting], *, threads: int | None = None, timeout: float = 600
) -> list[SimulatedFootprint]:
    """The same for a GGUF file, real or weightless, and settings that load alike.

    A setting that makes llama.cpp abort is refused with its last words, and a new worker goes on behind it.
    """
    road = find_road()
    found: list[SimulatedFootprint] = []
    while len(found) < len(settings):
        left = settings[len(found) :]
        events: list[dict[str, Any]] = []
        try:
            _run("llamacpp_simulate.py", job(str(path), left, threads), road, timeout, events)
            found += read_answers(events, left)
        except WorkerDied as died:
            if not any(event["part"] == "model" for event in events):
                raise
            answered = read_answers(events, left)
            found += [*answered, SimulatedFootprint(left[len(answered)], refused=_abort(died))]
    return found


def measure(
    model: Model, setting: LlamaSetting, *, prefill: int = 512, decode: int = 8, threads: int = 2, timeout: float = 3600
) -> tuple[MeasuredRun, int]:
    """A real load of random weights of the model's shape, and the file's size; the file is removed at the end.

    Raises what `simulate` raises, and SizeupError when the weights don't fit on the disk.
    """
    with tempfile.TemporaryDirectory(prefix="sizeup-") as folder:
        path = Path(folder, "random.gguf")
        size = write_random(path, *file_content(model, setting))
        return measure_file(path, setting, prefill=prefill, decode=decode, threads=threads, timeout=timeout), size


def measure_file(
    path: Path, setting: LlamaSetting, *, prefill: int = 512, decode: int = 8, threads: int = 2, timeout: float = 3600
) -> MeasuredRun:
    """A real load of a GGUF file: prefill and decode so many tokens."""
    events: list[dict[str, Any]] = []
    work = report.job(str(path), setting, prefill=prefill, decode=decode, threads=threads)
    _run("llamacpp_measure.py", work, Road(worker_python()), timeout, events)
    return report.read_run(events, setting, prefill=prefill, decode=decode)


def _run(script: str, work: dict[str, Any], road: Road, timeout: float, results: list[dict[str, Any]]) -> None:
    """Run a worker and keep its results as they come, so that those before a failure aren't lost."""

    def keep(event: dict[str, Any]) -> None:
        if event["event"] == "result":
            results.append(event)

    if road.library:
        work = work | {"library": road.library, "version": road.version}
    run_worker(script, work, python=road.python, timeout=timeout, silence=timeout, on_event=keep)


def _abort(died: WorkerDied) -> str:
    """What llama.cpp said when it aborted, without the folder it was built in."""
    return f"llama.cpp aborts: {died.message.rpartition('/')[2]}"
