"""Counts by role and component, active parameters, size classes, LoRA and shards."""

from __future__ import annotations

import pytest
import recorded
from hypothesis import given
from hypothesis import strategies as st

from sizeup.errors import BadInput
from sizeup.models.active import active_parameters
from sizeup.models.anatomy.registry import INDEX
from sizeup.models.count import by_component, by_role, size_class
from sizeup.models.from_config import model_from_config
from sizeup.models.load import load_model
from sizeup.models.lora import lora_parameters
from sizeup.models.shape import model_from_shape
from sizeup.models.shards import shard

DESCRIBED = [name for name in recorded.families() if name in INDEX]

#: Valid small shapes, dense and mixed.
SHAPES = st.builds(
    "layers={},embedding={},heads={},vocabulary={},ffn={}{}{}".format,
    st.integers(1, 5),
    st.sampled_from([64, 128, 192]),
    st.sampled_from([2, 4, 8]),
    st.integers(1, 500),
    st.integers(1, 300),
    st.sampled_from(["", ",experts=8,experts_per_token=2", ",experts=5,experts_per_token=5,shared_experts=2"]),
    st.sampled_from(["", ",tied=yes", ",gated=no,qkv_bias=yes", ",kv_heads=2"]),
)


@pytest.fixture(scope="module")
def deepseek(truth_dir):
    return load_model(truth_dir / "configs" / "deepseek-ai--DeepSeek-V3.json")


def test_deepseek_v3_by_component(deepseek):
    tree = by_component(deepseek)

    assert tree.value == deepseek.parameters == 671_026_404_352
    mixture = tree.find("58 × mixture layer")
    assert mixture.formula == "layers 3–60"
    assert mixture.find("routed experts").value == 58 * 256 * 3 * 2048 * 7168
    assert [term.formula for term in tree.parts if "3 × " in term.name] == ["layers 0–2"]


def test_deepseek_v3_is_active_with_37_billion(deepseek):
    """Its makers say 37B; without the embedding 36.6B, without the head too 35.7B."""
    active = active_parameters(deepseek)

    assert (active.all, active.multiplied, active.inner) == (37_552_282_624, 36_625_603_584, 35_698_924_544)
    assert active.text == active.all


def test_a_tied_table_is_multiplied_once():
    text = "layers=1,embedding=64,heads=4,vocabulary=100"
    tied, untied = (active_parameters(model_from_shape(text + end)) for end in (",tied=yes", ""))

    assert untied.all - tied.all == 6400
    assert tied.multiplied == untied.multiplied == tied.all
    assert tied.inner == untied.inner


@pytest.mark.parametrize("family", DESCRIBED)
def test_trees_sum_to_the_model(family):
    model = model_from_config(recorded.config(family))

    assert by_role(model).value == by_component(model).value == model.parameters
    assert by_role(model).unit == "parameters"


@given(SHAPES)
def test_sums_hold_for_any_shape(text):
    """Blocks sum to the total, active is at most the total, shards over 2, 4 and 8 devices sum to the whole."""
    model = model_from_shape(text)
    active = active_parameters(model)

    assert by_role(model).value == by_component(model).value == model.parameters
    assert active.inner <= active.multiplied <= max(active.all, active.multiplied)
    assert active.all <= model.parameters
    for ways in (1, 2, 4, 8):
        shards = shard(model, ways)
        assert len(shards.split) == ways
        assert shards.whole == model.parameters
        assert shards.largest >= model.parameters // ways


@pytest.mark.parametrize("family", DESCRIBED)
@pytest.mark.parametrize("ways", [2, 4, 8])
def test_shards_sum_to_the_whole(family, ways):
    model = model_from_config(recorded.config(family))

    assert shard(model, ways).whole == model.parameters


def test_even_shards_are_even():
    """Llama-2-7B over 8: everything but the norms is split."""
    shards = shard(model_from_shape("layers=32,embedding=4096,heads=32,vocabulary=32000"), 8)

    assert shards.replicated == 65 * 4096
    assert len(set(shards.split)) == 1
    assert shards.repeated == 0


def test_few_key_heads_are_repeated():
    """2 key heads over 8 devices: each is held by 4."""
    shards = shard(model_from_shape("layers=1,embedding=64,heads=8,kv_heads=2,vocabulary=64"), 8)

    assert shards.repeated == 3 * 2 * (2 * 8 * 64)


def test_impossible_shards_are_refused():
    with pytest.raises(BadInput, match="0 devices"):
        shard(model_from_shape("layers=1,embedding=64,heads=4,vocabulary=9"), 0)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        (99_999_999, "small"),
        (100_000_000, "medium"),
        (999_999_999, "medium"),
        (1_000_000_000, "large"),
        (10_000_000_000, "large"),
        (10_000_000_001, "extra large"),
    ],
)
def test_size_classes(parameters, name):
    assert size_class(parameters) == name


LLAMA = "layers=2,embedding=64,heads=8,kv_heads=2,vocabulary=100,ffn=96"


@pytest.mark.parametrize(
    "targets", [("q_proj", "v_proj"), "q_proj,v_proj", r".*\.(q|v)_proj", r"model\.layers\.\d+\.self_attn\.[qv]_proj"]
)
def test_lora_of_queries_and_values(targets):
    """Rank · (inputs + outputs) for each matrix, however the targets are written."""
    term = lora_parameters(model_from_shape(LLAMA), targets, 8)

    assert term.value == 2 * 8 * ((64 + 64) + (64 + 16))


def test_lora_of_all_linear_leaves_the_head_and_the_embedding():
    term = lora_parameters(model_from_shape(LLAMA), "all-linear", 4)

    assert term.value == 2 * 4 * (2 * 128 + 2 * 80 + 3 * 160)


def test_lora_of_one_layer():
    term = lora_parameters(model_from_shape(LLAMA), r".*\.1\.mlp\.down_proj", 4)

    assert term.value == 4 * 160


def test_lora_passes_over_merged_experts_unless_they_are_modules():
    model = model_from_shape(LLAMA + ",experts=4,expert_ffn=32")
    plain = lora_parameters(model, "all-linear", 4).value

    assert lora_parameters(model, "all-linear", 4, expert_modules=True).value - plain == 2 * 4 * 4 * 3 * 96


@pytest.mark.parametrize("targets", ["nothing_like_it", r"(", ("x",)])
def test_lora_targets_that_match_nothing_are_refused(targets):
    with pytest.raises(BadInput) as caught:
        lora_parameters(model_from_shape(LLAMA), targets, 4)

    assert caught.value.hint


def test_lora_rank_must_be_positive():
    with pytest.raises(BadInput, match="rank is 0"):
        lora_parameters(model_from_shape(LLAMA), rank=0)
