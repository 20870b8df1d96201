"""Fit the training speed model on published steps, judged on systems that the fit has not seen.

python scripts/fit_training_speed.py TRUTH [--write]
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy.optimize import least_squares

from sizeup.estimate.speed.training import TrainingCeilings, TrainingRates, TrainingStep, token_seconds
from sizeup.machines.words import device_named
from sizeup.models.active import active_parameters
from sizeup.models.load import load_model
from sizeup.models.mixers import Attention, LatentAttention

OUT = Path(__file__).parents[1] / "src/sizeup/estimate/speed/training.json"
#: llm-foundry's MPT models: layers, hidden size.
MPT = {"125m": (12, 768), "350m": (24, 1024), "760m": (24, 1536), "1b": (24, 2048), "3b": (32, 2560), "7b": (32, 4096),
       "13b": (40, 5120), "30b": (48, 7168), "70b": (64, 8192)}  # fmt: skip
MODELS = {"GPT OSS 120B": "openai/gpt-oss-120b", "LLAMA3_70B": "meta-llama/Meta-Llama-3-70B-Instruct", "LLAMA3_8B": "meta-llama/Meta-Llama-3-8B-Instruct",  # noqa: E501
          "DeepSeekV3": "deepseek-ai/DeepSeek-V3", "Qwen3_235B_a22B": "Qwen/Qwen3-235B-A22B", "Qwen3_30B_a3B": "Qwen/Qwen3-30B-A3B",  # noqa: E501
          "LLAMA3.1_405B": "meta-llama/Llama-3.1-405B-Instruct", "Nemotron_3_Nano": "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",  # noqa: E501
          "Nemotron_3_Super": "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16"}  # fmt: skip
SYSTEMS = {"a100_40gb": "A100 40GB", "a100_80gb": "A100 80GB", "h100_80gb": "H100 SXM"}
PRIORS = {"bf16": (0.65, 0.2), "fp8": (0.5, 0.25), "fp4": (0.35, 0.3), "attention": (0.35, 0.4), "layer_bytes": (100, 0.5),  # noqa: E501
          "logit_bytes": (14, 0.5), "experts": (2.0, 0.5), "links": (0.3, 0.7)}  # fmt: skip


def number(text: str, default: float) -> float:
    found = re.match(r"[\d.]+", text.strip().replace(",", ""))
    return float(found[0]) if found else default


def shape(row: dict[str, str]) -> tuple[float, ...]:
    """matrix, routed and all parameters, layers, attention width, hidden, vocabulary."""
    if row["model"].startswith("MPT-"):
        layers, hidden = MPT[row["model"][4:]]
        count = float(row["num_params"]) - int(row["seq_len"]) * hidden
        return count, 0, count, layers, hidden, hidden, 50368
    model = load_model(MODELS[re.sub(r"\s*\(.*", "", row["model"])])
    counted = active_parameters(model)
    routed = sum(
        t.active_parameters * b.count
        for b in model.blocks
        if b.stack == "text"
        for t in b.tensors
        if t.role == "routed_expert"
    )
    every = [
        (m, b.count)
        for b in model.blocks
        if b.stack == "text"
        for m in b.mixers
        if isinstance(m, Attention | LatentAttention)
    ]
    layers = sum(count for _, count in every)
    width = sum(m.heads * (m.head_dim + m.value_dim) / 2 * count for m, count in every) / max(1, layers)
    return (
        counted.multiplied,
        routed,
        model.parameters,
        model.layers,
        width * layers / model.layers,
        model.hidden,
        model.vocabulary,
    )


def read(truth: Path) -> tuple[list[dict[str, Any]], list[str]]:
    rows, dropped = [], []
    for row in csv.DictReader((truth / "train_speed.csv").open(newline="")):
        name = re.sub(r"\s*\(.*", "", row["model"])
        precision = row["precision"].split()[0] if row["precision"] else ""
        if row["task"] in {"SFT Performance", "LoRA Performance"}:
            dropped.append("fine-tuning: frozen weights need no gradients")
        elif name not in MODELS and not name.startswith("MPT"):
            dropped.append(f"{name}: shape unknown")
        elif not precision or "(" in row["tokens_s_gpu"]:
            dropped.append("two precisions in one cell")
        else:
            rows.append(
                row
                | {
                    "kind": {"NVFP4": "fp4"}.get(precision, "fp8" if "8" in precision else "bf16")
                    if "16" not in precision
                    else "bf16"
                }
            )
    return rows, dropped


def build(rows: list[dict[str, Any]]) -> tuple[TrainingStep, TrainingCeilings, Any, Any]:
    shapes = np.array([shape(row) for row in rows]).T
    devices = [
        device_named(
            SYSTEMS.get(row["system"], {"DGX-H100": "H100 SXM"}.get(row["system"], row["system"].removeprefix("DGX-")))
        )
        for row in rows
    ]
    micro = np.array([number(r["micro_batch"], 1) * int(r["seq_len"]) for r in rows])
    pp, vp = np.array([number(r["pp"], 1) for r in rows]), np.array([number(r["vp"], 1) for r in rows])
    replicas = np.array(
        [number(r["n_gpus"], 1) / number(r["tp"], 1) / number(r["pp"], 1) / number(r["cp"], 1) for r in rows]
    )
    batches = np.maximum(
        1, np.array([number(r["global_batch"], 1) / number(r["micro_batch"], 1) for r in rows]) / replicas
    )
    step = TrainingStep(
        shapes[0], shapes[1], shapes[2], shapes[4], shapes[3], shapes[5], shapes[6], np.array([float(r["seq_len"]) for r in rows]),  # noqa: E501
        np.array([1.0 if r["act_ckpt"] == "True" else 0.0 for r in rows]), micro,
        np.array([1.0 if r["fsdp"] == "FULL_SHARD" and number(r["n_gpus"], 1) > 1 else 0.0 for r in rows]), 1 + (pp - 1) / batches / vp,  # noqa: E501
    )  # fmt: skip
    kinds = [row["kind"] for row in rows]
    matrix = np.array([d.compute.get(k) or d.compute["bf16"] for d, k in zip(devices, kinds, strict=True)], float)
    link = np.array([(d.peer_link.bytes_per_s if d.peer_link else 25e9) for d in devices], float)
    top = TrainingCeilings(
        matrix,
        np.array([d.compute["bf16"] for d in devices], float),
        np.array([d.bandwidth for d in devices], float),
        link,
    )
    return step, top, kinds, np.array([number(r["tokens_s_gpu"], np.nan) for r in rows])


def main() -> None:
    rows, dropped = read(Path(sys.argv[1]))
    print(len(rows), "rows; dropped:", {reason: dropped.count(reason) for reason in set(dropped)})
    step, top, kinds, speed = build(rows)
    names = list(PRIORS)
    start = np.log([PRIORS[n][0] for n in names])
    width = np.array([PRIORS[n][1] for n in names])

    def rates(x: Any) -> TrainingRates:
        return TrainingRates(**dict(zip(names, np.exp(x), strict=True)))

    def residuals(x: Any) -> Any:
        found = rates(x)
        share = np.array([getattr(found, kind) for kind in kinds])
        return -np.log(token_seconds(step, top, share, found) * speed)

    def fit(keep: Any) -> Any:
        return least_squares(
            lambda x: np.concatenate([residuals(x)[keep] / 0.1, (x - start) / width]), start, loss="soft_l1"
        ).x

    full = fit(np.ones(len(rows), bool))
    system = np.array([{"DGX-H100": "h100_80gb"}.get(r["system"], r["system"]) for r in rows])
    out = np.full(len(rows), np.nan)
    for name in sorted(set(system)):
        out[system == name] = residuals(fit(system != name))[system == name]
    for label, found in (("fitted", residuals(full)), ("held back by system", out)):
        error = np.abs(np.exp(found) - 1)
        print(f"{label:20} median {np.median(error):.1%}  p90 {np.quantile(error, 0.9):.1%}")
    for name in sorted(set(system)):
        error = np.abs(np.exp(out[system == name]) - 1)
        print(
            f"  {name:10} n={len(error):3d} median {np.median(error):.1%} bias {np.exp(np.median(out[system == name])) - 1:+.1%}"  # noqa: E501
        )
    for name in sorted({r["model"].split(" (")[0] for r in rows}):
        mine = out[[r["model"].split(" (")[0] == name for r in rows]]
        print(
            f"  {name:18} n={len(mine):3d} median {np.median(np.abs(np.exp(mine) - 1)):.1%} bias {np.exp(np.median(mine)) - 1:+.1%}"  # noqa: E501
        )
    low, high = np.quantile(out, [0.05, 0.95])
    values = {n: float(f"{v:.4g}") for n, v in zip(names, np.exp(full), strict=True)}
    print(values)
    if "--write" in sys.argv:
        OUT.write_bytes(
            msgspec.json.format(
                msgspec.json.encode(TrainingRates(**values, low=round(float(low), 3), high=round(float(high), 3)))
            )
            + b"\n"
        )


if __name__ == "__main__":
    main()
