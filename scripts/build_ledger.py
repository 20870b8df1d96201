"""Make the rows that ship with the package, and what is derived from them.

    scripts/build_ledger.py simulate      data/llamacpp_simulated.jsonl: a sample of the grid
    scripts/build_ledger.py measure       data/llamacpp_measured.jsonl: real loads of random weights (20 minutes)
    scripts/build_ledger.py published     data/published.jsonl: llama.cpp rows of the truth folder, as facts
    scripts/build_ledger.py derive        residuals, the accuracy gate, docs/accuracy.md and .svg, the README's table

Training rows come from scripts/training_rows.py, held-back speed from scripts/fit_speed.py.

Needs the truth folder (SIZEUP_TRUTH, or ../shared/truth beside the repository); the first two also need
llama-cpp-python (SIZEUP_LLAMACPP_PYTHON).
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import os
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.errors import SizeupError
from sizeup.measure.accuracy import judge
from sizeup.measure.coverage import coverage
from sizeup.measure.gate import gated, limits_of
from sizeup.measure.import_published import read_published
from sizeup.measure.ledger import shipped
from sizeup.measure.llamacpp_rows import measured_row, model_record, simulated_row
from sizeup.measure.page import page
from sizeup.measure.picture import picture
from sizeup.measure.readme import between_markers, overview
from sizeup.measure.residuals import residuals_of
from sizeup.measure.rows import ModelRecord, Row, decode_lines, encode_line, shape_key
from sizeup.measure.simulation import measure, simulate
from sizeup.measure.speed_accuracy import speed_comparisons
from sizeup.measure.training_accuracy import published_steps, range_coverage
from sizeup.models.from_config import model_from_config
from sizeup.models.model import Model

ROOT = Path(__file__).parent.parent
DATA = ROOT / "src" / "sizeup" / "measure" / "data"
TRUTH = Path(os.environ.get("SIZEUP_TRUTH", ROOT.parent / "shared" / "truth"))

#: One model or more of each kind: dense, tied, mixture, latent, sliding window, hybrid, recurrent, encoder.
GRID_MODELS = [
    "HuggingFaceTB/SmolLM2-135M",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Meta-Llama-3.1-8B",
    "meta-llama/Llama-3.3-70B-Instruct",
    "mistralai/Mistral-7B-v0.1",
    "mistralai/Mixtral-8x7B-v0.1",
    "Qwen/Qwen2.5-0.5B",
    "Qwen/Qwen2.5-7B",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-8B-Base",
    "Qwen/Qwen3-30B-A3B-Base",
    "Qwen/Qwen1.5-MoE-A2.7B",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "Qwen/Qwen3.5-4B",
    "Qwen/Qwen3.5-35B-A3B",
    "google/gemma-2b",
    "google/gemma-2-9b",
    "google/gemma-3-1b-it",
    "google/gemma-3-27b-it",
    "google/gemma-4-31B",
    "deepseek-ai/DeepSeek-V2",
    "deepseek-ai/DeepSeek-V3",
    "deepseek-ai/deepseek-moe-16b-base",
    "moonshotai/Kimi-K2-Instruct",
    "openai/gpt-oss-120b",
    "microsoft/phi-1_5",
    "microsoft/Phi-3-mini-4k-instruct",
    "EleutherAI/pythia-1b",
    "EleutherAI/pythia-2.8b",
    "bigscience/bloom-1b1",
    "bigcode/starcoderbase-1b",
    "openai-community/gpt2",
    "tiiuae/falcon-7b-instruct",
    "allenai/OLMo-1B-hf",
    "allenai/OLMo-2-1124-7B",
    "CohereLabs/c4ai-command-r-v01",
    "ibm-granite/granite-3.0-2b-base",
    "ibm-granite/granite-3.0-1b-a400m-base",
    "internlm/internlm2-7b",
    "openbmb/MiniCPM-2B-sft-bf16",
    "zai-org/GLM-4-32B-0414",
    "zai-org/GLM-4.5V",
    "state-spaces/mamba-130m-hf",
    "state-spaces/mamba-2.8b-hf",
    "tiiuae/Falcon-H1-0.5B-Instruct",
    "tiiuae/Falcon-H1-34B-Base",
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1",
    "XiaomiMiMo/MiMo-V2-Flash",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "tencent/Hunyuan-1.8B-Instruct",
    "swiss-ai/Apertus-8B-2509",
    "google-bert/bert-base-uncased",
    "BAAI/bge-large-en-v1.5",
    "google/flan-t5-base",
    "baichuan-inc/Baichuan2-7B-Base",
]
CONTEXTS, CACHES, FLASH, UBATCHES, PARALLEL = (
    (2048, 8192, 32768, 131072),
    ("f16", "q8_0", "q4_0"),
    ("on", "off"),
    (128, 512, 2048),
    (1, 4),
)
FORMATS = ("Q4_K_M", "Q8_0", "F16", "Q4_0", "IQ4_XS", "Q6_K", "Q2_K")
SAMPLE_CELLS = 8

#: (model, format, context, tokens to read, mmap)
LOADS = (
    ("HuggingFaceTB/SmolLM2-135M", "Q4_K_M", 2048, 1024, True),
    ("HuggingFaceTB/SmolLM2-135M", "Q8_0", 2048, 1024, True),
    ("HuggingFaceTB/SmolLM2-135M", "F16", 2048, 1024, False),
    ("Qwen/Qwen2.5-0.5B", "Q4_K_M", 2048, 1024, True),
    ("Qwen/Qwen2.5-0.5B", "Q8_0", 2048, 1024, False),
    ("Qwen/Qwen2.5-0.5B", "F16", 2048, 1024, True),
    ("Qwen/Qwen3-0.6B", "Q4_0", 4096, 1024, True),
    ("google/gemma-3-1b-it", "Q4_K_M", 4096, 1024, True),
    ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "Q4_K_M", 2048, 1024, False),
    ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "Q8_0", 2048, 1024, True),
    ("EleutherAI/pythia-1b", "Q8_0", 2048, 1024, True),
    ("google/gemma-2-2b-it", "Q4_K_M", 4096, 768, True),
    ("meta-llama/Llama-3.2-3B-Instruct", "Q4_K_M", 4096, 768, True),
    ("meta-llama/Llama-3.2-3B-Instruct", "Q8_0", 2048, 768, False),
    ("ibm-granite/granite-3.0-1b-a400m-base", "Q4_K_M", 2048, 1024, True),
    ("state-spaces/mamba-370m-hf", "Q8_0", 2048, 1024, True),
    ("tiiuae/Falcon-H1-0.5B-Instruct", "Q4_K_M", 2048, 1024, True),
    ("Qwen/Qwen2.5-7B", "Q4_K_M", 2048, 512, True),
    ("huggyllama/llama-7b", "Q8_0", 1024, 512, True),
    ("huggyllama/llama-7b", "Q4_0", 2048, 512, False),
)
THREADS = 2


def configuration(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TRUTH / "configs" / f"{name.replace('/', '--')}.json").read_text())
    return found


def load(name: str) -> tuple[Model, ModelRecord]:
    config = configuration(name)
    model = model_from_config(config, name)
    return model, model_record(model, config)


def cells(formats: Iterable[str]) -> list[LlamaSetting]:
    """Every combination that llama.cpp accepts: a quantized V cache needs flash attention."""
    return [
        LlamaSetting(
            format=kind,
            context=context,
            cache_k=cache,
            cache_v=cache if flash == "on" else "f16",
            flash_attention=flash,
            ubatch=ubatch,
            parallel=parallel,
            unified=parallel == 1,
        )
        for kind, context, cache, flash, ubatch, parallel in itertools.product(
            formats, CONTEXTS, CACHES, FLASH, UBATCHES, PARALLEL
        )
    ]


def write(name: str, entries: Iterable[Row | ModelRecord]) -> None:
    """Write a data file, models first, each once."""
    models = {entry.key: entry for entry in entries if isinstance(entry, ModelRecord)}
    rows = [entry for entry in entries if isinstance(entry, Row)]
    DATA.mkdir(exist_ok=True)
    lines = [*(models[key] for key in sorted(models)), *sorted(rows, key=lambda row: (row.model, row.key))]
    (DATA / name).write_bytes(b"".join(map(encode_line, lines)))
    print(f"{name}: {len(rows)} rows, {len(models)} models")


def today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


def build_simulated() -> None:
    """A few cells of the grid for each model, the same ones on every run."""
    entries: list[Row | ModelRecord] = []
    for name in GRID_MODELS:
        try:
            model, record = load(name)
            chosen = random.Random(name).sample(cells(FORMATS), SAMPLE_CELLS)
            found = simulate(model, chosen)
        except SizeupError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        entries.append(record)
        for cell in found:
            if cell.refused:
                print(f"{name}: {cell.refused}", file=sys.stderr)
            else:
                entries.append(simulated_row(model, cell, date=today()))
    write("llamacpp_simulated.jsonl", entries)


def build_measured() -> None:
    """Real loads, and the simulation of each beside it; those in the file already are kept."""
    kept = DATA / "llamacpp_measured.jsonl"
    entries = list(decode_lines(kept.read_bytes(), kept.name)) if kept.exists() else []
    done = {(entry.model, entry.format) for entry in entries if isinstance(entry, Row)}
    for name, kind, context, prefill, mmap in LOADS:
        if (name, kind) in done:
            continue
        try:
            model, record = load(name)
            setting = LlamaSetting(format=kind, context=context, mmap=mmap)
            run, size = measure(model, setting, prefill=prefill, decode=8, threads=THREADS)
            cell = simulate(model, [setting], threads=THREADS)[0]
        except SizeupError as error:
            print(f"{name} {kind}: {error}", file=sys.stderr)
            continue
        row = measured_row(model, run, cell, size, date=today())
        entries += [record, row]
        grown, expected = row.components["grown"], row.components["simulated.grown"]
        print(f"{name} {kind}: {grown:,} measured, {100 * (expected / grown - 1):+.2f} % simulated", flush=True)
        write("llamacpp_measured.jsonl", entries)


#: Published run → the configuration of its model, what its setting leaves out, and why it differs where it does.
PUBLISHED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "Qwen3-30B-A3B": (
        "Qwen/Qwen3-30B-A3B-Base",
        {},
        {"format": "", "outputs": 0},
        (
            "ik_llama.cpp, a fork; weights in a recipe of its own (only their sum is known). Older versions, and "
            "the fork, take the mask in single precision and halve it on the first GPU: four copies in flight of "
            "32,768 × 512 × 4 B = 64 MiB and the half of 32 MiB, where today's first GPU holds four halves: +160 "
            "MiB. The fork's fused experts need 16 MiB less. The second GPU gets halves then as now; the fork "
            "keeps one result of 512 × 2,048 × 4 B less."
        ),
    ),
    "EleutherAI/pythia-2.8b": (
        "EleutherAI/pythia-2.8b",
        {},
        {"format": "F16", "outputs": 0},
        (
            "Before July 2025 llama.cpp wrote values into the cache by copying; today's takes an index of 8 B for "
            "each of 512 × 2,560 values: 10 MiB. It also reserves a batch of embeddings: 512 × 2,560 × 4 B = 5 "
            "MiB. Without both the host's buffer is the published one: embeddings looked up, 5 MiB, and the mask, "
            "2,048 × 512 × 4 B = 4 MiB. On the GPU the older version, without its copy of the indices, kept four "
            "results of 5 MiB longer."
        ),
    ),
    "BAAI/bge-small-en-v1.5": (
        "BAAI/bge-large-en-v1.5",
        {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536},
        {"format": "F16", "outputs": 0},
        (
            "This older llama.cpp kept a cache for encoders: 12 layers × 512 cells × 2 × 384 × 2 B = 9 MiB; "
            "today's keeps none. Its compute buffer holds one result of 512 × 384 × 4 B = 0.75 MiB more than that "
            "one did."
        ),
    ),
    "CohereLabs/c4ai-command-r-v01 (IQ4-class)": (
        "CohereLabs/c4ai-command-r-v01",
        {},
        {"format": "", "outputs": 0, "flash_attention": "off"},
        (
            "The mix isn't named, so weights can't be compared. Before July 2025 llama.cpp wrote values into the "
            "cache by copying; today's takes an index of 8 B for each of 512 × 8,192 values, in four copies for "
            "pipelining: 128 MiB. Without them the estimate is the published buffer."
        ),
    ),
}


def build_published() -> None:
    """What others measured with llama.cpp, as facts with their source."""
    with (TRUTH / "memory_published.csv").open(newline="") as lines:
        rows = read_published(lines, frozenset({"llama.cpp"}))
    entries: list[Row | ModelRecord] = []
    for row in rows:
        name, changes, told, note = PUBLISHED[row.model]
        config = configuration(name) | changes
        model = model_from_config(config, row.model)
        gpus = ("cuda",) * (2 if row.machine_class == "several gpus" else 1)
        entries += [
            model_record(model, config),
            msgspec.structs.replace(
                row, shape=shape_key(model), family=model.family, gpus=gpus, setting=row.setting | told, note=note
            ),
        ]
    write("published.jsonl", entries)


def derive() -> None:
    """Everything that follows from the shipped rows and today's estimates."""
    rows, models = shipped()
    judged = judge(rows, models)
    speed = speed_comparisons()
    save(DATA / "residuals.json", residuals_of(judged.comparisons))
    save(DATA / "accuracy_gate.json", limits_of(gated(judged)))
    (ROOT / "docs" / "accuracy.svg").write_text(picture((*judged.comparisons, *speed)))
    steps = published_steps(rows, models)
    (ROOT / "docs" / "accuracy.md").write_text(page(judged.comparisons, speed, range_coverage(rows, models), steps))
    readme = ROOT / "README.md"
    readme.write_text(between_markers(readme.read_text(), overview(judged.comparisons, speed)))
    for skipped in judged.skipped:
        print(f"skipped {skipped.model}: {skipped.reason}", file=sys.stderr)
    for held in coverage(judged.comparisons):
        print(f"{held.component}: {held.inside} of {held.rows} held-back rows inside 90 %")
    print(overview(judged.comparisons, speed))


def save(path: Path, entries: Iterable[msgspec.Struct]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(tuple(entries)), indent=1) + b"\n")


STEPS = {"simulate": build_simulated, "measure": build_measured, "published": build_published, "derive": derive}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    STEPS[parser.parse_args().step]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
