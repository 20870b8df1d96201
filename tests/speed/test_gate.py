"""Regression gate: the shipped parameters against published rows. Held-back figures come from scripts/fit_speed.py."""

import importlib.util
import statistics
import sys
import time
from pathlib import Path

import pytest

from sizeup.advice.speeds import speed_of
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.estimate.speed import Stage, decode_speed, prompt_seconds, step_seconds
from sizeup.estimate.speed.ceilings import ceilings
from sizeup.machines.budget import machine_budget
from sizeup.machines.words import parse_machine
from sizeup.models.load import load_model

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def rows_module():
    spec = importlib.util.spec_from_file_location("speed_rows", SCRIPTS / "speed_rows.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["speed_rows"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(rows_module, truth_dir):
    found = rows_module.speed_rows(truth_dir)
    return [row for row in found if not row.dropped and row.decode and row.engine not in {"vllm", "sglang"}]


def stage(row, work):
    stack = "mlx" if row.engine == "mlx" else row.backend
    if row.engine == "llamafile" and row.backend == "rocm":
        stack = "llamafile-rocm"
    return [Stage(row.hardware, ceilings(row.device.device(row.device.memory_bytes or 1 << 34), stack), work)]


def test_decode_errors_stay_within_the_bars(rows):
    """Median, 90th percentile and share within 20 % of the rows that were fitted (held back: docs/speed.md)."""
    errors = sorted(abs(1 / step_seconds(stage(r, r.work), r.engine) / r.decode - 1) for r in rows)

    assert len(errors) > 500
    assert statistics.median(errors) <= 0.11
    assert errors[int(len(errors) * 0.9)] <= 0.36
    assert sum(error <= 0.2 for error in errors) / len(errors) >= 0.72


def test_intervals_cover_nine_rows_of_ten(rows):
    inside = 0
    for row in rows:
        interval = decode_speed(stage(row, row.work), row.engine)
        inside += interval.low <= row.decode <= interval.high

    assert 0.85 <= inside / len(rows) <= 0.97


def test_llama_bench_stays_within_the_bars(rows_module, truth_dir):
    decode, prompt = [], []
    for row in rows_module.bench_rows(truth_dir):
        decode.append(abs(1 / step_seconds(stage(row, row.work)) / row.decode - 1))
        prompt.append(
            abs(
                row.prompt_tokens / prompt_seconds(stage(row, row.prompt), row.passes, flash=row.flash) / row.prefill
                - 1
            )
        )

    assert statistics.median(decode) <= 0.12
    assert statistics.median(prompt) <= 0.20


def test_every_dropped_row_has_a_reason(rows_module, truth_dir):
    every = rows_module.speed_rows(truth_dir)
    dropped = [row for row in every if row.dropped]

    assert len(dropped) < 0.25 * len(every)
    assert all(len(row.dropped) > 10 for row in dropped)


def test_one_prediction_is_quick():
    """Decode, prompt and request of a placed setting together, in processor time."""
    model, machine = load_model("Qwen/Qwen3-30B-A3B"), parse_machine("RTX 4090, 64 GB RAM")
    setting, budget = LlamaSetting(format="Q4_K_M", context=8192, gpu_layers=-1), machine_budget(machine)
    speed_of(model, setting, machine, budget)
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        for _ in range(50):
            speed_of(model, setting, machine, budget)
        best = min(best, (time.process_time() - started) / 50)

    assert best <= 400e-6
