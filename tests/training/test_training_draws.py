"""Random steps that were simulated before the estimate was asked: no one chose them, and none is left out."""

import importlib.util
import statistics

import pytest
from training_cases import ROOT, grid_script

DATA = ROOT / "tests" / "data" / "training_draws.json"


@pytest.fixture(scope="module")
def errors(truth_dir):
    """Relative error of every step; real configurations are the truth's."""
    import sys

    sys.modules.setdefault("training_grid", grid_script())
    spec = importlib.util.spec_from_file_location("training_draws", ROOT / "scripts" / "training_draws.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.TRUTH = truth_dir / "configs"
    return [error for error, _, _ in script.errors(DATA)]


def test_random_steps_agree(errors):
    """Five in a hundred may be off: configurations that contradict themselves are among those drawn."""
    sizes = sorted(map(abs, errors))
    assert len(sizes) >= 220
    assert statistics.median(sizes) <= 0.00001
    assert sizes[len(sizes) * 95 // 100] <= 0.001
    assert sum(size > 0.02 for size in sizes) <= 4
