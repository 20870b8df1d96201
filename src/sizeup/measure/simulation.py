"""Run llama.cpp's allocator dry: write a weightless file, start the worker, read what it says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sizeup.engines.llamacpp.locate import worker_python
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import SimulatedFootprint, batches, file_content, job, read_answers
from sizeup.engines.llamacpp.weightless import weightless_file
from sizeup.models.model import Model

WORKER = Path(__file__).parent.parent / "workers" / "llamacpp_simulate.py"


def simulate(model: Model, settings: Sequence[LlamaSetting], *, timeout: float = 600) -> list[SimulatedFootprint]:
    """What llama.cpp would allocate for each setting, in their order.

    Raises MissingPart without llama-cpp-python, NotFound for a family that llama.cpp doesn't run, and SizeupError
    when the worker fails, dies or takes longer than `timeout` seconds for one load.
    """
    found: dict[int, SimulatedFootprint] = {}
    for places in batches(settings):
        chosen = [settings[place] for place in places]
        with weightless_file(*file_content(model, chosen[0])) as path:
            found |= dict(zip(places, simulate_file(path, chosen, timeout=timeout), strict=True))
    return [found[place] for place in range(len(settings))]


def simulate_file(path: Path, settings: Sequence[LlamaSetting], *, timeout: float = 600) -> list[SimulatedFootprint]:
    """The same for a GGUF file, real or weightless, and settings that load alike."""
    return read_answers(_answers(job(str(path), settings), timeout), settings)


def _answers(work: dict[str, Any], timeout: float) -> list[dict[str, Any]]:
    done = subprocess.run(
        [worker_python(), str(WORKER)],
        input=json.dumps(work),
        text=True,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if not any(answer["event"] in {"done", "error"} for answer in answers):
        answers.append(
            {"event": "error", "message": f"the worker ended with status {done.returncode}: {done.stderr[-800:]}"}
        )
    return answers
