"""Training steps in the ledger: rows, what others published one by one, the stated ranges."""

import statistics

import msgspec
import pytest

from sizeup.errors import BadFile, NotFound
from sizeup.estimate.training.process import process_bytes, process_range, reserved_bytes
from sizeup.estimate.training.settings import TrainSetting
from sizeup.measure.ledger import shipped
from sizeup.measure.rows import checked, decode_lines, encode_line
from sizeup.measure.torch_rows import changed, setting_of_row, train_estimate, train_record, train_row
from sizeup.measure.training_accuracy import published_steps, range_coverage

GIB = 2**30
LLAMA = {
    "model_type": "llama", "vocab_size": 1000, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 512,
}  # fmt: skip


@pytest.fixture(scope="module")
def steps():
    return published_steps(*shipped())


def test_a_row_says_what_differs_from_the_defaults_and_comes_back():
    setting = TrainSetting(method="lora", lora_targets=("q_proj",), sequence=128)
    record = train_record(LLAMA, "small llama")
    row = train_row(record, setting, {"peak": 5})

    assert changed(setting) == {"method": "lora", "lora_targets": ["q_proj"], "sequence": 128}
    assert setting_of_row(row) == setting
    assert list(decode_lines(encode_line(record) + encode_line(row), "test")) == [record, checked(row)]
    found = train_estimate(row, record)
    assert found["peak"] < found["reserved"] < found["process"]


def test_rows_that_say_too_little_are_refused():
    row = train_row(train_record(LLAMA, "small llama"), TrainSetting(), {"peak": 5})

    with pytest.raises(NotFound, match="how small llama is built"):
        train_estimate(row, None)
    with pytest.raises(BadFile, match="can't be read"):
        setting_of_row(msgspec.structs.replace(row, setting={"batch": "many"}))


def test_other_configurations_are_other_models():
    assert train_record(LLAMA, "a").key == train_record(dict(reversed(LLAMA.items())), "b").key
    assert train_record(LLAMA, "a").key != train_record(LLAMA | {"hidden_act": "gelu"}, "a").key


def test_published_single_device_steps_are_within_eight_percent(steps):
    """The bar: median of the process-level figures whose method and code are estimated."""
    rows = [step for step in steps if not step.nearest and step.component in {"reserved", "process"}]

    assert len(rows) >= 20
    assert statistics.median(abs(step.error) for step in rows) <= 0.08
    assert statistics.median(abs(step.error) for step in steps if step.run.startswith("PEFT")) <= 0.08


def test_every_step_that_is_off_is_explained(steps):
    assert all(step.note for step in steps if step.nearest or abs(step.error) > 0.10)


def test_pipelines_of_torchtitan_are_reproduced(steps):
    """405B on 512 GPUs: FSDP, tensor, context and pipeline parallel at once."""
    errors = {step.run: step.error for step in steps if step.run.startswith("torchtitan: 405B")}

    assert len(errors) == 6
    assert max(map(abs, errors.values())) <= 0.15
    assert statistics.median(map(abs, errors.values())) <= 0.08


@pytest.mark.parametrize(("source", "least"), [("PEFT", 60), ("torchtitan", 15), ("torchtune", 10), ("litgpt", 15)])
def test_published_steps_are_named_one_by_one(steps, source, least):
    runs = [step.run for step in steps if step.run.startswith(source)]

    assert len(runs) == len(set(runs)) >= least


def test_nine_in_ten_figures_lie_in_the_stated_range():
    shares = {found.component: found.share for found in range_coverage(*shipped())}

    assert 0.85 <= shares["reserved, simulated"] <= 0.97
    assert shares["process, published"] >= 0.85


def test_the_range_is_wider_for_larger_steps_but_less_of_them():
    small, large = reserved_bytes(2 * GIB), reserved_bytes(40 * GIB)

    assert large.high - large.low > small.high - small.low
    assert large.expected / 40 < small.expected / 2
    assert process_range(GIB).low < process_range(GIB).expected < process_range(GIB).high


def test_devices_that_talk_take_more():
    alone, several = process_bytes(10 * GIB), process_bytes(10 * GIB, devices=8)

    assert several.low > alone.low
    assert several.high - several.low > alone.high - alone.low
    assert "NCCL" in several.because
    assert "NCCL" not in alone.because


def test_a_replayed_reserve_narrows_the_range():
    wide, narrow = process_bytes(10 * GIB), process_bytes(10 * GIB, 11 * GIB)

    assert narrow.high - narrow.low < wide.high - wide.low
    assert narrow.low > 11 * GIB
    assert "10%" in narrow.because
