"""Worker: llama.cpp's own allocator, run dry on a GGUF file without weights.

    job     {"gguf": path, "model": {llama_model_params …}, "contexts": [{llama_context_params …}, …],
             "work": whether to plan the CPU's work buffer too, which allocates the compute buffer for real,
             "library", "version": of a libllama to use instead of the package's}
    results {"part": "engine", "engine", "version", "system"}
            {"part": "model", "seconds", "parameters", "bytes", "description"}
            {"part": "context", "index", "seconds", "buffers": [{"name", "device", "host", "model", "context",
             "compute"}], "output", "work", "metadata", "graph", "tokens"}
            {"part": "refused", "index", "message"}     one context; the others go on

The output buffer is not in llama.cpp's account and comes from its log, to 0.01 MiB. metadata: what this process
itself grew by, which is what a real load takes for its vocabulary, tensor descriptions and graph; None where the
system doesn't say.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.llamacpp_binding import Log, Memory, WorkBuffer, fill, load, started
from sizeup.workers.process_memory import anonymous_bytes
from sizeup.workers.protocol import Say, answer

LOAD_MODE_NONE = 0


def dry_params(binding: Any, values: dict[str, Any]) -> Any:
    """Parameters for a load that reads metadata only and sizes every buffer without allocating it."""
    params = binding.llama_model_default_params()
    names = {field for field, *_ in params._fields_}
    if "no_alloc" not in names:
        raise RuntimeError("this llama.cpp can't load without allocating (no_alloc, since December 2025)")
    params.no_alloc = True
    if "load_mode" in names:
        params.load_mode = LOAD_MODE_NONE
    else:
        params.use_mmap = False
    return fill(params, values)


def load_dry(binding: Any, job: dict[str, Any], log: Log, say: Say) -> Any:
    """Load the file without its weights, and say what it holds."""
    since = time.perf_counter()
    model = load(binding, job["gguf"], dry_params(binding, job.get("model", {})), log)
    text = ctypes.create_string_buffer(256)
    binding.llama_model_desc(model, text, len(text))
    say(
        "result",
        part="model",
        seconds=time.perf_counter() - since,
        parameters=binding.llama_model_n_params(model),
        bytes=binding.llama_model_size(model),
        description=text.value.decode(errors="replace"),
    )
    return model


class Simulator:
    """A model loaded dry, and what is needed to ask about its contexts."""

    def __init__(self, binding: Any, job: dict[str, Any], log: Log, say: Say) -> None:
        self._binding, self._log, self._say = binding, log, say
        self._memory = Memory(binding)
        self._work = WorkBuffer(binding) if job.get("work") else None
        self._before = anonymous_bytes()
        self._model = load_dry(binding, job, log, say)

    def close(self) -> None:
        """Let the model go."""
        self._binding.llama_model_free(self._model)

    def context(self, index: int, values: dict[str, Any]) -> None:
        """Create one context and say what it would take."""
        binding, log = self._binding, self._log
        log.clear()
        since = time.perf_counter()
        context = binding.llama_init_from_model(self._model, fill(binding.llama_context_default_params(), values))
        if not context:
            self._say("result", part="refused", index=index, message=log.failure())
            return
        self._say(
            "result",
            part="context",
            index=index,
            seconds=time.perf_counter() - since,
            buffers=self._memory.of(context),
            output=log.buffer_bytes("output"),
            metadata=self._grown(),
            work=self._planned(context, values),
            graph=log.graph(),
            tokens=binding.llama_n_ctx(context),
        )
        binding.llama_free(context)

    def _grown(self) -> int | None:
        """What the process grew by, without the recurrent states, which are allocated even here."""
        now = anonymous_bytes()
        if now is None or self._before is None:
            return None
        return now - self._before - (self._log.buffer_bytes("RS") or 0)

    def _planned(self, context: Any, values: dict[str, Any]) -> int | None:
        if self._work is None:
            return None
        sequences = values.get("n_seq_max", 1)
        tokens = min(self._binding.llama_n_ctx(context), self._binding.llama_n_ubatch(context))
        return self._work.bytes(context, tokens, sequences, min(tokens, values.get("n_outputs_max") or tokens))


def work(job: dict[str, Any], say: Say) -> None:
    """Do one job."""
    binding, version = started(job.get("library", ""), job.get("version", ""))
    log = Log(binding)
    system = binding.llama_print_system_info().decode()
    say("result", part="engine", engine="llama.cpp", version=version, system=system)
    simulator = Simulator(binding, job, log, say)
    for index, values in enumerate(job["contexts"]):
        try:
            simulator.context(index, values)
        except (ValueError, KeyError) as error:
            say("result", part="refused", index=index, message=str(error))
    simulator.close()


if __name__ == "__main__":
    sys.exit(answer(work))
