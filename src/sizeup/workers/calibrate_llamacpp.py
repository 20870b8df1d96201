"""Worker: how fast llama.cpp reads a prompt and decodes, at several depths, on random weights.

    job      {"gguf": path, "model": {llama_model_params …}, "context": {llama_context_params …},
              "prompts": [tokens …], "decode": tokens, "depths": [tokens …], "repeat": times}
    results  {"part": "engine", "version", "offloads": whether it can use a GPU}
             {"part": "prompt", "tokens", "seconds"}  of each length, the best of `repeat`
             {"part": "decode", "depth", "seconds"}  of one token, the best of `repeat` runs of `decode` tokens

With one thread the processor's time counts, not the wall's: other programs then don't disturb the result.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.llamacpp_binding import Log, fill, load, started
from sizeup.workers.protocol import Say, answer

_LEAST, _ENOUGH_SECONDS = 2, 4.0


class Session:
    """A loaded model with an empty cache."""

    def __init__(self, binding: Any, job: dict[str, Any]) -> None:
        self.binding = binding
        self.log = Log(binding)
        params = binding.llama_model_default_params()
        names = {field for field, *_ in params._fields_}
        chosen = {name: value for name, value in job["model"].items() if name in names}
        self.model = load(binding, job["gguf"], fill(params, chosen), self.log)
        self.context = binding.llama_init_from_model(
            self.model, fill(binding.llama_context_default_params(), job["context"])
        )
        if not self.context:
            raise RuntimeError(f"llama.cpp made no context: {self.log.failure()}")
        self.vocabulary = binding.llama_vocab_n_tokens(binding.llama_model_get_vocab(self.model))
        self.batch = job["context"]["n_batch"]
        self.depth = 0
        self.clock = time.process_time if job["context"]["n_threads"] == 1 else time.perf_counter

    def feed(self, count: int, step: int) -> float:
        """Run so many new tokens in batches of `step`; the seconds they took."""
        array = (self.binding.llama_token * count)(*(random.randrange(self.vocabulary) for _ in range(count)))  # noqa: S311
        started_at = self.clock()
        for first in range(0, count, step):
            piece = (self.binding.llama_token * min(step, count - first))(*array[first : first + step])
            status = self.binding.llama_decode(self.context, self.binding.llama_batch_get_one(piece, len(piece)))
            if status:
                raise RuntimeError(f"llama_decode returned {status} for {len(piece)} tokens")
        self.binding.llama_synchronize(self.context)
        self.depth += count
        return self.clock() - started_at

    def forget(self) -> None:
        """Empty the cache."""
        self.binding.llama_memory_clear(self.binding.llama_get_memory(self.context), False)
        self.depth = 0


def read(session: Session, tokens: int, repeat: int) -> list[float]:
    """Seconds of reading a prompt of so many tokens into an empty cache, each time; a slow one is read twice."""
    times: list[float] = []
    while len(times) < repeat and (len(times) < _LEAST or sum(times) < _ENOUGH_SECONDS):
        session.forget()
        times.append(session.feed(tokens, session.batch))
    return times


def work(job: dict[str, Any], say: Say) -> None:
    """Do one job."""
    binding, version = started()
    say("result", part="engine", version=version, offloads=bool(binding.llama_supports_gpu_offload()))
    session = Session(binding, job)
    session.feed(32, session.batch)
    session.feed(2, 1)
    for tokens in job["prompts"]:
        say("result", part="prompt", tokens=tokens, seconds=min(read(session, tokens, job["repeat"])))
    session.forget()
    for depth in job["depths"]:
        if depth > session.depth:
            session.feed(depth - session.depth, session.batch)
        each = [session.feed(job["decode"], 1) / job["decode"] for _ in range(job["repeat"])]
        say("result", part="decode", depth=depth, seconds=min(each))


if __name__ == "__main__":
    sys.exit(answer(work))
