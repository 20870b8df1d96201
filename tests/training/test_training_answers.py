"""Largest batch, savings, cheapest device, configurations; and how long it all takes."""

import json
import time

import pytest
from training_cases import LLAMA

import sizeup
from sizeup.advice.training import largest, largest_value
from sizeup.estimate.training.models import subject_of
from sizeup.estimate.training.settings import TrainSetting
from sizeup.techniques.finetune_config import emit

GIB = 2**30


def best_seconds(action, runs=15):
    action()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.parametrize("most", [1, 2, 7, 100])
def test_largest_finds_the_edge(most):
    assert largest(lambda n: n <= most, 64) == min(most, 64)
    assert largest(lambda _n: False, 64) is None


def test_the_largest_batch_is_the_largest():
    shape, setting = subject_of(LLAMA).shape, TrainSetting()
    found = largest_value(shape, setting, "batch", 24 * GIB, 10**6)
    fits = sizeup.train(LLAMA, batch=found).process_bytes.expected
    beyond = sizeup.train(LLAMA, batch=found + 1).process_bytes.expected
    assert fits <= 24 * GIB < beyond


def test_savings_save_and_are_ranked():
    report = sizeup.train(LLAMA, batch=8, advise=True)
    savings = report.advice.savings
    assert {"checkpointing=full", "optimizer=adam8bit", "loss=fused"} <= {saving.change for saving in savings}
    for saving in savings:
        assert saving.saved_bytes == report.footprint.peak_bytes - saving.peak_bytes > 0
    assert report.advice.cheapest.memory_bytes >= report.process_bytes.expected


def test_what_is_set_already_is_no_saving():
    report = sizeup.train(LLAMA, method="qlora", advise=True)
    assert "method=qlora" not in {saving.change for saving in report.advice.savings}


def test_a_device_too_small_answers_no():
    report = sizeup.train(LLAMA, batch=64, sequence=4096, device="RTX 4090")
    assert report.fits is False
    assert report.exit_code == 3
    assert report.advice.largest_batch < 64


@pytest.mark.parametrize("form", ["trl", "accelerate", "fsdp", "deepspeed", "torchtune"])
def test_configurations_say_the_settings(form):
    spread = {"sharding": "fsdp", "data_parallel": 2} if form == "fsdp" else {}
    text = emit(form, "some/model", TrainSetting(method="lora", batch=3, checkpointing="full", **spread))
    assert text.count("\n") >= 4
    if form == "deepspeed":
        assert json.loads(text)["train_micro_batch_size_per_gpu"] == 3
    if form == "trl":
        assert "per_device_train_batch_size: 3" in text
        assert "gradient_checkpointing: true" in text


def test_an_estimate_is_quick():
    """A millisecond on a quiet machine; three here, where others work as well."""
    assert best_seconds(lambda: sizeup.train(LLAMA)) <= 0.003


def test_the_largest_batch_is_found_quickly():
    shape, setting = subject_of(LLAMA).shape, TrainSetting()
    assert best_seconds(lambda: largest_value(shape, setting, "batch", 24 * GIB, 10**6), 5) <= 0.1


def test_json_has_the_contract(capsys):
    from sizeup.cli.main import run

    assert run(["train", "Qwen/Qwen3-8B", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["schema"] == "sizeup.train/1"
    assert body["footprint"]["peak_bytes"] > 0
    assert body["footprint"]["phase"]
    assert sum(i["bytes"] for i in body["footprint"]["devices"][0]["items"]) == body["footprint"]["peak_bytes"]
    assert body["process_bytes"]["low"] < body["process_bytes"]["high"]


def test_people_read_it(capsys):
    from sizeup.cli.main import run

    run(["train", "Qwen/Qwen3-8B", "--method", "lora", "--device", "RTX 4090", "--explain"])
    text = capsys.readouterr().out
    for word in ("peak", "process", "phase", "What fits", "largest batch"):
        assert word in text
