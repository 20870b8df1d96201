"""Configurations that lack fields or hold impossible values give an error of sizeup's own, quickly, and nothing else."""

import math

import pytest

from sizeup.errors import BadConfig, SizeupError
from sizeup.models.anatomy.defaults import CORE, filled
from sizeup.models.anatomy.registry import TEXT_FAMILIES, anatomy_of, known_types, nested_anatomy
from sizeup.models.config import Config

BAD = (-1, 0, 1.5, math.nan, math.inf, "x", "", [], [None], [0], ["x"], [[]], {}, {"a": 1}, True, 10**30, None, 3)
TEXT_TYPES = sorted(entry.partition(":")[0] for entries in TEXT_FAMILIES.values() for entry in entries.split())


def complete(model_type):
    """A configuration with every default of its class, core sizes included."""
    return filled(Config({"model_type": model_type}), model_type, nested=True).data


@pytest.mark.parametrize("model_type", known_types())
def test_impossible_values(model_type):
    """Each field in turn gets each value, in rotation; what is still possible must still add up."""
    describe = anatomy_of(model_type)
    fields = complete(model_type)

    for place, field in enumerate(fields):
        for shift in range(6):
            broken = fields | {field: BAD[(place + 3 * shift) % len(BAD)]}
            try:
                blocks = describe(Config(broken)).blocks
            except SizeupError:
                continue
            assert all(0 <= block.active_parameters <= block.parameters for block in blocks)


@pytest.mark.parametrize("model_type", TEXT_TYPES)
def test_core_sizes_are_never_assumed(model_type):
    """A model's own configuration without its hidden size, layers or vocabulary isn't read as the class's default."""
    fields = complete(model_type)
    core = [name for name in fields if name in CORE]

    for name in core:
        lacking = {key: value for key, value in fields.items() if key != name}
        try:
            same = anatomy_of(model_type)(Config(lacking))
        except BadConfig:
            continue
        assert same == anatomy_of(model_type)(Config(fields)), f"{name} was replaced by something else"


def test_lacking_hidden_size_names_the_field_and_the_file():
    given = {"num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 9, "intermediate_size": 8}
    cfg = Config({"model_type": "llama"} | given, "a.json")

    with pytest.raises(BadConfig, match=r"a\.json has no hidden_size"):
        anatomy_of("llama")(cfg)


def test_nested_configurations_may_take_all_defaults():
    """As transformers reads gemma-3's text_config, which leaves out the number of heads."""
    text = nested_anatomy(Config({"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34}), "model")

    assert text.vocabulary == 262_208
    assert text.blocks[1].mixers[0].heads == 8


def test_explicit_null_beats_a_default():
    """Mistral's class has a window of 4,096; a configuration with null has none."""
    sizes = {
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": 9,
        "intermediate_size": 8,
    }

    default = anatomy_of("mistral")(Config({"model_type": "mistral"} | sizes))
    without = anatomy_of("mistral")(Config({"model_type": "mistral", "sliding_window": None} | sizes))

    assert default.blocks[1].mixers[0].window == 4096
    assert without.blocks[1].mixers[0].window is None


def test_older_names_beat_a_default():
    """GPT-2's `n_embd` is the size, whichever name the class's default has."""
    old = {"model_type": "gpt2", "n_embd": 96, "n_layer": 1, "n_head": 4, "n_positions": 10, "vocab_size": 7}
    new = {
        "model_type": "gpt2",
        "hidden_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "max_position_embeddings": 10,
        "vocab_size": 7,
    }

    assert anatomy_of("gpt2")(Config(old)) == anatomy_of("gpt2")(Config(new))
