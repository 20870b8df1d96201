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
    """By an anatomy, not by a generic guess."""
    model = model_from_entry(entry)

    assert model.road == "anatomy"
    assert model.facts.source == entry.source


def stored_elements(model):
    """What a Hub page may count: parameters; and with buffers and scales, MTP layers, a tied head stored twice."""
    tied = sum(b.count * t.elements for b in model.blocks for t in b.tensors if t.tied_to)
    mtp = sum(b.parameters for b in model.blocks if b.stack == "mtp")
    extra = sum(
        b.count * t.copies * t.elements for b in model.blocks for t in b.tensors if t.role in {"buffer", "scale"}
    )
    return [model.parameters + a + b + c for a in (0, tied) for b in (0, mtp) for c in (0, extra)]


#: Pages that show something else, and what.
COUNTED_OTHERWISE = {
    "openai/gpt-oss-20b": "packed four-bit weights as bytes",
    "openai/gpt-oss-120b": "packed four-bit weights as bytes",
    "Qwen/Qwen3-Next-80B-A3B-Instruct": "multi-token prediction layers that the configuration doesn't mention",
    "XiaomiMiMo/MiMo-V2-Flash": "multi-token prediction layers that the configuration doesn't mention",
    "baidu/ERNIE-4.5-21B-A3B-PT": "a multi-token prediction layer that transformers doesn't build",
    "MiniMaxAI/MiniMax-M3": "multi-token prediction modules that the configuration only counts",
    "zai-org/GLM-4.6": "a multi-token prediction layer without its own embedding and head",
}


@pytest.mark.parametrize("entry", [e for e in entries() if e.hub_parameters], ids=lambda e: e.id)
def test_the_count_is_what_the_hub_page_shows(entry):
    """To a tenth of a percent, once it is said what else a page counts."""
    if entry.id in COUNTED_OTHERWISE:
        pytest.skip(f"its page counts {COUNTED_OTHERWISE[entry.id]}")
    counts = stored_elements(model_from_entry(entry))

    assert min(abs(count / entry.hub_parameters - 1) for count in counts) <= 0.001, (counts, entry.hub_parameters)


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
