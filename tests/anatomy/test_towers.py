"""Encoders, encoder-decoders, vision, audio and image-text models: roles, mixers, kinds of layer, hostile input."""

import csv
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sizeup.errors import SizeupError
from sizeup.models.anatomy.defaults import filled
from sizeup.models.anatomy.registry import OTHER_FAMILIES, anatomy_of
from sizeup.models.config import Config
from sizeup.models.from_config import model_from_config
from sizeup.models.mixers import Attention
from sizeup.models.shards import shard
from sizeup.models.tensors import ROLES

TYPES = sorted(entry.partition(":")[0] for entries in OTHER_FAMILIES.values() for entry in entries.split())
HOSTILE = [-1, 0, 10**30, "x", "12", 3.5, float("nan"), [], [0], [[]], {}, {"a": 1}, True, None]
STACKS = {"text", "encoder", "decoder", "vision", "audio", "projector", "mtp"}


def default_of(model_type):
    """A model type's configuration with the defaults of its class; None where those alone make no model."""
    cfg = filled(Config({"model_type": model_type}), model_type, nested=True)
    try:
        anatomy_of(model_type)(cfg)
    except SizeupError:
        return None
    return cfg


DEFAULTS = {model_type: cfg for model_type in TYPES if (cfg := default_of(model_type))}


def build(model_type, **fields):
    return anatomy_of(model_type)(Config({"model_type": model_type, **fields}))


def tensors(anatomy):
    return [tensor for block in anatomy.blocks for tensor in block.tensors]


def mixers(anatomy, stack):
    return [mixer for block in anatomy.blocks if block.stack == stack for mixer in block.mixers]


def test_nearly_every_type_has_a_default():
    assert len(DEFAULTS) >= 0.9 * len(TYPES)


@pytest.mark.parametrize("model_type", sorted(DEFAULTS))
def test_every_name_once_and_every_role_known(model_type):
    anatomy = anatomy_of(model_type)(DEFAULTS[model_type])

    names = [name for block in anatomy.blocks for name, _ in block.expand()]
    assert len(names) == len(set(names))
    assert {tensor.role for tensor in tensors(anatomy)} <= set(ROLES)
    assert {block.stack for block in anatomy.blocks} <= STACKS
    assert all(tensor.tied_to in names for tensor in tensors(anatomy) if tensor.tied_to)


@pytest.mark.parametrize("model_type", sorted(DEFAULTS))
def test_towers_keep_their_role(model_type):
    for block in anatomy_of(model_type)(DEFAULTS[model_type]).blocks:
        if block.stack in {"vision", "audio", "projector"}:
            assert {tensor.role for tensor in block.tensors} <= {block.stack, "buffer"}


@pytest.mark.parametrize("model_type", sorted(DEFAULTS))
def test_active_is_at_most_the_whole(model_type):
    for block in anatomy_of(model_type)(DEFAULTS[model_type]).blocks:
        assert 0 <= block.active_parameters <= block.parameters


@pytest.mark.parametrize("model_type", sorted(DEFAULTS))
def test_shards_sum_to_the_whole(model_type):
    """Tensor parallelism over 2, 4 and 8 devices loses no parameter of a tower, an encoder or a decoder."""
    model = model_from_config(DEFAULTS[model_type])

    for devices in (2, 4, 8):
        assert shard(model, devices).whole == model.parameters


@pytest.mark.parametrize("model_type", sorted(DEFAULTS))
def test_blocks_are_kinds_of_layer(model_type):
    """A model with many layers is described in few blocks."""
    assert len(anatomy_of(model_type)(DEFAULTS[model_type]).blocks) <= 40


def test_t5_decoder_looks_back_and_across():
    anatomy = build("t5", d_model=8, d_kv=4, d_ff=16, num_layers=3, num_heads=2, vocab_size=32)

    assert {(m.causal, m.cross) for m in mixers(anatomy, "encoder")} == {(False, False)}
    assert {(m.causal, m.cross) for m in mixers(anatomy, "decoder")} == {(True, False), (False, True)}
    first, others = (block for block in anatomy.blocks if block.stack == "encoder" and block.layers)
    assert (first.layers, others.layers) == ((0,), (1, 2))
    bias = [t for t in first.tensors if t.part == "relative_bias"]
    assert [(t.role, t.shape) for t in bias] == [("attention", (32, 2))]


def test_t5_gated_feed_forward_and_note_on_the_head():
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 32}
    anatomy = build("t5", **sizes, feed_forward_proj="gated-gelu", tie_word_embeddings=False)

    assert any(name.endswith("wi_1.weight") for block in anatomy.blocks for name, _ in block.expand())
    assert "256 parameters" in anatomy.notes[0]


@pytest.mark.parametrize(
    ("model_type", "class_name", "expected"),
    [
        ("bert", "BertModel", 4 * 4 + 4),
        ("bert", "BertForMaskedLM", 4 * 4 + 4 + 2 * 4 + 10),
        ("bert", "BertForSequenceClassification", 4 * 4 + 4 + 2 * 4 + 2),
        ("roberta", "RobertaForSequenceClassification", 4 * 4 + 4 + 2 * 4 + 2),
        ("distilbert", "DistilBertForSequenceClassification", 4 * 4 + 4 + 2 * 4 + 2),
    ],
)
def test_heads_follow_the_class(model_type, class_name, expected):
    """Pooler or transform (4·4 + 4), a norm (2·4) and a bias for 10 words, or 2 labels."""
    named = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    named |= {"dim": 4, "n_layers": 1, "n_heads": 2, "hidden_dim": 8}
    anatomy = build(model_type, architectures=[class_name], vocab_size=10, max_position_embeddings=6, **named)

    output = [
        tensor
        for tensor in tensors(anatomy)
        if tensor.name.startswith(("cls", "pooler", "classifier", "bert.pooler", "pre_"))
    ]
    assert sum(tensor.parameters for tensor in output) == expected


def test_encoders_have_no_causal_attention_and_windows_are_said():
    anatomy = anatomy_of("modernbert")(DEFAULTS["modernbert"])

    windows = {mixer.window for mixer in mixers(anatomy, "encoder")}
    assert windows == {None, 128}
    assert not any(mixer.causal for mixer in mixers(anatomy, "encoder"))


def test_window_attention_of_a_tower():
    """Qwen2.5-VL: 112 pixels of 14 make windows of 8 by 8 patches; four layers see everything."""
    anatomy = anatomy_of("qwen2_5_vl")(DEFAULTS["qwen2_5_vl"])

    layers = {
        block.mixers[0].window: len(block.layers)
        for block in anatomy.blocks
        if block.stack == "vision" and block.layers
    }
    assert layers == {64: 28, None: 4}


def test_whisper_keeps_the_encoders_keys():
    anatomy = anatomy_of("whisper")(DEFAULTS["whisper"])

    crossing = [mixer for mixer in mixers(anatomy, "decoder") if isinstance(mixer, Attention) and mixer.cross]
    assert len(crossing) == 1
    assert crossing[0].kv_heads * crossing[0].head_dim == 384


def test_image_layers_of_llama_3_2_vision():
    anatomy = anatomy_of("mllama")(DEFAULTS["mllama"])

    crossed = [block for block in anatomy.blocks if block.stack == "text" and any(m.cross for m in block.mixers)]
    assert [block.layers for block in crossed] == [(3, 8, 13, 18, 23, 28, 33, 38)]


def test_flat_configuration_of_qwen2_vl():
    """Older files have the text's fields beside vision_config, newer ones nest them."""
    text = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 32,
    }
    vision = {"embed_dim": 4, "hidden_size": 8, "depth": 1, "num_heads": 2}

    flat = build("qwen2_vl", **text, vision_config=vision, tie_word_embeddings=True)
    nested = build(
        "qwen2_vl", text_config={"model_type": "qwen2_vl_text", **text}, vision_config=vision, tie_word_embeddings=True
    )

    assert flat.blocks == nested.blocks


def test_unknown_parts_are_named():
    with pytest.raises(SizeupError, match="dinosaur"):
        build("llava", vision_config={"model_type": "dinosaur", "hidden_size": 8}, text_config={"model_type": "llama"})
    with pytest.raises(SizeupError, match="parrot"):
        build("llava", text_config={"model_type": "parrot"})


def leaves(data, path=()):
    for name, value in data.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))


def changed(data, path, value):
    copy = dict(data)
    copy[path[0]] = changed(data[path[0]], path[1:], value) if len(path) > 1 else value
    return copy


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_hostile_fields_are_refused_or_survived(data):
    """Any field of any type, nested ones included, with any wrong value: an answer or a SizeupError."""
    model_type = data.draw(st.sampled_from(sorted(DEFAULTS)))
    fields = DEFAULTS[model_type].data
    path = data.draw(st.sampled_from(sorted(leaves(fields))))
    cfg = Config(changed(fields, path, data.draw(st.sampled_from(HOSTILE))))
    try:
        anatomy = anatomy_of(model_type)(cfg)
    except SizeupError:
        return
    assert all(block.parameters >= 0 for block in anatomy.blocks)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 5))
def test_a_layer_more_is_a_layer_more(layers, heads, factor):
    """BART and BERT grow by the same parameters with each layer."""
    hidden = 8 * heads * factor

    def total(depth):
        bert = build(
            "bert",
            hidden_size=hidden,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=hidden,
            vocab_size=9,
        )
        return sum(block.parameters for block in bert.blocks)

    assert total(layers + 1) - total(layers) == total(2) - total(1)


@pytest.mark.parametrize("model_type", TYPES)
def test_nothing_at_all_is_refused_or_described(model_type):
    try:
        anatomy = anatomy_of(model_type)(Config({}))
    except SizeupError:
        return
    assert sum(block.parameters for block in anatomy.blocks) > 0


def test_published_totals(truth_dir):
    """Every published configuration of these types: parameters as transformers counts them, or as published."""
    rows = list(csv.DictReader((truth_dir / "params.csv").open()))
    seen = 0
    for row in rows:
        expected = row["total_params"] or (row["model_type"] == "phi3_v" and row["published_params"])
        if row["model_type"] not in TYPES or not expected:
            continue
        config = json.loads((truth_dir / "configs" / f"{row['model_id'].replace('/', '--')}.json").read_text())
        anatomy = anatomy_of(row["model_type"])(Config(config))
        assert sum(block.parameters for block in anatomy.blocks if block.stack != "mtp") == int(expected), row[
            "model_id"
        ]
        seen += 1
    assert seen >= 50


GRID = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}
#: Parameters of published files, and the fields of their config.json that differ from the class's defaults.
PUBLISHED = {
    "google/gemma-3-4b-it": (
        4_300_079_472,
        {
            "model_type": "gemma3",
            "text_config": {
                "model_type": "gemma3_text",
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "num_hidden_layers": 34,
            },
            "vision_config": SIGLIP,
        },
    ),
    "meta-llama/Llama-3.2-11B-Vision-Instruct": (
        10_670_220_835,
        {
            "model_type": "mllama",
            "text_config": {"model_type": "mllama_text_model", "hidden_size": 4096, "num_hidden_layers": 40},
            "vision_config": {"model_type": "mllama_vision_model", "image_size": 560, "supported_aspect_ratios": GRID},
        },
    ),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": (
        31_070_754_032,
        {
            "model_type": "qwen3_vl_moe",
            "text_config": {
                "model_type": "qwen3_vl_moe_text",
                "head_dim": 128,
                "hidden_size": 2048,
                "moe_intermediate_size": 768,
                "num_attention_heads": 32,
                "num_experts": 128,
                "num_experts_per_tok": 8,
                "num_hidden_layers": 48,
                "num_key_value_heads": 4,
                "vocab_size": 151936,
            },
            "vision_config": {"depth": 27, "hidden_size": 1152, "out_hidden_size": 2048},
        },
    ),
    "nomic-ai/nomic-embed-text-v1.5": (
        136_731_648,
        {
            "model_type": "nomic_bert",
            "architectures": ["NomicBertModel"],
            "n_embd": 768,
            "n_head": 12,
            "n_inner": 3072,
            "n_layer": 12,
            "n_positions": 8192,
            "vocab_size": 30528,
            "type_vocab_size": 2,
        },
    ),
    "HuggingFaceTB/SmolVLM-256M-Instruct": (
        256_484_928,
        {
            "model_type": "idefics3",
            "scale_factor": 4,
            "text_config": {
                "model_type": "llama",
                "head_dim": 64,
                "hidden_size": 576,
                "intermediate_size": 1536,
                "num_attention_heads": 9,
                "num_hidden_layers": 30,
                "num_key_value_heads": 3,
                "vocab_size": 49280,
            },
            "vision_config": {"hidden_size": 768, "image_size": 512, "patch_size": 16, "num_attention_heads": 12},
        },
    ),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_models_to_the_last_parameter(name):
    expected, fields = PUBLISHED[name]

    anatomy = anatomy_of(fields["model_type"])(Config(fields))

    assert sum(block.parameters for block in anatomy.blocks) == expected
