"""Random steps that were simulated before the estimate was asked: no one chose them, and none is left out."""

import statistics

import pytest
from training_cases import ROOT, script

DATA = ROOT / "tests" / "data" / "training_draws.json"


@pytest.fixture(scope="module")
def errors(truth_dir):
    """Relative error of every step; real configurations are the truth's."""
    draws = script("training_draws")
    draws.TRUTH = truth_dir / "configs"
    return [error for error, _, _ in draws.errors(DATA)]


def test_random_steps_agree(errors):
    """Five in a hundred may be off: configurations that contradict themselves are among those drawn."""
    sizes = sorted(map(abs, errors))
    assert len(sizes) >= 220
    assert statistics.median(sizes) <= 0.00001
    assert sizes[len(sizes) * 95 // 100] <= 0.001
    assert sum(size > 0.02 for size in sizes) <= 4
