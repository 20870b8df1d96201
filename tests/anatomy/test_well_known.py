"""Models that people run, from the fields that their `config.json` holds, to the last element of the published total.

`tests/data/well_known.json` has what their pages show as the total of the safetensors files. A file holds the
parameters, and perhaps buffers (correction biases, unused projections) and multi-token prediction layers.
"""

import json
from pathlib import Path

import pytest

from sizeup.models.from_config import model_from_config

MODELS = json.loads((Path(__file__).parents[1] / "data" / "well_known.json").read_text())
#: What a file may hold beside the parameters.
PREDICTION = {"zai-org/GLM-4.5", "zai-org/GLM-4.5-Air", "stepfun-ai/Step-3.5-Flash", "Qwen/Qwen3.5-0.8B"}


@pytest.mark.parametrize("row", MODELS, ids=[row["model"] for row in MODELS])
def test_published_total(row):
    """Parameters, or parameters with buffers; with the prediction layers where the page counts them."""
    model = model_from_config(row["config"])
    blocks = [block for block in model.blocks if block.stack != "mtp" or row["model"] in PREDICTION]
    parameters = sum(block.parameters for block in blocks)
    buffers = sum(
        block.count * tensor.copies * tensor.elements
        for block in blocks
        for tensor in block.tensors
        if tensor.role == "buffer"
    )

    assert model.road == "anatomy"
    assert row["published"] in {parameters, parameters + buffers}


def test_enough_families():
    assert len({row["config"].get("model_type") for row in MODELS}) >= 70
