"""DDP, ZeRO and tensor parallelism: what each rank holds, whatever the sizes."""

import json
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from training_cases import LLAMA, estimated

import sizeup
from sizeup.errors import BadInput
from sizeup.estimate.training.zero import owner, share

ROOT = Path(__file__).parents[2]

STATIC = ("weights", "optimizer_states", "master_copies")


def held(setting, config=LLAMA):
    """Bytes that are there whatever the step does."""
    found = estimated(config, {"sequence": 64} | setting)
    return sum(found.component(name) for name in STATIC)


@given(st.integers(1, 10**12), st.integers(1, 4096))
def test_shares_make_the_whole(size, ways):
    """No byte is lost, and no rank but the last has less to spare than a share."""
    assert 0 <= share(size, ways) * ways - size < ways


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([1000, 1003, 32000]), st.sampled_from([512, 520, 1024]), st.sampled_from(["zero1", "zero2", "fsdp"])
)
def test_more_ranks_never_hold_more(vocabulary, hidden, sharding):
    """Also where a dimension doesn't divide."""
    config = LLAMA | {"vocab_size": vocabulary, "hidden_size": hidden, "num_attention_heads": 8}
    sizes = [held({"sharding": sharding, "data_parallel": ways}, config) for ways in (2, 3, 8, 15)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("axis", ["tensor_parallel", "pipeline_parallel"])
def test_more_splitting_never_holds_more(axis):
    sizes = [held({axis: ways}) for ways in (1, 2, 4)]
    assert sizes == sorted(sizes, reverse=True)


def test_copies_reduce_in_buckets():
    """Data parallel without sharding is DDP: a bucket for each gradient, unless gradients lie in the buckets."""
    alone = estimated(LLAMA, {"checkpointing": "full", "sequence": 64}).peak_bytes
    spread = {"checkpointing": "full", "sequence": 64, "data_parallel": 8}
    beside, inside = (estimated(LLAMA, spread | {"bucket_views": views}) for views in (False, True))
    weights = beside.component("weights")
    assert beside.peak_bytes - alone == pytest.approx(weights, rel=0.01)
    largest = 2 * LLAMA["vocab_size"] * LLAMA["hidden_size"]
    assert alone <= inside.peak_bytes <= alone + 1.1 * largest
    assert beside.component("communication") == pytest.approx(weights, rel=0.01)


def test_gathered_logits_cost_what_they_are():
    """transformers' plan makes the loss of whole logits on every rank; a split loss keeps its part."""
    setting = {"batch": 8, "sequence": 512, "tensor_parallel": 4}
    whole, split = (estimated(LLAMA, setting | {"loss_parallel": split}) for split in (False, True))
    logits = 8 * 512 * LLAMA["vocab_size"]
    assert whole.peak_bytes - split.peak_bytes == pytest.approx(12 * logits - 16 * logits / 4, rel=0.1)


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ({"sharding": "zero3", "data_parallel": 4, "offload_optimizer": "nvme"}, "DeepSpeed"),
        ({"context_parallel": 2}, "context_parallel"),
    ],
)
def test_what_was_never_simulated_has_an_interval(setting, word):
    report = sizeup.train(LLAMA, **setting)
    assert report.uncertainty > 0
    assert any(word in note for note in report.notes)


@pytest.mark.parametrize(
    "setting",
    [
        {"data_parallel": 8, "bucket_views": True},
        {"tensor_parallel": 2, "sequence_parallel": True},
        {"pipeline_parallel": 2, "micro_batches": 4},
        {"data_parallel": 8, "replicas": 2, "sharding": "fsdp"},
        {"data_parallel": 8, "sharding": "zero3"},
    ],
)
def test_what_was_simulated_has_none(setting):
    assert sizeup.train(LLAMA, **setting).uncertainty == 0


SHARDED = json.loads((ROOT / "tests" / "data" / "training_grid" / "sharded.json").read_text())


def small(grid, name):
    return grid["configs"][name]


def test_every_rank_of_a_pipeline_agrees_with_torch(grid):
    """Stages and schedules of torch itself ran on fake tensors: gpipe, 1f1b, interleaved; 2 and 4 stages."""
    assert len(SHARDED["pipelines"]) >= 20
    for name, changes, rank, peak in SHARDED["pipelines"]:
        found = estimated(small(grid, name), {"batch": 2, "sequence": 512} | changes)
        assert found.devices[rank].peak_bytes == pytest.approx(peak, rel=0.01), (name, changes, rank)


def test_a_rank_of_zero_agrees_with_deepspeed(grid):
    """DeepSpeed's own engine ran on fake tensors: stages 1 to 3, buckets, limits, offload; the host's bytes, too."""
    assert len(SHARDED["zero"]) >= 20
    for name, changes, _, found in SHARDED["zero"]:
        rank = estimated(small(grid, name), {"batch": 2, "sequence": 512, "data_parallel": 8} | changes).devices[0]
        assert -0.005 < rank.peak_bytes / found["peak_bytes"] - 1 < 0.03, (name, changes)
        assert rank.host_bytes == pytest.approx(found["host_bytes"], rel=0.001, abs=4096), (name, changes)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=60), st.integers(1, 64))
def test_the_fullest_rank_keeps_at_least_its_share(sizes, world):
    """Every gradient is kept by the ranks whose parts it touches, and none keeps more than all."""
    kept = owner(sizes, world)
    assert share(sum(sizes), world) * kept.rank == kept.start
    assert -(-sum(sizes) // world) <= kept.elements <= sum(sizes)
    assert kept.largest <= share(sum(sizes), world)


@given(
    st.sampled_from(["zero1", "zero2", "zero3"]), st.integers(2, 9), st.sampled_from(["fp32", "bf16"]),
)  # fmt: skip
@settings(deadline=None, max_examples=20)
def test_parts_of_zero_make_the_whole(stage, world, precision):
    """Masters and states of all ranks are those of all weights, in fp32, whatever the weights are in."""
    found = estimated(LLAMA, {"sharding": stage, "data_parallel": world, "precision": precision, "sequence": 64})
    weights = held({"precision": "fp32", "optimizer": "sgd"})
    assert weights <= world * found.component("master_copies") <= weights * 1.001
    assert 2 * weights <= world * found.component("optimizer_states") <= 2 * weights * 1.001


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from([1, 2]),
    st.sampled_from(["data_parallel", "tensor_parallel", "pipeline_parallel", "expert_parallel"]),
)  # fmt: skip
def test_products_never_hold_more_when_an_axis_grows(data, tensor, pipeline, expert, axis):
    """FSDP × tensor × pipeline × expert: twice the ranks of one axis, no more weights, states and masters on any.

    Experts that are dealt out aren't split, so that axis and tensor parallelism aren't compared.
    """
    experts = {"num_local_experts": 8, "num_experts_per_tok": 2, "model_type": "mixtral", "sliding_window": None}
    ways = {
        "data_parallel": data, "tensor_parallel": tensor, "pipeline_parallel": pipeline, "expert_parallel": expert,
    }  # fmt: skip
    more = ways | {axis: 2 * ways[axis]}
    assume(all(given["tensor_parallel"] == 1 or given["expert_parallel"] == 1 for given in (ways, more)))
    sizes = [
        held(given | {"sharding": "fsdp" if given["data_parallel"] > 1 else "none"}, LLAMA | experts)
        for given in (ways, more)
    ]
    assert sizes[1] <= sizes[0] * 1.001


def test_offload_to_nvme_moves_what_the_host_held():
    """ZeRO-Infinity: states, masters and their gradients on NVMe, buffers for them on the host."""
    spread = {"sharding": "zero3", "data_parallel": 8, "sequence": 64}
    there, disk = (
        estimated(LLAMA, spread | {"offload_optimizer": place, "offload_weights": place}).devices[0]
        for place in ("cpu", "nvme")
    )
    assert there.disk_bytes == 0 < disk.disk_bytes
    assert there.peak_bytes == disk.peak_bytes
    elements = held({"precision": "fp32", "optimizer": "sgd"}) // 4
    assert disk.disk_bytes == pytest.approx(16 * elements / 8, rel=0.01)
    assert disk.host_bytes > 5 * 2 * 10**8


@pytest.mark.parametrize(
    "setting",
    [
        {"offload_optimizer": "nvme", "sharding": "zero2", "data_parallel": 2},
        {"offload_weights": "cpu", "sharding": "zero1", "data_parallel": 2},
        {"offload_optimizer": "tape"},
        {"replicas": 3, "data_parallel": 8, "sharding": "fsdp"},
        {"replicas": 2, "data_parallel": 8, "sharding": "zero3"},
        {"schedule": "interleaved", "pipeline_parallel": 8, "micro_batches": 8},
        {"schedule": "interleaved", "pipeline_parallel": 2, "micro_batches": 5},
    ],
)
def test_what_no_library_does_is_refused(setting):
    with pytest.raises(BadInput):
        estimated(LLAMA, setting)
