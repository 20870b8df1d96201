"""Simulate one rank of many, and write what the estimate is held to in CI: worlds, pipelines, DeepSpeed.

    python scripts/sharded_grid.py tests/data/training_grid [worlds] [pipelines] [zero]

worlds      FSDP2, DDP, HSDP, tensor, sequence and expert parallel, and products: `workers/training_world.py`
pipelines   every rank of torch's schedules: `workers/training_pipeline.py`
zero        DeepSpeed's engine, which its environment must have: `workers/training_deepspeed.py`

Every case runs in a process of its own: what the libraries keep of a world outlives it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")]

from training_grid import AUTOCAST, DEFAULT, SHARDED, config_of  # noqa: E402

SPLIT = {"sharding": "none", "data_parallel": 1}
SEQUENCE = {"sequence_parallel": True}
LOSS = {"loss_parallel": True}
BOTH = {"data_parallel": 4, "tensor_parallel": 2}
#: One rank of eight under FSDP2, or as the case says: architecture, and what the case sets.
WORLDS: list[tuple[str, dict]] = [
    *SHARDED,
    ("llama", {"replicas": 2}), ("mixtral", {"replicas": 4, "precision": AUTOCAST}), ("gemma2", {}),
    ("gemma", {"precision": "fp32"}), ("qwen2", {"checkpointing": "full"}),
    ("llama", BOTH), ("llama", BOTH | SEQUENCE), ("qwen3", BOTH | SEQUENCE | {"precision": "fp32"}),
    *[(name, SPLIT | {"tensor_parallel": 2}) for name in (
        "gemma2", "gemma", "gemma3_text", "phi3", "mixtral", "qwen3_moe", "qwen2_moe", "deepseek_v3", "gpt_oss",
        "olmoe", "gpt_neox", "starcoder2", "olmo2", "qwen2", "phi", "glm4", "cohere", "granite", "nemotron", "mistral",
    )],
    ("llama", SPLIT | SEQUENCE | {"tensor_parallel": 4}),
    ("llama", SPLIT | SEQUENCE | LOSS | {"tensor_parallel": 4}),
    ("llama", SPLIT | LOSS | {"tensor_parallel": 4}),
    ("qwen3", SPLIT | SEQUENCE | LOSS | {"tensor_parallel": 2}),
    ("llama", SPLIT | SEQUENCE | LOSS | {"tensor_parallel": 4, "checkpointing": "full"}),
    *[(name, SPLIT | {"expert_parallel": 4}) for name in ("mixtral", "qwen3_moe", "olmoe")],
]  # fmt: skip

PIPE = {"pipeline_parallel": 2, "micro_batches": 4}
PIPELINES: list[tuple[str, dict]] = [
    *[
        (name, PIPE | {"schedule": schedule})
        for name in ("llama", "qwen3", "mixtral")
        for schedule in ("gpipe", "1f1b", "interleaved")
    ],
    *[("llama", {"pipeline_parallel": 4, "micro_batches": 8, "schedule": schedule}) for schedule in ("gpipe", "1f1b")],
    ("llama", PIPE | {"schedule": "1f1b", "precision": "fp32"}),
    ("llama", PIPE | {"schedule": "1f1b", "checkpointing": "full"}),
]

SMALL = {"reduce_bucket": 2_000_000}
LIMITS = SMALL | {
    "prefetch_bucket": 1_000_000, "live_parameters": 6_000_000, "reuse_distance": 3_000_000,
    "persistence_threshold": 1000,
}  # fmt: skip
STAGES = ("zero1", "zero2", "zero3")
ZERO: list[tuple[str, dict]] = [
    *[("llama", {"sharding": stage} | size) for stage in STAGES for size in ({}, SMALL, {"precision": "fp32"})],
    *[(name, {"sharding": stage} | LIMITS) for name in ("mixtral", "gemma", "qwen3", "gpt2") for stage in STAGES],
    *[("llama", {"sharding": stage, "offload_optimizer": "cpu"}) for stage in STAGES],
    ("llama", {"sharding": "zero3", "offload_optimizer": "cpu", "offload_weights": "cpu"}),
    ("llama", {"sharding": "zero2", "overlap_comm": True}), ("llama", {"sharding": "zero1", "overlap_comm": True}),
    *[("llama", {"sharding": stage, "checkpointing": "full"} | SMALL) for stage in STAGES],
    *[("llama", {"sharding": stage, "method": "lora"} | SMALL) for stage in STAGES],
    *[("llama", {"sharding": stage, "optimizer": "adamw_foreach"} | SMALL) for stage in STAGES],
]  # fmt: skip
#: A setting's name → DeepSpeed's.
NAMES = {
    "reduce_bucket": "reduce_bucket_size", "overlap_comm": "overlap_comm",
    "prefetch_bucket": "stage3_prefetch_bucket_size", "live_parameters": "stage3_max_live_parameters",
    "reuse_distance": "stage3_max_reuse_distance", "persistence_threshold": "stage3_param_persistence_threshold",
}  # fmt: skip
#: Kind of case → its name in the file.
KEYS = {"worlds": "cases", "pipelines": "pipelines", "zero": "zero"}
OFFLOADS = {"offload_optimizer": "offload_optimizer", "offload_weights": "offload_param"}


def world(name: str, changes: dict) -> int:
    from sizeup.workers.training_simulate import simulated

    setting = DEFAULT | {"sharding": "fsdp", "data_parallel": 8} | changes
    return simulated({"config": config_of(name)}, setting)["peak_bytes"]


def pipeline(name: str, changes: dict, rank: int) -> int:
    from sizeup.workers.training_pipeline import piped
    from sizeup.workers.transformers_meta import configuration

    return piped(lambda: configuration(config_of(name)), DEFAULT | changes, rank)


def zero(name: str, changes: dict, rank: int) -> dict:
    from sizeup.workers.training_deepspeed import partitioned
    from sizeup.workers.transformers_meta import configuration

    wanted = {NAMES[key]: value for key, value in changes.items() if key in NAMES}
    wanted |= {OFFLOADS[key]: {"device": value} for key, value in changes.items() if key in OFFLOADS}
    setting = DEFAULT | {"data_parallel": 8} | changes
    return partitioned(configuration(config_of(name)), setting, wanted, rank)


def apart(function: Callable, *args: object) -> object:
    """The result of a call in a process of its own; None when it fails."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            result = function(*args)
        except BaseException as error:
            print(*args, repr(error)[:300], file=sys.stderr)
            result = None
        with os.fdopen(writer, "w") as pipe:
            json.dump(result, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


def fullest(name: str, changes: dict) -> int:
    """The rank that the estimate takes for the fullest."""
    from training_grid import whole

    from sizeup.estimate.training.estimate import training_footprint
    from sizeup.estimate.training.models import subject_of
    from sizeup.estimate.training.settings import TrainSetting

    known = DEFAULT | {"data_parallel": 8} | changes
    known["lora_targets"] = tuple(known["lora_targets"])
    found = training_footprint(subject_of(whole(config_of(name))).shape, TrainSetting(**known))
    return int(found.devices[0].device.split()[1]) - 1


def main(folder: Path, kinds: list[str]) -> None:
    jobs = {
        "worlds": [(world, name, changes) for name, changes in WORLDS],
        "pipelines": [
            (pipeline, name, changes, rank)
            for name, changes in PIPELINES
            for rank in range(changes["pipeline_parallel"])
        ],
        "zero": [(zero, name, changes, fullest(name, changes)) for name, changes in ZERO] if "zero" in kinds else [],
    }
    path = folder / "sharded.json"
    for kind in kinds:
        rows = []
        for function, *case in jobs[kind]:
            result = apart(function, *case)
            if result is not None:
                rows.append([*case, result])
                write(path, KEYS[kind], rows)


def write(path: Path, key: str, rows: list[list]) -> None:
    """Put a kind's rows beside the others, one to a line."""
    found = json.loads(path.read_text()) | {key: rows}
    lines = [f'"versions": {json.dumps(found.pop("versions"))}']
    for name, every in found.items():
        lines.append(f'"{name}": [\n' + ",\n".join("  " + json.dumps(row) for row in every) + "\n ]")
    path.write_text("{\n " + ",\n ".join(lines) + "\n}\n")


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu", "LOCAL_RANK": "0", "LOCAL_SIZE": "1"}
    warnings.simplefilter("ignore")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    main(Path(sys.argv[1]), sys.argv[2:] or ["worlds", "pipelines"])
