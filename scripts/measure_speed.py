"""Run random-weights models on the machine at hand with llama.cpp; one JSON line a run, for `judge_speed.py` and docs.

python scripts/measure_speed.py OUT.jsonl
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.measure.speed_runs import speed_run
from sizeup.models.load import load_model
from sizeup.models.model import Model

#: (model, format, depths): 0.1B to 3B, dense, mixtures, hybrid.
MIXTURE = (
    "layers=16,embedding=1024,heads=16,kv_heads=4,vocabulary=32000,ffn=2048,experts=16,active_experts=2,expert_ffn=1024"
)
WIDE_MIXTURE = (
    "layers=8,embedding=1536,heads=12,kv_heads=4,vocabulary=50000,ffn=2048,experts=8,active_experts=2,expert_ffn=2048"
)
RUNS = (
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "Q8_0", (0, 2048)),
    ("Qwen/Qwen3-0.6B", "Q4_K_M", (0, 1024)),
    (MIXTURE, "Q4_K_M", (0, 1024)),
    ("HuggingFaceTB/SmolLM2-360M-Instruct", "F16", (0, 1024)),
    ("Qwen/Qwen2.5-0.5B-Instruct", "Q4_0", (0, 1024)),
    ("meta-llama/Llama-3.2-1B-Instruct", "Q4_K_M", (0, 512)),
    ("google/gemma-3-1b-it", "Q8_0", (0,)),
    (WIDE_MIXTURE, "Q8_0", (0, 512)),
    ("Qwen/Qwen3-0.6B", "Q6_K", (0,)),
    ("Qwen/Qwen3-0.6B", "IQ4_XS", (0,)),
    ("Qwen/Qwen3-1.7B", "Q5_K_M", (0,)),
    ("meta-llama/Llama-3.2-3B-Instruct", "Q4_K_M", (0,)),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "Q4_0", (0, 8000)),
)  # fmt: skip


def model_of(name: str) -> Model:
    return load_model(shape=name) if "=" in name else load_model(name)


def main() -> None:
    with Path(sys.argv[1]).open("a") as out:
        for name, format_, depths in RUNS:
            before = time.time()
            run = speed_run(
                model_of(name),
                LlamaSetting(format=format_, gpu_layers=0),
                depths=depths,
                prompt=128,
                repeat=2,
                threads=1,
            )
            row = {"model": name, "format": format_, "prompt": run.prompt_tokens / run.prompt_seconds,
                   "prompt_tokens": run.prompt_tokens, "decode": {d: 1 / s for d, s in run.decode.items()},
                   "load": os.getloadavg()[0]}  # fmt: skip
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(f"{name[:40]:40} {format_:7} pp {row['prompt']:8.1f}  tg", {d: round(v, 1) for d, v in row["decode"].items()},  # noqa: E501
                  f"load {row['load']:.1f}  {time.time() - before:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
