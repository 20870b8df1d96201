"""Measured steps: on the processor where torch is, the GPU's path with a stand-in for its allocator, and the ledger."""

import json
import os
import subprocess
from pathlib import Path

import msgspec
import pytest
from training_cases import LLAMA, estimated

import sizeup
from sizeup.cli.main import run
from sizeup.errors import MissingPart, SizeupError
from sizeup.estimate.training.settings import TrainSetting
from sizeup.measure.ledger import Ledger
from sizeup.workers import training_host
from sizeup.workers.host import find_python

SOURCE = str(Path(sizeup.__file__).parents[1])
TINY = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip
SMALL = LLAMA | {"num_hidden_layers": 2}
#: A GPU whose allocator answers with fixed figures, for the code around it; the step runs on the processor.
FAKE_GPU = """
import json, sys
import torch
torch.cuda.synchronize = torch.cuda.reset_peak_memory_stats = lambda *a: None
torch.cuda.max_memory_allocated = lambda *a: 700
torch.cuda.max_memory_reserved = lambda *a: 800
torch.cuda.get_device_name = lambda *a: "stand-in"
from sizeup.workers.training_measure import measured
job = json.loads(sys.argv[1])
print(json.dumps(measured(torch, job["config"], job["setting"], "cpu")))
"""
ON_A_GPU = {
    "peak_bytes": 4 * 2**30, "reserved_bytes": 5 * 2**30, "process_bytes": 6 * 2**30, "phases": {}, "device": "RTX 4090",
    "versions": {"torch": "2.13.0"}, "seconds_per_step": 0.2, "stand_ins": False,
}  # fmt: skip


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    return lambda: Ledger().rows()


@pytest.fixture(scope="module")
def python():
    try:
        return find_python(("torch", "transformers"), "training")
    except MissingPart as missing:
        pytest.skip(f"{missing.message}; {missing.hint}")


def test_eight_bit_states_are_those_of_bitsandbytes(python):
    """Where it isn't installed, the error names it."""
    assert python
    fields = {"precision": "fp32", "sequence": 128, "optimizer": "adam8bit"}
    has_it = subprocess.run([python, "-c", "import bitsandbytes"], capture_output=True, check=False).returncode == 0
    if not has_it:
        with pytest.raises(MissingPart, match="bitsandbytes"):
            training_host.measure_step(SMALL, TrainSetting(**fields))
        return
    found = training_host.measure_step(SMALL, TrainSetting(**fields))
    assert found["peak_bytes"] == pytest.approx(estimated(SMALL, fields).peak_bytes, rel=0.01)


@pytest.mark.parametrize("setting", [{}, {"method": "qlora"}], ids=str)
def test_a_step_on_the_processor_is_what_is_estimated(python, setting):
    """fp32, so that processor and GPU keep the same; packed weights are stand-ins."""
    assert python
    fields = {"precision": "bf16" if "method" in setting else "fp32", "sequence": 128} | setting
    found = training_host.measure_step(SMALL, TrainSetting(**fields))
    assert found["device"] == "cpu"
    assert found["peak_bytes"] == pytest.approx(estimated(SMALL, fields).peak_bytes, rel=0.01)
    assert found["resident_bytes"] > 0
    assert found["stand_ins"] == (setting != {})


def test_a_step_beyond_the_free_memory_is_not_begun(python):
    assert python
    with pytest.raises(SizeupError, match="has no GPU, and the step needs 1,048,576 GiB"):
        training_host.measure_step(TINY, TrainSetting(), needed=2**50)


def test_several_devices_are_not_measured(python):
    assert python
    with pytest.raises(SizeupError, match="sharding='fsdp' isn't measured"):
        training_host.measure_step(TINY, TrainSetting(sharding="fsdp", data_parallel=2))


def test_the_path_of_a_gpu(python):
    """Never run on a real one here: its allocator's answers are stand-ins."""
    job = {"config": TINY, "setting": msgspec.to_builtins(TrainSetting(sequence=32, precision="fp32"))}
    command = [str(python), "-c", FAKE_GPU, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": SOURCE})
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["peak_bytes"], found["reserved_bytes"], found["device"]) == (700, 800, "stand-in")
    assert found["seconds_per_step"] > 0


def test_a_measurement_is_kept_and_judged(kept, monkeypatch, capsys):
    monkeypatch.setattr(training_host, "measure_step", lambda *_args, **_fields: ON_A_GPU)
    report = sizeup.train(LLAMA, measure=True)
    (row,) = kept()

    assert (row.kind, row.engine, row.machine, row.machine_class) == ("measure", "torch", "RTX 4090", "gpu")
    assert row.components == {"peak": 4 * 2**30, "reserved": 5 * 2**30, "process": 6 * 2**30}
    assert report.simulated.error == report.footprint.peak_bytes / (4 * 2**30) - 1
    assert run(["accuracy", "--mine", "--json"]) == 0
    groups = {a["group"]["component"] for a in json.loads(capsys.readouterr().out)["accuracy"]}
    assert groups == {"peak", "reserved", "process"}


def test_a_simulation_shows_what_the_caching_allocator_reserves(kept, monkeypatch, tmp_path, capsys):
    asked = []

    def simulate(_config, _setting, *, replay=False):
        asked.append(replay)
        return {"peak_bytes": 2**30, "reserved_bytes": 5 * 2**28, "phases": {"forward": 2**30}, "versions": {}}

    monkeypatch.setattr(training_host, "simulate_step", simulate)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA))
    run(["train", str(path), "--simulate"])
    text = capsys.readouterr().out

    assert asked == [True]
    assert "would reserve 1.25 GiB (+25.0%)" in text
    assert "so the process takes 1.55 GiB to 1.85 GiB" in text
    assert kept()[0].machine == "fake cuda"


def test_a_very_deep_model_is_drawn_on_from_two_depths(kept, monkeypatch):
    asked = []

    def simulate(_config, _setting, *, replay=False):
        asked.append(replay)
        return {"peak_bytes": 2**30, "reserved_bytes": None, "phases": {}, "versions": {}}

    monkeypatch.setattr(training_host, "simulate_step", simulate)
    report = sizeup.train(LLAMA | {"num_hidden_layers": 126}, simulate=True)

    assert asked == [False]
    assert report.simulated.process is None
    assert "reserved" not in kept()[0].components
