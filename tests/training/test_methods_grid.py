"""Every method, optimizer, precision, recomputation, loss and objective offered, against simulated steps."""

import json
import statistics
from pathlib import Path

import pytest
from training_cases import estimated

from sizeup.estimate.training.optimizers import OPTIMIZERS
from sizeup.estimate.training.settings import FOUR_BITS, LOSSES, METHODS, OBJECTIVES, PRECISIONS

DATA = Path(__file__).parents[1] / "data" / "training_grid" / "methods.json"
#: Offered and not simulated: judged by Liger's measurements (test_measured_kernels.py); the same as causal; derived.
ELSEWHERE = {"loss": {"fused"}, "objective": {"sft"}, "four_bit": {"gptq"}}


@pytest.fixture(scope="module")
def cases():
    return json.loads(DATA.read_text())["cases"]


def test_estimates_agree(cases, grid_default, grid):
    """Small models: a forgotten tensor of any method would show."""
    errors = {
        (name, json.dumps(changes)): estimated(grid["configs"][name], grid_default | changes).peak_bytes / peak - 1
        for name, changes, peak in cases
    }
    assert len(errors) >= 80
    assert len({name for name, _ in errors}) >= 5
    assert statistics.median(map(abs, errors.values())) <= 0.001
    assert {case: error for case, error in errors.items() if not -0.005 <= error <= 0.02} == {}


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("optimizer", OPTIMIZERS), ("precision", PRECISIONS), ("method", METHODS), ("loss", LOSSES),
        ("objective", OBJECTIVES), ("checkpointing", ("none", "full", "selective", "2")), ("four_bit", FOUR_BITS),
        ("offload_activations", (False, True)), ("gradient_clip", (False, True)), ("accumulating", (False, True)),
        ("padding", (False, True)), ("keeps_outputs", (False, True)), ("adapter_precision", ("fp32", "bf16")),
    ],
)  # fmt: skip
def test_everything_offered_is_simulated(cases, grid_default, name, offered):
    """What is added to the estimate must be added to scripts/training_methods.py."""
    seen = {(grid_default | changes).get(name, "plain") for _, changes, _ in cases}
    assert set(offered) - seen - ELSEWHERE.get(name, set()) == set()


def test_a_wrong_setting_is_seen(cases, grid_default, grid):
    """The bars can fail: another optimizer, precision or method is far off."""
    name, changes, peak = next(case for case in cases if case[1].get("optimizer") == "galore")
    wrong = grid_default | changes | {"optimizer": "adamw_foreach"}
    assert estimated(grid["configs"][name], wrong).peak_bytes / peak - 1 > 0.2
