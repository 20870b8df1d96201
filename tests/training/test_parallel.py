"""Splitting a model: the shards of every state sum to the whole, and the worst rank is named."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from training_cases import LLAMA, estimated

from sizeup.estimate.training import fsdp
from sizeup.estimate.training.estimate import recorded
from sizeup.estimate.training.models import subject_of
from sizeup.estimate.training.optimizers import OPTIMIZERS
from sizeup.estimate.training.parallel import stage_layers
from sizeup.estimate.training.pipeline import in_flight, operations, turns
from sizeup.estimate.training.settings import TrainSetting


@given(st.integers(1, 300), st.integers(1, 40))
def test_stages_deal_out_every_layer_once(layers, stages):
    dealt = [layer for stage in range(stages) for layer in stage_layers(layers, stages, stage)]
    assert dealt == list(range(layers))


@pytest.mark.parametrize("world", [2, 4, 8, 16])
def test_shards_sum_to_the_whole(world):
    """Weights and states of all ranks are those of one, but for rows that don't divide and the step counters."""
    step = recorded(subject_of(LLAMA).shape, TrainSetting())
    whole = sum(weight.n * count for weight, count in step.weights)
    shards = fsdp.shards(step.weights, fsdp.Policy(world, 2, 2))
    spread = world * sum(weight.n * count for weight, count in shards)
    assert whole <= spread <= whole * 1.001
    state = OPTIMIZERS["sgd_momentum"].state
    held = world * sum(sum(state(weight)) * count for weight, count in shards)
    assert held == 2 * spread


def test_more_ranks_hold_less_each():
    peaks = [estimated(LLAMA, {"sharding": "fsdp", "data_parallel": n}).peak_bytes for n in (2, 4, 8, 16)]
    assert peaks == sorted(peaks, reverse=True)


def test_zero_stages_save_one_after_the_other():
    def peak(sharding):
        setting = {
            "sharding": sharding, "data_parallel": 8, "checkpointing": "full", "sequence": 128,
            "precision": "bf16-fp32-master", "reduce_bucket": 100_000, "prefetch_bucket": 100_000,
            "reuse_distance": 0, "live_parameters": 20_000_000,
        }  # fmt: skip
        return estimated(LLAMA, setting).peak_bytes

    assert peak("none") > peak("zero1") > peak("zero2") > peak("zero3")


def test_pipeline_stages_differ_and_the_worst_is_named():
    setting = {"pipeline_parallel": 4, "micro_batches": 8, "sequence": 512}
    found = estimated(LLAMA, setting)
    assert [rank.device for rank in found.devices] == [f"stage {n} of 4" for n in (1, 2, 3, 4)]
    worst = max(found.devices, key=lambda rank: rank.peak_bytes)
    assert (found.worst, found.peak_bytes) == (worst.device, worst.peak_bytes)
    assert in_flight(TrainSetting(**setting), 0) == 4
    assert in_flight(TrainSetting(**setting), 3) == 1
    assert in_flight(TrainSetting(**setting | {"schedule": "gpipe"}), 3) == 8


@given(st.sampled_from(["gpipe", "1f1b", "interleaved"]), st.integers(2, 9), st.integers(1, 30), st.integers(0, 8))
def test_a_schedule_runs_every_micro_batch_once_each_way(schedule, stages, micro, rank):
    """Each chunk forward before backward, never fewer than none in flight, and the worst moments are among the turns."""
    assume(schedule != "interleaved" or micro % max(1, micro // stages) == 0)
    setting = TrainSetting(pipeline_parallel=stages, micro_batches=micro, schedule=schedule)
    ran = operations(setting, rank % stages)
    chunks = 2 if schedule == "interleaved" else 1
    for chunk in range(chunks):
        mine = [backward for backward, number in ran if number == chunk]
        assert mine.count(True) == mine.count(False) == micro
        assert all(mine[:n].count(True) <= mine[:n].count(False) for n in range(len(mine) + 1))
    flying = [sum(1 if not backward else -1 for backward, _ in ran[:n]) for n in range(len(ran))]
    assert max(sum(turn.waiting) + 1 for turn in turns(setting, rank % stages)) == max(flying)


def test_interleaved_passes_are_those_of_torch():
    """`ScheduleInterleaved1F1B` of torch 2.13: rank 0 of 2 with 4 micro-batches, forward (F) and backward (B)."""
    setting = TrainSetting(pipeline_parallel=2, micro_batches=4, schedule="interleaved")
    ran = " ".join(f"{'FB'[backward]}{chunk}" for backward, chunk in operations(setting, 0))
    assert ran == "F0 F0 F1 F1 F0 B1 F0 B1 F1 B0 F1 B0 B1 B1 B0 B0"


def test_tensor_and_sequence_parallel_save():
    whole = estimated(LLAMA, {"sequence": 2048}).peak_bytes
    split = estimated(LLAMA, {"sequence": 2048, "tensor_parallel": 4}).peak_bytes
    both = estimated(LLAMA, {"sequence": 2048, "tensor_parallel": 4, "sequence_parallel": True}).peak_bytes
    assert whole > split > both


def test_offload_moves_states_to_the_host():
    here = estimated(LLAMA, {"checkpointing": "full"}).devices[0]
    there = estimated(LLAMA, {"checkpointing": "full", "offload_optimizer": True}).devices[0]
    assert there.host_bytes > 0
    assert here.peak_bytes > there.peak_bytes


def test_a_rank_of_fsdp_agrees_with_the_simulated_one(grid, settings):
    """World of eight; the bar is 3 %, and it does better."""
    assert len(grid["sharded"]) >= 8
    for name, changes, peak in grid["sharded"]:
        setting = settings["bf16"] | {"sharding": "fsdp", "data_parallel": 8} | changes
        assert estimated(grid["configs"][name], setting).peak_bytes == pytest.approx(peak, rel=0.005), (name, changes)
