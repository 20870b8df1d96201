"""Make the training rows that ship with the package.

    scripts/training_rows.py simulated     data/torch_simulated.jsonl: the grid of small models, and the truth's steps
    scripts/training_rows.py published     data/torch_published.jsonl: what others measured, row by row

Needs the truth folder (SIZEUP_TRUTH, or ../shared/truth beside the repository). Then `build_ledger.py derive`.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from build_ledger import TRUTH, configuration, write
from training_kept import every

from sizeup.estimate.training.settings import TrainSetting
from sizeup.measure.rows import ModelRecord, Row
from sizeup.measure.torch_rows import train_record, train_row
from sizeup.quantity.units import GB, GIB

Entries = Iterator[Row | ModelRecord]

#: PEFT's runs; the shape of Llama 3.2 3B.
LLAMA_3B = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 3072, "intermediate_size": 8192,
    "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 131072, "tie_word_embeddings": True,
}  # fmt: skip
PHI_2 = {
    "model_type": "phi", "vocab_size": 51200, "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "partial_rotary_factor": 0.4,
    "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip


#: What the kept steps were simulated with.
SIMULATED = "torch 2.13.0+cpu, transformers 5.23.0"


def setting(**fields: Any) -> TrainSetting:
    return TrainSetting(**fields)


def simulated() -> Entries:
    """Steps simulated on fake tensors: small models of every architecture, and larger ones of the truth."""
    for name, config, made, peak in every():
        record = train_record(config, f"small {name}")
        asked = setting(**made)
        machine = "several gpus" if asked.world > 1 else "gpu"
        yield record
        yield train_row(record, asked, {"peak": peak}, machine_class=machine, version=SIMULATED, date="2026-11-21")
    yield from oracle()


def oracle() -> Entries:
    """The truth's steps, with what a replay of the caching allocator reserves."""
    for line in (TRUTH / "training_oracle.jsonl").read_text().splitlines():
        step = json.loads(line)
        record = train_record(step["config"], step["model"], step["n_params"])
        made = {name: step[name] for name in TrainSetting.__struct_fields__ if step.get(name) is not None}
        made["checkpointing"] = "full" if step["checkpointing"] else "none"
        made["lora_targets"] = tuple(step["lora_targets"] or ()) if step["lora_targets"] != "all-linear" else ()
        if step["fsdp"]:
            made |= {"sharding": "fsdp", "data_parallel": step["fsdp"], "reshard": step["fsdp_reshard"] is not False}
        yield record
        yield train_row(
            record,
            setting(**made),
            {"peak": step["peak_bytes"], "reserved": step["simulated_reserved_bytes"]},
            source="torch's memory tracker on fake tensors, torch 2.13, transformers 5.23",
            machine_class="several gpus" if step["fsdp"] else "gpu",
        )


def published() -> Entries:
    """Every training row of memory_published.csv that one of the readers below takes, and torchtitan's tables."""
    with (TRUTH / "memory_published.csv").open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["kind"] == "training"]
    for row in found:
        for mark, reader in READERS.items():
            if mark in row["source"]:
                made = reader(row)
                if made is not None:
                    unit = GB if row["unit"] == "GB(ambiguous)" else GIB
                    yield from told(*made, source=row["source"], known=float(row["measured_gib"]) * unit)
    for run, shape, measured, fields, note in TITAN:
        made = {"precision": "fp32", "sharding": "fsdp"} | fields
        yield from told(
            f"torchtitan: {run}", shape, "reserved", made, note, bool(note), source=TITAN_SOURCE, known=measured * GIB
        )


def told(
    run: str, shape: tuple[str, dict[str, Any]], component: str, made: dict[str, Any], note: str, near: bool,
    *, source: str, known: float,
) -> Entries:  # fmt: skip
    """One published figure as a row."""
    name, config = shape
    record = train_record(config, name)
    several = made.get("data_parallel", 1) * made.get("tensor_parallel", 1) * made.get("context_parallel", 1) > 1
    row = train_row(
        record, setting(**made), {component: round(known)}, kind="measure",
        method="published nearest" if near else "published", source=source, note=note, workload={"run": run},
        machine_class="several gpus" if several else "gpu",
    )  # fmt: skip
    yield from (record, row)


Made = tuple[str, tuple[str, dict[str, Any]], str, dict[str, Any], str, bool]

PEFT_NOTE = "Adapter {0} isn't modelled: LoRA of the same rank and modules stands in for it."
PEFT_NEAR = {
    "lorafa": "LoRA-FA keeps A frozen; estimated as plain LoRA.",
    "mica": "MiCA trains one of the two matrices; estimated as plain LoRA.",
    "bdlora": "Block-diagonal LoRA; estimated as plain LoRA.",
}


def peft(row: dict[str, str]) -> Made:
    """Llama 3.2 3B on MetaMathQA, 4 sequences of at most 768 tokens, sorted by length: the longest batch decides."""
    kind, name = row["method"].split(" ", 1)
    made: dict[str, Any] = {"batch": 4, "sequence": 768, "padding": True, "optimizer": "adamw_foreach"}
    note, near = "", False
    if not kind.startswith("FULL"):
        rank = re.search(r"r=(\d+)", row["setting"])
        targets = re.search(r"targets=(\S+)", row["setting"])
        names = (targets[1] if targets else "None").split(",")
        known = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
        made |= {
            "method": "dora" if "dora" in name else "lora", "lora_rank": int(rank[1]) if rank else 8,
            "lora_targets": tuple(names) if set(names) <= known else ("q_proj", "v_proj"), "gradient_clip": True,
        }  # fmt: skip
        near = kind != "LORA" or any(word in name for word in PEFT_NEAR)
        note = PEFT_NOTE.format(kind) if kind != "LORA" else next((v for k, v in PEFT_NEAR.items() if k in name), "")
    return f"PEFT: {name}", ("meta-llama/Llama-3.2-3B", LLAMA_3B), "reserved", made, note, near


TUNE = {"batch": 2, "sequence": 4096}
_CHUNKED = TUNE | {"loss": "chunked"}
_CHECKPOINTED = _CHUNKED | {"checkpointing": "full"}
_OFFLOADED = _CHECKPOINTED | {"offload_activations": True}
TORCHTUNE: dict[str, tuple[dict[str, Any], str]] = {
    "baseline": (TUNE, "Unpacked: sequences are as long as Alpaca's rows, far below 4,096; their lengths aren't told."),
    "+packed": (TUNE, ""),
    "+compile": (
        TUNE,
        "torch.compile keeps fewer activations (it recomputes norms and activations); outside the estimate.",
    ),
    "+chunked": (_CHUNKED, "Still compiled: 9 GiB below the eager step, as in the row before it."),
    "+activation checkpointing": (_CHECKPOINTED, ""),
    "+optimizer in backward": (_CHECKPOINTED, "Each gradient is used and freed in the backward pass; not modelled."),
    "+activation offloading": (
        _OFFLOADED,
        "Optimizer in the backward pass: gradients are freed at once; not modelled.",
    ),
    "+8-bit": (
        _OFFLOADED | {"optimizer": "adam8bit"},
        "Optimizer in the backward pass: gradients are freed at once; not modelled.",
    ),
    "LoRA": (_OFFLOADED | {"method": "lora", "adapter_precision": "bf16"}, ""),
    "QLoRA": (
        _OFFLOADED | {"method": "qlora", "adapter_precision": "bf16"},
        "torchtune's NF4 keeps embedding, head and norms in bf16; PEFT's preparation, which is estimated, in fp32.",
    ),
}


def torchtune(row: dict[str, str]) -> Made:
    """Llama 3.2 3B, 2 packed sequences of 4,096, one change after the other; the figure is the active peak."""
    key = next(key for key in sorted(TORCHTUNE, key=len, reverse=True) if row["method"].startswith(key))
    made, note = TORCHTUNE[key]
    return f"torchtune: {row['method']}", ("meta-llama/Llama-3.2-3B", LLAMA_3B), "peak", made, note, bool(note)


SPLIT = ("q_proj", "v_proj")
EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "dense", "fc1", "fc2", "lm_head")
#: litgpt's name → our configuration, whether every linear module is adapted (else queries and values), the rank.
LITGPT = {
    "llama-2-7b": ("togethercomputer/LLaMA-2-7B-32K", SPLIT, 32),
    "llama-3-8b": ("meta-llama/Meta-Llama-3.1-8B", SPLIT, 32),
    "llama-3.1-8b": ("meta-llama/Meta-Llama-3.1-8B", SPLIT, 32),
    "mistral-7b": ("mistralai/Mistral-7B-v0.1", SPLIT, 32),
    "phi-2": ("", EVERY, 8),
    "gemma-2b": ("google/gemma-2b", EVERY, 8),
    "gemma-7b": ("google/gemma-7b", EVERY, 16),
}
LITGPT_QLORA = (
    "litgpt's 4-bit layers (Fabric, bitsandbytes of early 2024) keep every layer's input: about 100 MiB a layer more "
    "than LoRA in 16 bits, which transformers and peft don't; embeddings stay in bf16, where peft makes them fp32."
)
LITGPT_PHI = "Every linear module and the head adapted: litgpt's adapters share their input and take no copies of it."
LITGPT_HEAD = (
    "The head has an adapter too, and the tied 256,000-row head is stored twice: litgpt makes the logits three times "
    "over (head, adapter, sum)."
)


def litgpt(row: dict[str, str]) -> Made | None:
    """Litgpt's recipes on Alpaca2k: not packed, at most 512 tokens; max_memory_allocated."""
    if row["model"] not in LITGPT or row["n_gpus"] != "1" or row["method"] not in {"lora", "qlora"}:
        return None
    name, targets, rank = LITGPT[row["model"]]
    made = {
        "method": row["method"], "batch": int(row["batch_per_gpu"]), "sequence": 512, "lora_rank": rank,
        "lora_targets": targets, "adapter_precision": "bf16", "lora_dropout": 0.05,
        "optimizer": "adamw_foreach" if row["method"] == "lora" else "paged_adamw",
    }  # fmt: skip
    notes = [LITGPT_QLORA] if row["method"] == "qlora" else []
    if row["model"].startswith("gemma"):
        notes.append(LITGPT_HEAD)
    if row["model"] == "phi-2":
        notes.append(LITGPT_PHI)
    if row["setting"].startswith("gemma2"):
        name = "google/gemma-2-2b-it"
    config = configuration(name) if name else PHI_2
    return (
        f"litgpt: {row['setting'].split(';')[0]}",
        (name or "microsoft/phi-2", config),
        "peak",
        made,
        " ".join(notes),
        bool(notes),
    )


QWEN_NOTE = (
    "The README doesn't say how memory was read; GB are taken as 10⁹ bytes. The model's own code copies the logits "
    "once more before the loss (2 bytes a logit), which isn't modelled."
)
QWEN_NEAR = {
    "Q-LoRA": "4-bit by GPTQ in fp16 under DeepSpeed, log-softmax in 16 bits; NF4 under autocast stands in for it.",
}
QWEN_SIZES: dict[str, dict[str, Any]] = {
    "Qwen/Qwen-1_8B": {},
    "Qwen/Qwen-7B": {
        "hidden_size": 4096, "intermediate_size": 22016, "num_attention_heads": 32, "num_hidden_layers": 32,
    },
    "Qwen/Qwen-14B": {
        "hidden_size": 5120, "intermediate_size": 27392, "num_attention_heads": 40, "num_hidden_layers": 40,
        "vocab_size": 152064,
    },
    "Qwen/Qwen-72B": {
        "hidden_size": 8192, "intermediate_size": 49152, "num_attention_heads": 64, "num_hidden_layers": 80,
        "vocab_size": 152064,
    },
}  # fmt: skip


def qwen(row: dict[str, str]) -> Made | None:
    """The first Qwen's README: one A100, one sequence, checkpointing, LoRA of rank 64 on every linear module.

    Its GB are taken as 10⁹ bytes; it doesn't say.
    """
    if row["method"] not in {"LoRA", "Q-LoRA"} or row["n_gpus"] != "1":
        return None
    config = configuration("Qwen/Qwen-1_8B") | QWEN_SIZES[row["model"]]
    made = {
        "method": "lora" if row["method"] == "LoRA" else "qlora", "lora_rank": 64, "lora_dropout": 0.05,
        "lora_targets": ("c_attn", "c_proj", "w1", "w2"), "checkpointing": "full",
        "attention": "flash_attention_2", "optimizer": "adamw_foreach", "sequence": int(row["seq_len"]),
        "accumulating": True, "gradient_clip": True,
    }  # fmt: skip
    near = QWEN_NEAR.get(row["method"], "")
    return (
        f"Qwen: {row['model'].split('-')[1]} {row['method']}, {row['seq_len']} tokens",
        (row["model"], config),
        "process",
        made,
        near or QWEN_NOTE,
        bool(near),
    )


SWIFT_NOTE = "Rounded by hand by the authors, and read off nvidia-smi; its reserve isn't told."


def swift(row: dict[str, str]) -> Made | None:
    """ms-swift's packed scripts on one GPU with transformers, text models. Figures are rounded by hand."""
    wanted = row["model"].startswith("Qwen/Qwen2.5") and not re.search("VL|Omni", row["model"])
    if row["n_gpus"] != "1" or not wanted or "packing=true" not in row["setting"]:
        return None  # without packing the lengths of the data decide, and aren't told
    made: dict[str, Any] = {
        "method": row["method"], "batch": int(row["batch_per_gpu"]), "sequence": int(row["seq_len"]), "lora_rank": 8,
        "checkpointing": "full", "accumulating": True, "gradient_clip": True,
    }  # fmt: skip
    if "liger" in row["setting"]:
        made["loss"] = "fused"
    if "flash_attn" in row["setting"]:
        made["attention"] = "flash_attention_2"
    name = row["model"]
    run = f"ms-swift: {name.split('/')[1]} {row['method']}, {row['seq_len']} tokens"
    return run, (name, configuration(name)), "process", made, SWIFT_NOTE, False


TITAN_SOURCE = "github:pytorch/torchtitan benchmarks/llama3_h100_202412_torchtitan.md"


def _llama31(name: str, **changes: Any) -> tuple[str, dict[str, Any]]:
    return f"meta-llama/Llama-3.1-{name}", configuration("meta-llama/Meta-Llama-3.1-8B") | changes


L8 = _llama31("8B")
L70 = _llama31(
    "70B", hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64,
    num_key_value_heads=8,
)  # fmt: skip
L405 = ("meta-llama/Llama-3.1-405B", configuration("meta-llama/Meta-Llama-3.1-405B"))
_SAC = {"batch": 2, "sequence": 8192, "checkpointing": "selective"}
_PIPE = {
    "data_parallel": 8, "tensor_parallel": 8, "loss_parallel": True, "sequence_parallel": True,
    "pipeline_parallel": 8, "batch": 1, "checkpointing": "full",
}  # fmt: skip
EVERY_SECOND = "torchtitan's selective checkpointing makes every second matrix product again; here all are kept."
COMPILED = "torch.compile and float8 fuse and recompute what the estimate counts tensor by tensor."
PIPED = (
    "Compiled, float8, asynchronous tensor parallelism; micro-batches as torchtitan chooses by default (as many as "
    "stages). Weights and fp32 gradients of a stage stay whole until the last micro-batch."
)
INTERLEAVED = PIPED + " Interleaved stages hold each half of their weights in turn, which isn't modelled."
VOCABULARY = "Compiled, float8; what compiled regions and asynchronous tensor parallelism hold isn't modelled."
#: FSDP shards over data and context ranks together, so that data_parallel is their product.
#: Run, model, GiB reserved on the fullest GPU (H100 of 96 GB), what differs from fp32 shards computed in bf16, why off.
TITAN: list[tuple[str, tuple[str, dict[str, Any]], float, dict[str, Any], str]] = [
    ("8B, FSDP 8, eager", L8, 82.4, _SAC | {"data_parallel": 8}, EVERY_SECOND),
    ("8B, FSDP 8, compiled", L8, 77.0, _SAC | {"data_parallel": 8}, COMPILED),
    ("8B, FSDP 8, compiled, float8", L8, 76.8, _SAC | {"data_parallel": 8}, COMPILED),
    ("8B, FSDP 128, eager", L8, 67.0, _SAC | {"data_parallel": 128}, EVERY_SECOND),
    ("8B, FSDP 128, compiled", L8, 62.0, _SAC | {"data_parallel": 128}, COMPILED),
    ("8B, FSDP 128, compiled, float8", L8, 61.8, _SAC | {"data_parallel": 128}, COMPILED),
    (
        "8B, FSDP 8, CP 1, 32,768 tokens", L8, 83.9,
        {"data_parallel": 8, "batch": 1, "sequence": 32768, "checkpointing": "full"}, COMPILED,
    ),
    (
        "8B, FSDP 4, CP 2, 65,536 tokens", L8, 84.2,
        {"data_parallel": 8, "context_parallel": 2, "batch": 1, "sequence": 65536, "checkpointing": "full"}, COMPILED,
    ),
    (
        "70B, FSDP 32, TP 8", L70, 71.9,
        {
            "data_parallel": 32, "tensor_parallel": 8, "loss_parallel": True, "sequence_parallel": True, "batch": 16,
            "sequence": 8192,
            "checkpointing": "full",
        },
        VOCABULARY,
    ),
    (
        "70B, FSDP 32, TP 8, AsyncTP", L70, 67.6,
        {
            "data_parallel": 32, "tensor_parallel": 8, "loss_parallel": True, "sequence_parallel": True, "batch": 16,
            "sequence": 8192,
            "checkpointing": "full",
        },
        VOCABULARY,
    ),
    ("405B, FSDP 8, TP 8, PP 8, 1F1B", L405, 82.5, _PIPE | {"batch": 4, "micro_batches": 8, "sequence": 8192}, PIPED),
    (
        "405B, FSDP 8, TP 8, PP 8, interleaved", L405, 72.7,
        _PIPE | {"batch": 4, "micro_batches": 8, "sequence": 8192, "schedule": "interleaved"}, INTERLEAVED,
    ),
    ("405B, CP 1, 32,768 tokens", L405, 75.3, _PIPE | {"micro_batches": 8, "sequence": 32768}, PIPED),
    (
        "405B, CP 2, 65,536 tokens", L405, 75.9,
        _PIPE | {"context_parallel": 2, "micro_batches": 8, "sequence": 65536}, PIPED,
    ),
    (
        "405B, CP 4, 131,072 tokens", L405, 77.1,
        _PIPE | {"context_parallel": 4, "micro_batches": 8, "sequence": 131072}, PIPED,
    ),
    (
        "405B, CP 8, 262,144 tokens", L405, 84.9,
        _PIPE | {"context_parallel": 8, "micro_batches": 8, "sequence": 262144}, PIPED,
    ),
]  # fmt: skip

READERS = {
    "huggingface/peft": peft, "pytorch/torchtune": torchtune, "litgpt": litgpt, "QwenLM/Qwen README": qwen,
    "ms-swift": swift,
}  # fmt: skip

STEPS = {"simulated": simulated, "published": published}


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in STEPS:
        print(__doc__, file=sys.stderr)
        return 2
    write(f"torch_{sys.argv[1]}.jsonl", list(STEPS[sys.argv[1]]()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
