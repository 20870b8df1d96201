"""Worker: a real load of a GGUF file by llama.cpp: load, prefill, decode, and what each step holds.

    job      {"gguf": path, "model": {llama_model_params …}, "context": {llama_context_params …},
              "prefill": tokens, "decode": tokens, "mmap": bool}
    results  {"part": "engine", "engine", "version", "system"}
             {"part": "step", "step": "start | loaded | ready | prefilled | decoded", "seconds", "anonymous",
              "mapped", "resident", "peak"}
             {"part": "buffers", "buffers": […], "output", "threads"}

Tokens are random numbers below the vocabulary's size: bytes and speed don't depend on them.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.llamacpp_binding import Log, Memory, fill, load, started
from sizeup.workers.process_memory import snapshot
from sizeup.workers.protocol import Refused, Say, answer

LOAD_MODE_NONE, LOAD_MODE_MMAP = 0, 1


class Run:
    """One measurement in progress: reports each step with its time and memory."""

    def __init__(self, path: str, say: Say) -> None:
        self._say = say
        self._path = str(Path(path).resolve())
        self._since = time.perf_counter()
        self.step("start")

    def step(self, name: str) -> None:
        """Say what the process holds after a step, and how long it took."""
        seconds = time.perf_counter() - self._since
        self._say("result", part="step", step=name, seconds=seconds, **snapshot(self._path))
        self._since = time.perf_counter()


def model_params(binding: Any, job: dict[str, Any]) -> Any:
    """Parameters for a real load, mapped or read."""
    params = binding.llama_model_default_params()
    names = {field for field, *_ in params._fields_}
    if "load_mode" in names:
        params.load_mode = LOAD_MODE_MMAP if job["mmap"] else LOAD_MODE_NONE
    else:
        params.use_mmap = job["mmap"]
    return fill(params, {name: value for name, value in job["model"].items() if name in names})


def feed(binding: Any, context: Any, tokens: list[int]) -> None:
    """Run one batch. Raises RuntimeError with llama.cpp's status when it doesn't fit."""
    array = (binding.llama_token * len(tokens))(*tokens)
    status = binding.llama_decode(context, binding.llama_batch_get_one(array, len(tokens)))
    if status:
        raise RuntimeError(f"llama_decode returned {status} for {len(tokens)} tokens")


def work(job: dict[str, Any], say: Say) -> None:
    """Do one job."""
    binding, version = started()
    log = Log(binding)
    system = binding.llama_print_system_info().decode()
    say("result", part="engine", engine="llama.cpp", version=version, system=system)
    progress = Run(job["gguf"], say)
    model = load(binding, job["gguf"], model_params(binding, job), log)
    progress.step("loaded")
    context = binding.llama_init_from_model(model, fill(binding.llama_context_default_params(), job["context"]))
    if not context:
        raise RuntimeError(f"llama.cpp made no context: {log.failure()}")
    progress.step("ready")
    account = Memory(binding).of(context)
    threads = binding.llama_n_threads_batch(context)
    say("result", part="buffers", buffers=account, output=log.buffer_bytes("output"), threads=threads)

    room = binding.llama_n_ctx(context)
    if job["prefill"] + job["decode"] > room:
        raise Refused("config", f"{job['prefill']} + {job['decode']} tokens don't fit in a context of {room}")
    vocabulary = binding.llama_vocab_n_tokens(binding.llama_model_get_vocab(model))
    tokens = [random.randrange(vocabulary) for _ in range(job["prefill"] + job["decode"])]  # noqa: S311
    batch = binding.llama_n_batch(context)
    for start in range(0, job["prefill"], batch):
        feed(binding, context, tokens[start : min(start + batch, job["prefill"])])
    binding.llama_synchronize(context)
    progress.step("prefilled")
    for token in tokens[job["prefill"] :]:
        feed(binding, context, [token])
    binding.llama_synchronize(context)
    progress.step("decoded")
    binding.llama_free(context)
    binding.llama_model_free(model)


if __name__ == "__main__":
    sys.exit(answer(work))
