"""Small models with few words, whose layers make the peak: six settings of every architecture of the grid."""

import importlib.util
import json
import statistics
import sys
from pathlib import Path

import pytest
from training_cases import estimated

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "training_layers.json"


@pytest.fixture(scope="module")
def script():
    """scripts/training_layers.py, which finds scripts/training_grid.py beside it."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        spec = importlib.util.spec_from_file_location("training_layers", ROOT / "scripts" / "training_layers.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    return module


@pytest.fixture(scope="module")
def errors(script):
    """Relative errors by architecture and label."""
    return {
        (name, label): estimated(script.config_of(name), script.setting_of(label)).peak_bytes / peak - 1
        for name, label, peak in json.loads(DATA.read_text())["rows"]
    }


def test_layers_are_exact(errors):
    """Half are within 0.01 %, 95 of 100 within 0.1 %."""
    sizes = sorted(map(abs, errors.values()))
    assert len(sizes) >= 500
    assert statistics.median(sizes) <= 0.0001
    assert sizes[int(0.95 * len(sizes))] <= 0.001


def test_none_is_far_off(errors):
    assert {case: error for case, error in errors.items() if not -0.005 <= error <= 0.02} == {}


def test_every_setting_is_there(errors, script):
    assert {label for _, label in errors} == set(script.SETTINGS)


def test_a_wrong_layer_is_seen(script):
    """The bars can fail: a step without recomputation isn't one with it."""
    name, label, peak = next(row for row in json.loads(DATA.read_text())["rows"] if row[1] == "lora ckpt")
    wrong = script.setting_of(label) | {"checkpointing": "none"}
    assert estimated(script.config_of(name), wrong).peak_bytes / peak - 1 > 0.1
