"""Worker: llama.cpp's own allocator, run dry on a GGUF file without weights.

One job comes in as a JSON object on standard input, answers go out as JSON lines:

    job      {"gguf": path, "model": {llama_model_params …}, "contexts": [{llama_context_params …}, …]}
    answers  {"event": "engine", "engine", "version", "system"}
             {"event": "model", "seconds", "parameters", "bytes", "description"}
             {"event": "context", "index", "seconds", "buffers": [{"name", "device", "host", "model", "context",
              "compute"}], "output", "graph", "tokens"}
             {"event": "failed", "index", "message"}     one context is refused; the others go on
             {"event": "error", "kind", "message"}       the whole job
             {"event": "done"}

The output buffer is not in llama.cpp's account and comes from its log, to 0.01 MiB.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.llamacpp_binding import Log, Memory, answer, fill, load, say

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


def load_dry(binding: Any, job: dict[str, Any], log: Log) -> Any:
    """Load the file without its weights, and say what it holds."""
    started = time.perf_counter()
    model = load(binding, job["gguf"], dry_params(binding, job.get("model", {})), log)
    text = ctypes.create_string_buffer(256)
    binding.llama_model_desc(model, text, len(text))
    say(
        "model",
        seconds=time.perf_counter() - started,
        parameters=binding.llama_model_n_params(model),
        bytes=binding.llama_model_size(model),
        description=text.value.decode(errors="replace"),
    )
    return model


def simulate(binding: Any, memory: Memory, model: Any, index: int, values: dict[str, Any], log: Log) -> None:
    """Create one context and say what it would take."""
    log.clear()
    started = time.perf_counter()
    context = binding.llama_init_from_model(model, fill(binding.llama_context_default_params(), values))
    if not context:
        say("failed", index=index, message=log.failure())
        return
    say(
        "context",
        index=index,
        seconds=time.perf_counter() - started,
        buffers=memory.of(context),
        output=log.buffer_bytes("output"),
        graph=log.graph(),
        tokens=binding.llama_n_ctx(context),
    )
    binding.llama_free(context)


def run(job: dict[str, Any]) -> None:
    """Do one job."""
    from llama_cpp import __version__
    from llama_cpp import llama_cpp as binding

    log = Log(binding)
    binding.llama_backend_init()
    say("engine", engine="llama.cpp", version=__version__, system=binding.llama_print_system_info().decode())
    memory = Memory(binding)
    model = load_dry(binding, job, log)
    for index, values in enumerate(job["contexts"]):
        try:
            simulate(binding, memory, model, index, values, log)
        except (ValueError, KeyError) as error:
            say("failed", index=index, message=str(error))
    binding.llama_model_free(model)


if __name__ == "__main__":
    sys.exit(answer(run))
