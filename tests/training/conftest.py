"""The grid of simulated steps, for the tests of training."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def grid_script():
    spec = importlib.util.spec_from_file_location("training_grid", ROOT / "scripts" / "training_grid.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def grid():
    """Configurations and (architecture, setting, peak bytes) of scripts/training_grid.py."""
    return grid_script().load(ROOT / "tests" / "data" / "training_grid")


@pytest.fixture(scope="session")
def grid_default():
    """What every case of the grid begins with."""
    return grid_script().DEFAULT


@pytest.fixture(scope="session")
def settings():
    """The settings of the grid by their labels."""
    script = grid_script()
    return {label: script.DEFAULT | changes for label, changes in script.SETTINGS.items()}
