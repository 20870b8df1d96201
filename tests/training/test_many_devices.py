"""DDP, ZeRO and tensor parallelism: what each rank holds, whatever the sizes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_cases import LLAMA, estimated

import sizeup
from sizeup.estimate.training.zero import share

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
        ({"tensor_parallel": 2, "sequence_parallel": True}, "sequence_parallel"),
    ],
)
def test_what_was_never_simulated_has_an_interval(setting, word):
    report = sizeup.train(LLAMA, **setting)
    assert report.uncertainty > 0
    assert any(word in note for note in report.notes)


def test_what_was_simulated_has_none():
    assert sizeup.train(LLAMA, data_parallel=8, bucket_views=True).uncertainty == 0
