"""Hypothetical models typed by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizeup.errors import BadInput
from sizeup.models.load import load_model
from sizeup.models.shape import gated_width, model_from_shape


def test_the_shape_of_llama_2_7b_is_llama_2_7b():
    """Every default but the vocabulary's comes out as in the published model: 6,738,415,616 parameters."""
    model = model_from_shape("layers=32,embedding=4096,heads=32,vocabulary=32000")

    assert model.parameters == 6_738_415_616
    assert model.road == "shape"


def test_gated_width_is_llamas():
    assert [gated_width(width) for width in (4096, 5120, 6656, 8192)] == [11008, 13824, 17920, 22016]


def test_a_plain_feed_forward_is_four_times_as_wide():
    """12·L·d² and the vocabulary twice, with the norms."""
    model = model_from_shape("layers=12,embedding=512,heads=8,vocabulary=50000,gated=no")

    assert model.parameters == 12 * 12 * 512**2 + 2 * 50_000 * 512 + 25 * 512


def test_a_mixture_counts_active_parameters():
    text = "layers=2,embedding=64,heads=4,vocabulary=100,ffn=128,experts=8,experts_per_token=2,shared_experts=1"
    model = model_from_shape(text)
    expert = 3 * 64 * 128

    assert model.parameters - model.active_parameters == 2 * 6 * expert


def test_tied_heads_count_once():
    text = "layers=1,embedding=64,heads=4,vocabulary=100"

    assert model_from_shape(text).parameters - model_from_shape(f"{text},tied=yes").parameters == 6400


def test_what_is_assumed_is_said():
    notes = " ".join(model_from_shape("layers=1,embedding=64,heads=4,vocabulary=100,experts=4").notes)

    assert "ffn 256 assumed" in notes
    assert "experts_per_token 2 assumed" in notes


def test_load_model_takes_a_shape_either_way():
    text = "layers=1, embedding=64, heads=4, vocab=100, context=32k, window=1024, kv_heads=2"

    assert load_model(text) == load_model(shape=text)
    assert load_model(text).context == 32768


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("layers=2", "no embedding and no heads and no vocabulary"),
        ("layers=2,embedding=64,heads=5,vocabulary=9", "not a multiple of heads 5"),
        ("layers=2,embedding=64,heads=4,vocabulary=9,kv_heads=3", "not a multiple of kv_heads 3"),
        ("layers=2,embedding=64,heads=4,vocabulary=9,experts_per_token=2", "without experts"),
        ("layers=2,embedding=64,heads=4,vocabulary=9,experts=2,experts_per_token=3", "more than experts 2"),
        ("layers=2,embedding=64,heads=4,vocabulary=9,shared_experts=1", "without experts"),
        ("layers=2,embeding=64", "unknown entry"),
        ("layers=2,layers=3", "gives layers twice"),
        ("layers=two", "must be a whole number"),
        ("layers=0", "must be a whole number"),
        ("layers=-3", "must be a whole number"),
        ("layers=99999999999999999999999", "must be a whole number"),
        ("gated=perhaps", "must be yes or no"),
        ("layers", "unknown entry"),
        ("context=soon", "not a number of tokens"),
    ],
)
def test_contradictions_are_named(text, says):
    with pytest.raises(BadInput, match=says) as caught:
        model_from_shape(text)

    assert caught.value.hint


def test_a_model_and_a_shape_are_one_too_many():
    with pytest.raises(BadInput, match="a model and a shape"):
        load_model("llama", shape="layers=2")


@given(st.text(alphabet="layersembding=,0123456789 ", max_size=40))
def test_any_text_gets_a_model_or_a_clear_error(text):
    try:
        said = model_from_shape(text).name
    except BadInput as error:
        said = error.message

    assert said
