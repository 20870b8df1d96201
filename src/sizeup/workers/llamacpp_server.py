"""A server around llama-cpp-python: `python llamacpp_server.py JOB`. It needs that package and nothing else.

    job     {"gguf": path, "host", "port", "mmap": bool, "model": {llama_model_params …}, "context": {…}}
    routes  those of `server_http.py`

It speaks as llama-server does, so that a client needn't tell them apart. Unlike the package's own server it computes
several requests at once, takes token ids, and tells llama.cpp's own times.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.llamacpp_binding import Log, fill, load, started
from sizeup.workers.llamacpp_measure import model_params
from sizeup.workers.llamacpp_server_slots import Slots
from sizeup.workers.llamacpp_server_text import Text
from sizeup.workers.protocol import Refused
from sizeup.workers.server_http import App, listen

#: How long a thread may hold the interpreter: short, so that passing tokens on never delays the next batch.
SWITCH_SECONDS = 2e-4


def serve(job: dict[str, Any]) -> None:
    """Load the model and serve it until the process ends."""
    binding, version = started()
    log = Log(binding)
    model = load(binding, job["gguf"], model_params(binding, job), log)
    values = {**job["context"], "no_perf": False}
    context = binding.llama_init_from_model(model, fill(binding.llama_context_default_params(), values))
    if not context:
        raise Refused("failed", f"llama.cpp made no context: {log.failure()}")
    log.clear()
    text = Text(binding, model)
    slots = Slots(binding, context, text, values.get("n_seq_max", 1))
    props = {"default_generation_settings": {"n_ctx": slots.length}, "build_info": f"llama-cpp-python {version}"}
    listen(App(Path(job["gguf"]).name, text, slots, props, "llamacpp"), job["host"], job["port"])
    slots.run()


def main() -> int:
    """Serve the job in the first argument."""
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        serve(json.loads(sys.argv[1]))
    except (Refused, OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
