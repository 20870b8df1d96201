"""What holds for every text decoder, whatever its sizes."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sizeup.models.anatomy.defaults import filled
from sizeup.models.anatomy.registry import TEXT_FAMILIES, anatomy_of
from sizeup.models.config import Config
from sizeup.models.from_config import model_from_config
from sizeup.models.shards import shard
from sizeup.models.tensors import ROLES

TYPES = sorted(entry.partition(":")[0] for entries in TEXT_FAMILIES.values() for entry in entries.split())
#: Sizes of the classes that transformers doesn't have, and so no defaults are known of; emu3's text is nested.
PLAIN = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 100,
}
WITHOUT_DEFAULTS = {
    "chatglm": {"ffn_hidden_size": 128},
    "llada": {"d_model": 64, "n_heads": 4, "n_layers": 2},
    "hf_olmo": {"d_model": 64, "n_heads": 4, "n_layers": 2},
    "mamba_ssm": {"d_model": 64, "n_layer": 2},
    "arctic": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "phi3small": {"ff_intermediate_size": 128},
    "minimax_text_01": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "minimax_m1": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "deci": {"num_key_value_heads_per_layer": [4, 2]},
    "openelm": {
        "model_dim": 64,
        "head_dim": 16,
        "num_transformer_layers": 2,
        "num_query_heads": [4, 6],
        "num_kv_heads": [2, 3],
        "ffn_multipliers": [0.5, 4.0],
        "ffn_dim_divisor": 16,
    },
    "bailing_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_shared_experts": 1},
    "deepseek": {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 2},
    "nemotron-nas": {
        "block_configs": [
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 2.0}},
            {"attention": {"no_op": True}, "ffn": {"replace_with_linear": True}},
        ]
    },
}
WITHOUT_DEFAULTS["bailing_moe_v2"] = WITHOUT_DEFAULTS["bailing_moe"]
#: Lists with one entry for each layer go with the number of layers; without them the class's pattern applies.
BY_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "moe_layers", "no_rope_layers", "block_types")
#: Types whose layers are listed one by one.
LISTED = ("nemotron-nas", "deci", "openelm")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")


#: Whose class's defaults stand for those of a class that isn't in transformers.
RELATIVES = {"deepseek_ref": "deepseek_v4", "kimi_k2": "deepseek_v3", "minimax_m3": "minimax_m3_vl_text"}
GOLDEN = Path(__file__).parents[1] / "data" / "transformers.tsv"
#: What transformers' own defaults lack before a class can be built, by model type.
SETTINGS = {
    row[0].split("/")[1]: json.loads(row[-1])
    for row in (line.split("\t") for line in GOLDEN.read_text().splitlines() if not line.startswith("#"))
}


def complete(model_type):
    """A valid configuration of a family: the defaults of its class, or plain sizes."""
    source = RELATIVES.get(model_type, model_type)
    known = filled(Config({"model_type": source}), source, nested=True).data
    fields = dict(known) if len(known) > 2 else {"model_type": model_type} | PLAIN
    extra = SETTINGS.get(source, {}) | WITHOUT_DEFAULTS.get(model_type, {})
    return fields | extra | {"model_type": model_type}


@st.composite
def configurations(draw):
    """A valid small configuration of any family: a few sizes of a complete one replaced."""
    model_type = draw(st.sampled_from([name for name in TYPES if name not in LISTED]))
    fields = complete(model_type)
    for name in BY_LAYER:
        fields.pop(name, None)
    heads = draw(st.sampled_from((2, 4, 8)))
    sizes = {
        "hidden_size": heads * 8 * draw(st.integers(1, 6)),
        "num_hidden_layers": draw(st.integers(1, 9)),
        "vocab_size": draw(st.integers(8, 500)),
        "intermediate_size": 8 * draw(st.integers(1, 40)),
        "moe_intermediate_size": 8 * draw(st.integers(1, 20)),
        "num_key_value_heads": draw(st.sampled_from((1, 2))),
        "sliding_window": draw(st.sampled_from((None, 16))),
        "tie_word_embeddings": draw(st.booleans()),
        "attention_bias": draw(st.booleans()),
    } | dict.fromkeys(HEADS, heads)
    other = {"n_embd": "hidden_size", "d_model": "hidden_size", "n_layer": "num_hidden_layers"}
    other |= {"n_layers": "num_hidden_layers", "num_layers": "num_hidden_layers", "ffn_dim": "intermediate_size"}
    for name in fields:
        if other.get(name, name) in sizes:
            fields[name] = sizes[other.get(name, name)]
    return fields


@given(configurations())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_blocks_and_tensors(fields):
    """Blocks add up, names are unique, ties lead to stored tensors, shapes are whole, mixers keep something."""
    anatomy = anatomy_of(fields["model_type"])(Config(fields))
    tensors = [(name, tensor) for block in anatomy.blocks for name, tensor in block.expand()]
    names = {name for name, _ in tensors}
    held = {name for name, tensor in tensors if not tensor.tied_to}
    counted = (t for _, t in tensors if not t.tied_to and t.role not in {"buffer", "scale"})
    total = sum(math.prod(tensor.stored_shape) for tensor in counted)

    assert total == sum(block.parameters for block in anatomy.blocks)
    assert sum(block.active_parameters for block in anatomy.blocks) <= total
    assert len(names) == len(tensors)
    assert all(tensor.tied_to in held for _, tensor in tensors if tensor.tied_to)
    assert all(dimension > 0 for _, tensor in tensors for dimension in tensor.stored_shape)
    assert {tensor.role for _, tensor in tensors} <= set(ROLES)
    assert not [name for name in names if "{" in name]


@given(configurations())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_layers_are_numbered_once(fields):
    """The layers of the text stack are numbered without gaps, each once, and every one mixes or widens."""
    anatomy = anatomy_of(fields["model_type"])(Config(fields))
    layered = [block for block in anatomy.blocks if block.layers and block.stack == "text"]
    numbers = sorted(number for block in layered for number in block.layers)

    assert numbers == list(range(len(numbers)))
    assert all(block.mixers or block.feed_forward for block in layered)


@given(configurations(), st.sampled_from((2, 4, 8)))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_shards_sum_to_the_whole(fields, devices):
    """Tensor parallelism over 2, 4 or 8 devices loses no parameter."""
    model = model_from_config(fields)

    shards = shard(model, devices)

    assert shards.whole == model.parameters
    assert len(shards.split) == devices


@pytest.mark.parametrize("model_type", TYPES)
def test_every_family_names_its_mixers(model_type):
    """Every layer says what it remembers, unless it is only a feed-forward."""
    anatomy = anatomy_of(model_type)(Config(complete(model_type)))
    layered = [block for block in anatomy.blocks if block.layers and block.stack == "text"]

    assert any(block.mixers for block in layered)
