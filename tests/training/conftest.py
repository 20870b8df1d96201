"""The grid of simulated steps, for the tests of training."""

import pytest
from training_cases import ROOT, grid_script


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
