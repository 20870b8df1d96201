"""Shared fixtures."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def truth_dir() -> Path:
    """The folder of published facts that estimates are judged against; absent on most machines."""
    folder = Path(os.environ.get("SIZEUP_TRUTH") or Path(__file__).parents[2] / "shared" / "truth")
    if not folder.is_dir():
        pytest.skip(f"no truth data at {folder}; set SIZEUP_TRUTH to its folder")
    return folder
