"""The worker: its allocator (here), and simulated steps against real ones (where torch is)."""

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizeup.errors import MissingPart
from sizeup.estimate.training.settings import TrainSetting
from sizeup.workers.host import find_python, run_worker
from sizeup.workers.training_allocator import CachingAllocator, replay
from sizeup.workers.training_host import extrapolated, simulate_step

MIB = 2**20
TINY = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip


def test_small_requests_share_a_segment():
    allocator = CachingAllocator()
    for _ in range(4):
        allocator.allocate(1000)
    assert (allocator.allocated, allocator.reserved) == (4 * 1024, 2 * MIB)


def test_what_is_released_is_taken_again():
    allocator = CachingAllocator()
    block = allocator.allocate(30 * MIB)
    allocator.release(block)
    allocator.allocate(29 * MIB + 1)
    assert allocator.peak_reserved == 30 * MIB


@given(st.lists(st.integers(1, 40 * MIB), min_size=1, max_size=40), st.randoms())
def test_nothing_is_lost(sizes, random):
    events = [(1, number, size) for number, size in enumerate(sizes)]
    order = list(range(len(sizes)))
    random.shuffle(order)
    allocator = replay([*events, *((-1, number, 0) for number in order)])
    assert allocator.allocated == 0
    assert allocator.peak_reserved >= allocator.peak_allocated >= sum(sizes)


def test_extrapolation_is_a_line():
    low, high = ({"phases": {"forward": 10 + n * 5, "step": 7}, "peak_bytes": 0} for n in (2, 4))
    found = extrapolated(low, high, 32)
    assert found["phases"] == {"forward": 10 + 32 * 5, "step": 7}
    assert found["peak_bytes"] == 170


@pytest.fixture(scope="module")
def python():
    try:
        return find_python(("torch", "transformers"), "training")
    except MissingPart as missing:
        pytest.skip(f"{missing.message}; {missing.hint}")


def job(setting, **more):
    return {"config": TINY, "setting": msgspec.to_builtins(setting)} | more


@pytest.mark.torch
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_simulation_agrees_with_a_real_step(python, checkpointing):
    """Real tensors on the CPU, the same operations in fp32: eager attention, the loop optimizer."""
    setting = TrainSetting(
        precision="fp32", optimizer="adamw_loop", attention="eager", batch=2, sequence=64, checkpointing=checkpointing
    )
    real = run_worker("training_simulate.py", job(setting, real=True), python=python)[0]
    fake = run_worker("training_simulate.py", job(setting), python=python)[0]
    assert fake["peak_bytes"] == pytest.approx(real["peak_bytes"], rel=0.01)


@pytest.mark.torch
def test_two_depths_give_the_third(python, monkeypatch):
    monkeypatch.setitem(os.environ, "SIZEUP_WORKER_PYTHON", python)
    config = TINY | {"num_hidden_layers": 9}
    setting = TrainSetting(precision="bf16-autocast-fp32-weights", batch=2, sequence=128)
    drawn = simulate_step(config, setting)
    whole = simulate_step(config, setting, full_depth=True, replay=True)
    assert drawn["peak_bytes"] == whole["peak_bytes"]
    assert whole["reserved_bytes"] >= whole["peak_bytes"]


@pytest.mark.torch
def test_what_is_not_simulated_is_refused_by_name(python):
    from sizeup.errors import BadConfig

    with pytest.raises(BadConfig, match="loss='fused' isn't simulated"):
        run_worker("training_simulate.py", job(TrainSetting(loss="fused")), python=python)
