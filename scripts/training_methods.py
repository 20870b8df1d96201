"""Simulate a step of small models with every method, optimizer, precision, recomputation, loss and objective offered.

Run with the Python of an environment with torch, transformers, peft, bitsandbytes, lion-pytorch, galore-torch, torchao
and trl:

    python scripts/training_methods.py tests/data/training_grid/methods.json [WORD …]

With words only cases whose description has one of them are run anew. A case takes about two seconds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import training_grid

from sizeup.workers.training_simulate import simulated

AUTOCAST = training_grid.AUTOCAST
SMALL = {"batch": 1, "sequence": 128}
FULL = {"checkpointing": "full"}
LORA, DORA, QLORA = ({"method": method} for method in ("lora", "dora", "qlora"))
DROPPED = {"lora_dropout": 0.1}
WIDE = {"precision": AUTOCAST}
WIDE_AND_DROPPED = DROPPED | WIDE
TABLES = ("lm_head", "embed_tokens")
HALF = ("fp16", "fp16-autocast-fp32-weights")
ENDS = (["lm_head"], ["embed_tokens", "lm_head"])
PLAIN = ("llama", "gpt2", "gemma2", "mixtral", "qwen3")
OPTIMIZERS = (
    "adamw_fused", "adamw_foreach", "adamw_loop", "adam8bit", "paged_adamw", "paged_adam8bit", "adafactor",
    "adafactor_torch", "lion", "lion8bit", "sgd", "sgd_momentum", "muon", "galore",
)  # fmt: skip
#: What each architecture's case sets; the rest is the grid's default.
CASES: list[tuple[str, dict]] = [
    *((name, {"optimizer": optimizer} | SMALL) for name in ("llama", "gpt2", "mixtral") for optimizer in OPTIMIZERS),
    *(("qwen3", {"optimizer": optimizer, "precision": "fp32"} | SMALL) for optimizer in OPTIMIZERS[5:]),
    *(("gemma2", {"optimizer": optimizer, "method": "lora"} | SMALL) for optimizer in ("muon", "galore", "lion")),
    *((name, {"precision": "bf16-fp32-master"} | SMALL) for name in ("llama", "gemma2")),
    ("qwen3", {"precision": "bf16-fp32-master", "optimizer": "adamw_foreach"} | SMALL),
    *((name, {"precision": "fp8"} | more) for name in PLAIN[:4] for more in ({}, FULL)),
    ("llama", {"precision": "fp8"} | LORA),
    *((name, {"precision": precision}) for name in ("llama", "phi3") for precision in HALF),
    ("t5", {"precision": "fp16"}),
    *((name, {"gradient_clip": True} | SMALL) for name in PLAIN),
    *((name, {"accumulating": True, "gradient_clip": True, "precision": AUTOCAST}) for name in ("llama", "bloom")),
    *((name, {"accumulating": True} | LORA) for name in ("llama", "qwen3")),
    *((name, {"keeps_outputs": True, "batch": 1, "sequence": 256}) for name in ("gpt2", "phi3")),
    *((name, {"padding": True} | more) for name in ("llama", "gemma2") for more in ({}, LORA | FULL)),
    *((name, {"checkpointing": "2"} | more) for name in PLAIN for more in ({}, {"precision": AUTOCAST})),
    *((name, {"checkpointing": "selective"} | more) for name in PLAIN for more in ({}, {"precision": AUTOCAST}, LORA)),
    *((name, {"checkpointing": "selective", "precision": "fp32"}) for name in ("gpt2", "qwen3")),
    *((name, {"offload_activations": True} | FULL | more) for name in PLAIN for more in ({}, LORA)),
    *((name, DORA | more) for name in ("llama", "gpt2", "qwen2", "phi3") for more in ({}, FULL, WIDE_AND_DROPPED)),
    ("gpt2", DORA | DROPPED | FULL | {"precision": "fp32"}), ("gemma2", DORA | DROPPED | FULL),
    *((name, QLORA | more) for name in ("llama", "gpt2", "gemma2") for more in ({}, FULL | DROPPED)),
    *((name, QLORA | {"four_bit": "bitsandbytes"} | more) for name in ("llama", "qwen2") for more in ({}, FULL)),
    *(("llama", LORA | {"modules_to_save": saved} | more) for saved in ENDS for more in ({}, FULL)),
    *(("llama", LORA | {"lora_targets": ["q_proj", name]} | more) for name in TABLES for more in ({}, WIDE | FULL)),
    *(("gemma2", LORA | {"lora_targets": ["v_proj", *TABLES]} | more) for more in ({}, WIDE | FULL)),
    ("llama", QLORA | {"lora_targets": ["q_proj", "lm_head"]}),
    ("gemma2", LORA | {"modules_to_save": ["lm_head"]}),
    ("qwen3", QLORA | FULL | {"modules_to_save": ["embed_tokens"]}),
    *((name, LORA | {"adapter_precision": "bf16"} | more) for name in ("llama", "mixtral") for more in ({}, FULL)),
    *((name, {"loss": "narrow"} | more) for name in ("llama", "gpt2") for more in ({}, WIDE)),
    *((name, {"loss": "chunked"} | more) for name in ("llama", "gpt2") for more in ({}, LORA)),
    *((name, {"loss": "tiled"} | more) for name in PLAIN for more in ({}, {"precision": AUTOCAST}, LORA | FULL)),
    *((name, {"objective": "dpo"} | more) for name in PLAIN for more in ({}, {"precision": AUTOCAST} | FULL, LORA)),
    ("llama", {"objective": "dpo", "reference": False}), ("qwen3", {"objective": "dpo"} | QLORA | FULL),
    *((name, {"objective": "grpo"} | more) for name in PLAIN for more in ({}, LORA | FULL)),
    ("llama", {"objective": "grpo", "reference": False}),
]  # fmt: skip


def main(path: Path, words: list[str]) -> None:
    found = json.loads(path.read_text())["cases"] if words and path.is_file() else []
    known = {json.dumps(case[:2]): case[2] for case in found}
    cases, versions = [], {}
    for name, changes in CASES:
        key = json.dumps([name, changes])
        if words and key in known and not any(word in key for word in words):
            cases.append([name, changes, known[key]])
            continue
        result = simulated({"config": training_grid.config_of(name)}, training_grid.DEFAULT | changes)
        versions = result["versions"]
        cases.append([name, changes, result["peak_bytes"]])
    path.write_text(
        json.dumps({"versions": versions, "cases": cases}, separators=(",", ":")).replace("],[", "],\n[") + "\n"
    )
    print(len(cases), "cases")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
