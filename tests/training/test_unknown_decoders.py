"""A decoder whose modules haven't been read: every part at its dearest, so hardly ever under, and said to be a guess."""

import statistics

import pytest

from sizeup.errors import NotFound
from sizeup.estimate.training.estimate import training_footprint
from sizeup.estimate.training.families.unknown import unknown
from sizeup.estimate.training.models import _completed, subject_of
from sizeup.estimate.training.settings import TrainSetting
from sizeup.models.anatomy.defaults import filled
from sizeup.models.config import Config

#: A frozen first layer keeps nothing in the guess: a third of these models' delta rules, which are most of their step.
KEPT_FROM_THE_FIRST_LAYER = {"kimi_linear", "bailing_hybrid"}
#: Their attention is written in Python (which no configuration says), every expert computes every token, or a width is
#: given that their modules don't use, or no number of layers or heads, or layers share keys and have embeddings of their own.
OTHERWISE = {
    "gemma4_text",
    "gemma4 experts",
    "gpt_oss",
    "gpt_neo",
    "xglm",
    "llama4_text",
    "mixtral",
    "t5",
    "nemotron_h",
    "rwkv",
    *KEPT_FROM_THE_FIRST_LAYER,
}
ENCODERS = {"bert", "roberta", "electra", "distilbert"}
LABELS = {"bf16", "autocast checkpointed", "lora", "fp32"}


def guessed(config, setting):
    cfg = filled(Config(config, "the configuration"), config["model_type"])
    made = TrainSetting(**(setting | {"lora_targets": ()}))
    return training_footprint(_completed(cfg, unknown(cfg)), made).peak_bytes


def test_the_guess_is_hardly_ever_under(grid, settings):
    """Against families that have programs of their own, as if they had none."""
    errors = [
        guessed(grid["configs"][name], settings[label]) / peak - 1
        for name, label, peak in grid["rows"]
        if label in LABELS and name not in OTHERWISE | ENCODERS
    ]
    assert len(errors) > 100
    assert min(errors) > -0.06
    assert sum(error < -0.02 for error in errors) <= 0.02 * len(errors)
    assert 0 < statistics.median(errors) < 0.3


def test_all_weights_count_though_their_parts_are_not_known(grid):
    """What the model's own description has more is there."""
    config = grid["configs"]["qwen3"] | {"model_type": "unheard_of"}
    found = subject_of(config)
    assert found.uncertainty > 0
    assert "dearest" in found.notes[0]


def test_a_width_for_each_layer_is_no_error():
    config = {
        "model_type": "unheard_of", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": [128, 256], "vocab_size": 100,
    }  # fmt: skip
    shape = unknown(Config(config, "the configuration"))
    assert shape.ffn == 256


def test_no_decoder_is_refused():
    with pytest.raises(NotFound) as error:
        subject_of({"model_type": "unheard_of", "hidden_size": 64})
    assert error.value.hint


def test_several_residual_streams_are_named_and_widen_the_range():
    sizes = {
        "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 1376,
        "vocab_size": 4096, "max_position_embeddings": 2048,
    }  # fmt: skip
    found = subject_of({"model_type": "unheard_of", "hc_mult": 4} | sizes)
    assert found.uncertainty == 0.6
    assert "its 4 residual streams are counted as one: more likely under than over" in found.notes
