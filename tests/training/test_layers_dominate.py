"""Small models with few words, whose layers make the peak: six settings of every architecture of the grid."""

import json
import statistics

import pytest
from training_cases import ROOT, estimated, script

DATA = ROOT / "tests" / "data" / "training_layers.json"


@pytest.fixture(scope="module")
def layers():
    """scripts/training_layers.py."""
    return script("training_layers")


@pytest.fixture(scope="module")
def errors(layers):
    """Relative errors by architecture and label."""
    return {
        (name, label): estimated(layers.config_of(name), layers.setting_of(label)).peak_bytes / peak - 1
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


def test_every_setting_is_there(errors, layers):
    assert {label for _, label in errors} == set(layers.SETTINGS)


def test_a_wrong_layer_is_seen(layers):
    """The bars can fail: a step without recomputation isn't one with it."""
    name, label, peak = next(row for row in json.loads(DATA.read_text())["rows"] if row[1] == "lora ckpt")
    wrong = layers.setting_of(label) | {"checkpointing": "none"}
    assert estimated(layers.config_of(name), wrong).peak_bytes / peak - 1 > 0.1
