"""Every model of the catalogue that llama.cpp runs can be planned; a family whose graph isn't built gets a bound."""

import pytest

from sizeup.advice.plans import make_plan
from sizeup.engines.llamacpp.architectures import runs
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.machines.spec import load_machine
from sizeup.models.catalogue.entry import entries
from sizeup.models.from_catalogue import model_from_entry
from sizeup.models.load import load_model

MACHINE = load_machine("8x H100 SXM, 1 TB RAM")


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.id)
def test_every_model_has_a_plan(entry):
    """Weights, compute and overhead are there, and the parts sum to the total."""
    model = model_from_entry(entry)
    if not runs(model):
        pytest.skip(f"llama.cpp has no architecture for {model.family}")
    plan = make_plan(model, LlamaSetting(format="Q4_K_M"), MACHINE)

    assert plan.footprint.component("weights") > model.parameters * 0.4
    assert plan.footprint.component("compute") > 0
    parts = sum(item.bytes for device in plan.footprint.devices for item in device.items)
    assert parts == plan.footprint.total_bytes


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "deepseek-ai/DeepSeek-V3", "google/gemma-3-27b-it"])
def test_the_bound_is_above_what_the_graph_takes(name, monkeypatch):
    """Where both are known, the bound is never under, and at most ten times over."""
    model = load_model(name)
    machine = load_machine("CPU only, 64 GB")
    setting = LlamaSetting(format="Q4_K_M", context=8192)
    exact = make_plan(model, setting, machine).footprint.component("compute")
    monkeypatch.setattr("sizeup.engines.llamacpp.reserve.build", lambda *_: {}["no such tensor"])
    roughly = make_plan(load_model(name), setting, machine).footprint.component("compute")

    assert exact <= roughly <= 10 * exact
