"""Real runs of llama.cpp on random weights of a model's shape: seconds of a prompt, and of a token at each depth."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sizeup.engines.llamacpp.randomweights import write_random
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import file_content
from sizeup.measure.simulation import worker_python
from sizeup.models.model import Model
from sizeup.workers.host import run_worker

PROMPT, DECODED, REPEAT = 512, 8, 3


class SpeedRun(msgspec.Struct, frozen=True):
    """What one run took.

    offloads: whether this llama.cpp can use a GPU. decode: depth in tokens → seconds a token; the depth is the middle
    of the tokens decoded there.
    """

    version: str
    offloads: bool
    prompt_tokens: int
    prompt_seconds: float
    decode: dict[int, float]


def speed_run(
    model: Model,
    setting: LlamaSetting,
    *,
    depths: Sequence[int] = (0,),
    prompt: int = PROMPT,
    decoded: int = DECODED,
    repeat: int = REPEAT,
    threads: int = 2,
    timeout: float = 600,
) -> SpeedRun:
    """Write random weights, load them, run them, remove them. Raises MissingPart without llama-cpp-python."""
    with tempfile.TemporaryDirectory(prefix="sizeup-") as folder:
        path = Path(folder, "random.gguf")
        write_random(path, *file_content(model, setting))
        context = max(*depths, prompt) + repeat * decoded + 64
        job = {
            "gguf": str(path),
            "model": {"n_gpu_layers": 0 if setting.gpu_layers is None else setting.gpu_layers},
            "context": {
                "n_ctx": context, "n_batch": setting.ubatch, "n_ubatch": setting.ubatch,
                "n_threads": threads, "n_threads_batch": threads,
            },
            "prompt": prompt, "decode": decoded, "depths": list(depths), "repeat": repeat,
        }  # fmt: skip
        results = run_worker("calibrate_llamacpp.py", job, python=worker_python(), timeout=timeout, silence=timeout)
    found = {result["part"]: result for result in results}
    middle = repeat * decoded // 2
    return SpeedRun(
        found["engine"]["version"],
        found["engine"]["offloads"],
        found["prompt"]["tokens"],
        found["prompt"]["seconds"],
        {r["depth"] + middle: r["seconds"] for r in results if r["part"] == "decode"},
    )
