"""The catalogue's files and its compiled form agree; every model in it can be read."""

import subprocess
import sys
from pathlib import Path

import pytest

from sizeup.models.catalogue.entry import entries
from sizeup.models.catalogue.find import find, nearest
from sizeup.models.from_catalogue import model_from_entry

ROOT = Path(__file__).parents[2]


def test_compiled_catalogue_is_up_to_date():
    """`scripts/build_catalogue.py` was run after the last edit."""
    command = [sys.executable, str(ROOT / "scripts" / "build_catalogue.py"), "--check"]

    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("entry", entries(), ids=lambda e: e.id)
def test_every_model_can_be_read_exactly(entry):
    """By an anatomy, not by a generic guess; near what its Hub page shows (which counts packed and extra tensors)."""
    model = model_from_entry(entry)

    assert model.road == "anatomy"
    assert model.facts.source == entry.source
    if entry.hub_parameters and not model.scheme:
        assert model.parameters == pytest.approx(entry.hub_parameters, rel=0.08)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("qwen3-8b", "Qwen/Qwen3-8B"),
        ("llama3.1:8b", "meta-llama/Llama-3.1-8B-Instruct"),
        ("gemma-3-27b", "google/gemma-3-27b-it"),
    ],
)
def test_names_that_people_use(name, meant):
    """Id, name without maker, Ollama tag, without the ending."""
    assert find(name).id == meant


def test_a_misspelling_gets_near_names():
    """Found by nobody, suggested to everybody."""
    assert find("lama-3.1-8b") is None
    assert "meta-llama/Llama-3.1-8B-Instruct" in nearest("lama-3.1-8b")
