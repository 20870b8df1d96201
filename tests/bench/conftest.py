"""What the tests of this folder share: a ledger of their own, fakes, and a llama.cpp where there is one."""

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "engines")]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data folder of the test's own; environments stay where they are."""
    python = os.environ.get("SIZEUP_LLAMACPP_PYTHON") or _installed()
    if python:
        monkeypatch.setenv("SIZEUP_LLAMACPP_PYTHON", python)
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def llamacpp():
    """The Python of an environment with llama-cpp-python."""
    python = os.environ.get("SIZEUP_LLAMACPP_PYTHON") or _installed()
    if not python:
        pytest.skip("no llama.cpp: run `sizeup engine install llama.cpp`, or set SIZEUP_LLAMACPP_PYTHON")
    return python


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A small GGUF file with a vocabulary."""
    from talking import write_talking

    return write_talking(tmp_path_factory.mktemp("models") / "tiny.gguf")


def _installed():
    from sizeup.errors import MissingPart
    from sizeup.measure.simulation import worker_python

    try:
        return worker_python()
    except MissingPart:
        return ""
