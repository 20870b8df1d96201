"""An estimate takes a millisecond at most, whatever the batch and sequence; the largest that fits, 50 milliseconds.

Time is that of the process, the least of several tries, so that a busy machine doesn't fail the tests.
"""

import time

import pytest

import sizeup
from sizeup.advice.training import MOST_TOKENS, largest_value
from sizeup.estimate.training import recordings
from sizeup.estimate.training.settings import TrainSetting
from sizeup.operations.train_subject import subject
from sizeup.quantity.units import GIB

MODELS = ("Qwen/Qwen3-8B", "google/gemma-4-31B-it", "deepseek-ai/DeepSeek-V3", "openai/gpt-oss-20b")
METHODS = ({}, {"method": "lora"}, {"method": "qlora", "checkpointing": "full"})
TRIES = 7


def least(run):
    """The least time of several tries in milliseconds."""
    times = []
    for _ in range(TRIES):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times) * 1000


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_an_estimate_takes_a_millisecond_at_most(model, method):
    for batch, sequence in ((1, 1024), (4, 1024), (2, 4096), (3, 1000), (8, 2048)):
        setting = {**method, "batch": batch, "sequence": sequence}
        sizeup.train(model, **setting)
        assert least(lambda setting=setting: sizeup.train(model, **setting)) <= 1.0, setting


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_a_sweep_takes_a_millisecond_each_at_most(model, method):
    """Sizes that weren't asked for before."""
    sizes = [(batch, sequence) for batch in (1, 2, 4, 8) for sequence in range(2048, 2368, 64)]

    def sweep():
        for batch, sequence in sizes:
            sizeup.train(model, **method, batch=batch, sequence=sequence)

    assert least(sweep) / len(sizes) <= 1.0


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_a_setting_for_the_first_time_takes_a_few(model, method):
    sizeup.train(model, **method)

    def cold():
        recordings.kept.clear()
        sizeup.train(model, **method)

    assert least(cold) <= 10.0


@pytest.mark.parametrize("field", ["batch", "sequence", "lora_rank"])
@pytest.mark.parametrize("model", MODELS)
def test_the_largest_that_fits_takes_50_milliseconds_at_most(model, field):
    what = subject(model, network=False)
    setting = TrainSetting(method="qlora", checkpointing="full")

    def search():
        recordings.kept.clear()
        largest_value(what.shape, setting, field, 700 * GIB, MOST_TOKENS // 1024)

    assert least(search) <= 50.0
