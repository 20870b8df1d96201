"""Model and reference: together where both fit, one after the other where one does, refused with the figure else."""

from types import SimpleNamespace

import pytest
from tiny_llama import write_tiny

import sizeup
from sizeup.advice.plans import make_plan
from sizeup.errors import AnswerIsNo, MissingPart, NotFound
from sizeup.machines.spec import load_machine
from sizeup.measure.demo.gguf import write_gguf
from sizeup.measure.quality.loss import Wanted, logits_bytes, loss_setting
from sizeup.measure.simulation import worker_python
from sizeup.models.load import load_model
from sizeup.operations import eval_memory
from sizeup.operations.eval_memory import reference_for, together
from sizeup.operations.serving import Served
from sizeup.quantity.units import format_bytes

MODEL = "Qwen/Qwen3-8B"


def served(format_, machine):
    import msgspec

    model, machine = load_model(MODEL), load_machine(machine)
    setting = msgspec.structs.replace(loss_setting(Wanted()), format=format_)
    return Served(model, machine, make_plan(model, setting, machine), None)


@pytest.mark.parametrize(("memory", "verdict"), [("64 GB RAM", "yes"), ("20 GB RAM", "no")])
def test_each_device_has_to_hold_both(memory, verdict):
    own, other = served("Q4_K_M", f"Ryzen 9 7950X, {memory}"), served("F16", f"Ryzen 9 7950X, {memory}")

    assert own.plan.fits.verdict == other.plan.fits.verdict == "yes"
    assert together(own, other).verdict == verdict
    whole = own.plan.footprint.total_bytes + other.plan.footprint.total_bytes
    assert together(own, other).total.value == pytest.approx(whole, rel=0.01)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = write_tiny(tmp_path_factory.mktemp("tiny"))
    write_gguf(folder, folder / "tiny.gguf")
    return folder / "tiny.gguf"


def crowded(monkeypatch):
    monkeypatch.setattr(eval_memory, "together", lambda *_: SimpleNamespace(verdict="no"))


def arranged(tiny, **given):
    wanted = Wanted(length=32, stretches=4)
    own = eval_memory.loss_plan(str(tiny), wanted, force=False, gpu_layers=0)
    return reference_for(own, wanted, str(tiny), force=given.get("force", False), gpu_layers=0)


def test_what_does_not_fit_together_is_loaded_apart(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    assert arranged(tiny).apart is None
    crowded(monkeypatch)

    assert arranged(tiny).apart == tmp_path / "unfinished"
    assert arranged(tiny, force=True).apart is None


def test_without_disk_the_answer_is_no_with_the_figure(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    crowded(monkeypatch)
    monkeypatch.setattr(eval_memory.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    needed = format_bytes(logits_bytes(Wanted(length=32, stretches=4), load_model(str(tiny)).vocabulary))

    with pytest.raises(AnswerIsNo, match=f"logits take {needed} of disk") as refused:
        arranged(tiny)
    assert refused.value.exit_code == 3


def test_a_reference_that_is_not_there(tiny):
    wanted = Wanted(length=32)
    own = eval_memory.loss_plan(str(tiny), wanted, force=False, gpu_layers=0)
    with pytest.raises(NotFound, match="to compare with"):
        reference_for(own, wanted, "/nowhere.gguf", force=False, gpu_layers=0)


@pytest.mark.llamacpp
def test_eval_apart_from_end_to_end(tiny, monkeypatch, tmp_path):
    try:
        monkeypatch.setenv("SIZEUP_LLAMACPP_PYTHON", worker_python())
    except MissingPart as missing:
        pytest.skip(str(missing))
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    crowded(monkeypatch)
    found = sizeup.eval(str(tiny), parts="loss", reference=str(tiny), text="prose", length=32, stretches=4, threads=1)

    assert found.loss.apart
    assert found.loss.divergence.value == pytest.approx(0, abs=1e-9)
    assert any("one after the other" in note for note in found.notes)
    assert list((tmp_path / "unfinished").iterdir()) == []
