"""Real runs of llama.cpp on random weights of a model's shape: seconds of prompts, and of a token at each depth."""

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

PROMPTS, DECODED, REPEAT = (512,), 8, 3


class SpeedRun(msgspec.Struct, frozen=True):
    """What one run took.

    offloads: whether this llama.cpp can use a GPU. prompts: tokens → seconds of reading them into an empty cache.
    decode: depth in tokens → seconds a token; the depth is the middle of the tokens decoded there.
    """

    version: str
    offloads: bool
    prompts: dict[int, float]
    decode: dict[int, float]

    def best_with(self, other: SpeedRun) -> SpeedRun:
        """The shorter time of each: another program only ever takes time away."""
        return msgspec.structs.replace(
            self,
            prompts={tokens: min(took, other.prompts.get(tokens, took)) for tokens, took in self.prompts.items()},
            decode={depth: min(took, other.decode.get(depth, took)) for depth, took in self.decode.items()},
        )


def speed_run(
    model: Model,
    setting: LlamaSetting,
    *,
    depths: Sequence[int] = (0,),
    prompts: Sequence[int] = PROMPTS,
    decoded: int = DECODED,
    repeat: int = REPEAT,
    threads: int = 2,
    timeout: float = 600,
) -> SpeedRun:
    """Write random weights, load them, run them, remove them.

    With one thread the processor's time counts, else the wall's. Raises MissingPart without llama-cpp-python.
    """
    context = max((0, *depths, *prompts)) + repeat * decoded + 64
    job = {
        "model": {"n_gpu_layers": 0 if setting.gpu_layers is None else setting.gpu_layers},
        "context": {
            "n_ctx": context, "n_batch": setting.ubatch, "n_ubatch": setting.ubatch,
            "n_threads": threads, "n_threads_batch": threads,
        },
        "prompts": list(prompts), "decode": decoded, "depths": list(depths), "repeat": repeat,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="sizeup-") as folder:
        path = Path(folder, "random.gguf")
        write_random(path, *file_content(model, setting))
        job["gguf"] = str(path)
        results = run_worker("calibrate_llamacpp.py", job, python=worker_python(), timeout=timeout, silence=timeout)
    engine = next(result for result in results if result["part"] == "engine")
    middle = repeat * decoded // 2
    return SpeedRun(
        engine["version"],
        engine["offloads"],
        {r["tokens"]: r["seconds"] for r in results if r["part"] == "prompt"},
        {r["depth"] + middle: r["seconds"] for r in results if r["part"] == "decode"},
    )
