"""Totals of real configurations, held to transformers 5.23 on the meta device and to what checkpoints store."""

import csv
import json
import os
import time
from pathlib import Path

import pytest

from sizeup.models.anatomy.registry import anatomy_of
from sizeup.models.config import Config, read_config
from sizeup.models.from_config import model_from_config

TRUTH = Path(os.environ.get("SIZEUP_TRUTH") or Path(__file__).parents[3] / "shared" / "truth")
ROWS = list(csv.DictReader((TRUTH / "params.csv").open())) if (TRUTH / "params.csv").is_file() else []
needs_truth = pytest.mark.skipif(not ROWS, reason=f"no truth data at {TRUTH}; set SIZEUP_TRUTH to its folder")
#: The published checkpoint also holds a vision tower and its projectors (865,567,232 parameters, as transformers builds
#: them) and the router's correction biases (57 · 128), none of which this configuration names.
BEYOND = {"MiniMaxAI/MiniMax-M3": 865_567_232 + 57 * 128}


def config_of(row):
    return TRUTH / "configs" / f"{row['model_id'].replace('/', '--')}.json"


def stored(model, *, mtp):
    """Parameters and buffers of the model itself, or of its prediction layers."""
    blocks = [block for block in model.blocks if (block.stack == "mtp") is mtp]
    buffers = sum(
        tensor.elements * tensor.copies * block.count
        for block in blocks
        for tensor in block.tensors
        if tensor.role == "buffer"
    )
    return sum(block.parameters for block in blocks), buffers


@needs_truth
@pytest.mark.parametrize("row", ROWS, ids=[row["model_id"] for row in ROWS])
def test_total(row):
    """Exact, for every row that transformers builds or that somebody published."""
    model = model_from_config(read_config(config_of(row)), row["model_id"])

    expected = int(row["total_params"] or 0) or int(row["published_params"] or 0)
    if not expected:
        pytest.skip("neither built by transformers nor published")
    assert model.road == "anatomy"
    assert model.parameters == expected - BEYOND.get(row["model_id"], 0)


@needs_truth
@pytest.mark.parametrize(
    "row", [row for row in ROWS if int(row["active_params"] or 0)], ids=lambda row: row["model_id"]
)
def test_active(row):
    """Parameters that one token passes through."""
    assert model_from_config(read_config(config_of(row))).active_parameters == int(row["active_params"])


@needs_truth
@pytest.mark.parametrize(
    ("name", "buffers"),
    [
        ("deepseek-ai/DeepSeek-R1", True),
        ("deepseek-ai/DeepSeek-V3.2", True),
        ("zai-org/GLM-5", True),
        ("zai-org/GLM-5.2", True),
        ("Qwen/Qwen3.5-27B", False),
        ("Qwen/Qwen3.5-35B-A3B", False),
        ("XiaomiMiMo/MiMo-7B-Base", False),
        ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", False),
    ],
)
def test_published_is_parameters_and_prediction_layers(name, buffers):
    """What a checkpoint holds beyond the class is its multi-token prediction layers, to the last parameter."""
    row = next(row for row in ROWS if row["model_id"] == name)
    model = model_from_config(read_config(config_of(row)))
    parameters, own_buffers = stored(model, mtp=False)
    predicting, mtp_buffers = stored(model, mtp=True)

    held = parameters + predicting + (own_buffers + mtp_buffers if buffers else 0)

    assert predicting > 0
    assert held == int(row["published_params"])


@needs_truth
def test_all_configurations_take_little_time():
    """The bar: all of them in 3 s in one process."""
    configs = [read_config(config_of(row)) for row in ROWS]

    started = time.perf_counter()
    for cfg in configs:
        model_from_config(cfg)

    assert time.perf_counter() - started <= 3


DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "vocab_size": 129280,
    "num_nextn_predict_layers": 1,
}


def test_deepseek_v3_takes_at_most_30_ms():
    """The bar, with everything loaded; its other sizes are its class's defaults."""
    anatomy_of("deepseek_v3")(Config(DEEPSEEK_V3))
    times = []
    for _ in range(5):
        started = time.perf_counter()
        model = model_from_config(DEEPSEEK_V3)
        times.append(time.perf_counter() - started)

    assert model.parameters == 671_026_404_352
    assert min(times) <= 0.030


def test_deepseek_v3_is_a_few_blocks():
    """61 layers and 45,000 tensors are 5 blocks: embedding, dense, mixture, output, prediction."""
    model = model_from_config(DEEPSEEK_V3)

    assert len(model.blocks) == 5
    assert sum(1 for _ in model.expand()) > 45_000
    assert json.dumps([block.name for block in model.blocks]).count("mixture") == 1
