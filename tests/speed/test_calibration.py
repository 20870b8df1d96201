"""Ceilings are drawn to measurements, and only to those that speak of them."""

import msgspec
import pytest

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.traffic import placed_work
from sizeup.engines.llamacpp.weights import assign
from sizeup.estimate.speed.ceilings import ceilings
from sizeup.estimate.speed.decode import Stage, step_seconds
from sizeup.estimate.speed.tighten import Observation, tightened
from sizeup.machines.words import parse_machine
from sizeup.measure.calibration import Calibration, Fitted, keep, machine_key, measured_ceilings
from sizeup.models.load import load_model

MODEL = load_model("Qwen/Qwen3-8B")
MACHINE = parse_machine("RTX 3090, 64 GB RAM")


def work(format_="Q4_K_M", tokens=1):
    return placed_work(MODEL, LlamaSetting(format=format_), assign(MODEL.layers, -1, (1.0,)), tokens=tokens)[0].work


def predicted(ceiling, one):
    return step_seconds([Stage("GPU", ceiling, one)])


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.5])
def test_predictions_follow_measurements(factor):
    theory = ceilings(MACHINE.gpus[0])
    seen = [Observation(work(f), 1, predicted(theory, work(f)) * factor) for f in ("Q4_K_M", "Q8_0")]
    found = tightened(theory, seen)

    assert predicted(found, work("Q6_K")) == pytest.approx(predicted(theory, work("Q6_K")) * factor, rel=0.12)


def test_without_measurements_nothing_moves():
    theory = ceilings(MACHINE.gpus[0])

    assert tightened(theory, []).plain_matrix == theory.plain_matrix


def test_slow_decoding_says_nothing_of_prompts():
    theory = ceilings(MACHINE.gpus[0])
    found = tightened(theory, [Observation(work(), 1, predicted(theory, work()) * 2)])

    assert found.packed_matrix == pytest.approx(theory.packed_matrix, rel=0.05)


def test_kept_for_the_machine_at_hand_only(tmp_path, monkeypatch):
    monkeypatch.setenv("SIZEUP_CALIBRATION", str(tmp_path / "calibration.json"))
    probed = msgspec.structs.replace(MACHINE, evidence="probed")
    name = MACHINE.gpus[0].name
    keep(Calibration(machine_key(probed), "2026-01-01", {name: Fitted(1e12, 1e12, 1e12, 1e12, 1e12, 1e12)}))

    assert measured_ceilings(probed)[name].source == "measured"
    assert measured_ceilings(MACHINE) == {}
    assert measured_ceilings(msgspec.structs.replace(probed, cpu_threads=99)) == {}


def test_a_broken_file_is_as_none(tmp_path, monkeypatch):
    path = tmp_path / "broken.json"
    path.write_text("{nonsense")
    monkeypatch.setenv("SIZEUP_CALIBRATION", str(path))

    assert measured_ceilings(msgspec.structs.replace(MACHINE, evidence="probed")) == {}
