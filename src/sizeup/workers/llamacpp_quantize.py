"""Worker: quantize a GGUF file with llama.cpp's own quantizer.

job      {"gguf": path, "targets": {format: path}, "threads"}
results  {"format", "path", "bytes"} for each
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.llamacpp_binding import Log, started
from sizeup.workers.protocol import Refused, Say, answer


def file_type(binding: Any, name: str) -> int:
    """llama.cpp's number for a mix (`Q4_K_M`). Raises Refused for one that it doesn't write."""
    number = getattr(binding, f"LLAMA_FTYPE_MOSTLY_{name}", None)
    if number is None:
        raise Refused("unknown", f"this llama.cpp doesn't write {name!r}")
    return int(number)


def work(job: dict[str, Any], say: Say) -> None:
    """Write every target."""
    binding, _ = started()
    log = Log(binding)
    for done, (name, path) in enumerate(job["targets"].items()):
        say("progress", done=done, all=len(job["targets"]), what=f"quantizing to {name}")
        params = binding.llama_model_quantize_default_params()
        params.ftype, params.nthread = file_type(binding, name), job["threads"]
        if binding.llama_model_quantize(job["gguf"].encode(), path.encode(), params):
            raise Refused("file", f"llama.cpp can't quantize {Path(job['gguf']).name} to {name}: {log.failure()}")
        say("result", format=name, path=path, bytes=Path(path).stat().st_size)


if __name__ == "__main__":
    sys.exit(answer(work))
