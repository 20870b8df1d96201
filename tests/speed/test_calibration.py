"""Ceilings are drawn to measurements, and only to those that speak of them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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

    assert tightened(theory, []) == theory


def test_slow_decoding_says_nothing_of_prompts():
    theory = ceilings(MACHINE.gpus[0])
    found = tightened(theory, [Observation(work(), 1, predicted(theory, work()) * 2)])

    assert dict(found.corrections)["flop"] == pytest.approx(1, rel=0.05)
    assert predicted(found, work(tokens=512)) == pytest.approx(predicted(theory, work(tokens=512)), rel=0.15)


def test_a_format_that_is_slow_here_says_little_of_others():
    theory = ceilings(MACHINE.gpus[0])
    seen = [
        Observation(work(f), 1, predicted(theory, work(f)) * k) for f, k in (("Q8_0", 1), ("F16", 1), ("IQ3_XXS", 3))
    ]
    found = tightened(theory, seen)

    assert predicted(found, work("Q8_0")) == pytest.approx(predicted(theory, work("Q8_0")), rel=0.1)
    assert predicted(found, work("IQ3_XXS")) > 2 * predicted(theory, work("IQ3_XXS"))


@given(st.floats(0.3, 3), st.floats(0.3, 3))
def test_tightening_twice_stays_finite_and_positive(one, two):
    theory = ceilings(MACHINE.gpus[0])
    found = tightened(theory, [Observation(work(), 1, predicted(theory, work()) * one)])
    again = tightened(found, [Observation(work(tokens=512), 1, predicted(theory, work(tokens=512)) * two)])

    assert all(0.01 < value < 100 for _, value in again.corrections)


def test_kept_for_the_machine_at_hand_only(tmp_path, monkeypatch):
    monkeypatch.setenv("SIZEUP_CALIBRATION", str(tmp_path / "calibration.json"))
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    probed = msgspec.structs.replace(MACHINE, evidence="probed")
    name = MACHINE.gpus[0].name
    keep(Calibration(machine_key(probed), "2026-01-01", {name: Fitted({"streaming": 1.25})}))

    assert measured_ceilings(probed)[name].evidence == "calibrated"
    assert measured_ceilings(MACHINE) == {}
    assert measured_ceilings(msgspec.structs.replace(probed, cpu_threads=99)) == {}


def test_a_broken_file_is_as_none(tmp_path, monkeypatch):
    path = tmp_path / "broken.json"
    path.write_text("{nonsense")
    monkeypatch.setenv("SIZEUP_CALIBRATION", str(path))
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))

    assert measured_ceilings(msgspec.structs.replace(MACHINE, evidence="probed")) == {}
