"""Run llama.cpp's allocator dry, or a real load of it: prepare the file, start the worker, read what it says."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sizeup.engines.llamacpp import report
from sizeup.engines.llamacpp.locate import worker_python
from sizeup.engines.llamacpp.randomweights import write_random
from sizeup.engines.llamacpp.report import MeasuredRun
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import SimulatedFootprint, batches, file_content, job, read_answers
from sizeup.engines.llamacpp.weightless import weightless_file
from sizeup.models.model import Model

WORKERS = Path(__file__).parent.parent / "workers"


def simulate(
    model: Model, settings: Sequence[LlamaSetting], *, threads: int | None = None, timeout: float = 600
) -> list[SimulatedFootprint]:
    """What llama.cpp would allocate for each setting, in their order.

    threads: also plan the CPU's work buffer for so many threads.
    Raises MissingPart without llama-cpp-python, NotFound for a family that llama.cpp doesn't run, and SizeupError
    when the worker fails, dies or takes longer than `timeout` seconds for one load.
    """
    found: dict[int, SimulatedFootprint] = {}
    for places in batches(settings):
        chosen = [settings[place] for place in places]
        with weightless_file(*file_content(model, chosen[0])) as path:
            answers = simulate_file(path, chosen, threads=threads, timeout=timeout)
            found |= dict(zip(places, answers, strict=True))
    return [found[place] for place in range(len(settings))]


def simulate_file(
    path: Path, settings: Sequence[LlamaSetting], *, threads: int | None = None, timeout: float = 600
) -> list[SimulatedFootprint]:
    """The same for a GGUF file, real or weightless, and settings that load alike."""
    return read_answers(_answers("llamacpp_simulate.py", job(str(path), settings, threads), timeout), settings)


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
    work = report.job(str(path), setting, prefill=prefill, decode=decode, threads=threads)
    return report.read_run(_answers("llamacpp_measure.py", work, timeout), setting, prefill=prefill, decode=decode)


def _answers(worker: str, work: dict[str, Any], timeout: float) -> list[dict[str, Any]]:
    done = subprocess.run(
        [worker_python(), str(WORKERS / worker)],
        input=json.dumps(work),
        text=True,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    answers: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    if not any(answer["event"] in {"done", "error"} for answer in answers):
        told = done.stderr.strip()[-800:]
        answers.append({"event": "error", "message": f"the worker ended with status {done.returncode}: {told}"})
    return answers
