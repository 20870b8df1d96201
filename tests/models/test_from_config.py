"""From configurations to models: types, storage formats, quantization, and what isn't known."""

from __future__ import annotations

import csv
import time

import pytest
import recorded
from hypothesis import given, settings
from hypothesis import strategies as st

from sizeup.errors import BadConfig, NotFound, SizeupError
from sizeup.models.anatomy.registry import INDEX
from sizeup.models.config import read_config
from sizeup.models.from_config import model_from_config
from sizeup.models.generic import UNCERTAIN_FEED_FORWARD, UNCERTAINTY, generic_anatomy, uncertainty_of
from sizeup.models.load import load_model
from sizeup.models.model_type import nearest_types
from sizeup.models.stored import stored_bytes

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100,
    "intermediate_size": 128,
}  # fmt: skip


def test_the_dtype_is_the_configurations():
    assert model_from_config(LLAMA | {"torch_dtype": "float16"}).dtype == "f16"
    assert model_from_config(LLAMA | {"dtype": "float32", "torch_dtype": "float16"}).dtype == "f32"


def test_an_assumed_dtype_is_said():
    model = model_from_config(LLAMA)

    assert model.dtype == "bf16"
    assert any("assumed" in note for note in model.notes)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(BadConfig, match="torch_dtype"):
        model_from_config(LLAMA | {"torch_dtype": "float7"})


def test_the_type_is_told_from_the_class():
    config = {key: value for key, value in LLAMA.items() if key != "model_type"}

    assert model_from_config(config | {"architectures": ["LlamaForCausalLM"]}).family == "llama"


def test_a_configuration_without_a_type_is_refused():
    with pytest.raises(BadConfig, match="neither model_type nor architectures"):
        model_from_config({"hidden_size": 1})


def test_an_unknown_type_is_a_marked_estimate():
    model = model_from_config(LLAMA | {"model_type": "llama9"})

    assert model.road == "generic"
    assert model.uncertainty == UNCERTAIN_FEED_FORWARD
    assert model_from_config(LLAMA | {"model_type": "llama9", "hidden_act": "silu"}).uncertainty == UNCERTAINTY
    assert model.parameters == model_from_config(LLAMA | {"tie_word_embeddings": True}).parameters
    assert "llama9" in model.notes[0]
    assert "nearest known: llama" in model.notes[0]


def test_an_unknown_type_without_sizes_is_refused_with_the_nearest():
    with pytest.raises(NotFound, match=r"qwen9.*qwen3") as caught:
        model_from_config({"model_type": "qwen9"})

    assert "transformers" in caught.value.hint


def test_only_the_text_of_an_unknown_multimodal_model_is_estimated():
    model = model_from_config({"model_type": "eyes9", "text_config": LLAMA})

    assert model.parameters == model_from_config(LLAMA | {"tie_word_embeddings": True}).parameters
    assert any("towers" in note for note in model.notes)


def test_nearest_types_are_of_the_same_family():
    assert nearest_types("deepseek_v9")[0].startswith("deepseek")
    assert nearest_types("QWEN3")[0] == "qwen3"


@pytest.mark.parametrize("family", [name for name in recorded.families() if name in INDEX])
def test_blocks_sum_to_the_checkpoint(family):
    """The anatomy's parameters are the stored elements less buffers."""
    model = model_from_config(recorded.config(family))
    stored = {tensor.name: tensor.shape for tensor in recorded.header(family, "safetensors").tensors}
    built = [block for block in model.blocks if block.stack != "mtp"]
    expected = {name: t.stored_shape for block in built for name, t in block.expand() if not t.tied_to}

    assert expected == stored


def test_fp8_block_scales_lie_beside_their_weights():
    """DeepSeek-V3's 128 × 128 block scales: one for every tile of every linear layer, embedding and head plain."""
    quantized = LLAMA | {"quantization_config": {"quant_method": "fp8", "weight_block_size": [32, 32]}}
    plain, packed = model_from_config(LLAMA), model_from_config(quantized)
    scales = {t.name: t.shape for _, t in packed.expand() if t.role == "scale"}

    assert packed.parameters == plain.parameters
    assert packed.scheme == "fp8-block32"
    assert scales["model.layers.{layer}.mlp.gate_proj.weight_scale_inv"] == (4, 2)
    linear = 2 * (4 * 64 * 64 + 3 * 64 * 128)
    expected = 2 * plain.parameters - linear + 4 * linear // 1024
    assert stored_bytes(packed).value == expected


def test_a_layer_that_stays_splits_its_kind():
    """`modules_to_not_convert` leaves layer 0 alone: two kinds of layer, the same parameters."""
    section = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0", "lm_head"]}
    model = model_from_config(LLAMA | {"quantization_config": section})
    layers = [block for block in model.blocks if block.layers]

    assert [block.layers for block in layers] == [(0,), (1,)]
    assert {tensor.stored for tensor in layers[0].tensors} == {None}
    assert model.parameters == model_from_config(LLAMA).parameters


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_weights_take_their_bits(bits):
    section = {"quant_method": "gptq", "bits": bits, "group_size": 32}
    model = model_from_config(LLAMA | {"quantization_config": section})
    gate = next(t for _, t in model.expand() if t.name.endswith("gate_proj.weight"))

    assert gate.shape == (128, 64)
    assert gate.stored == f"I{bits}"
    assert model.parameters == model_from_config(LLAMA).parameters


def test_the_roads_are_quick(truth_dir):
    """DeepSeek-V3 in at most 30 ms, once its module is imported."""
    cfg = read_config(truth_dir / "configs" / "deepseek-ai--DeepSeek-V3.json")
    model_from_config(cfg)
    started = time.perf_counter()
    model = model_from_config(cfg)

    assert time.perf_counter() - started <= 0.030
    assert model.parameters == 671_026_404_352


def exact_rows(truth_dir):
    with (truth_dir / "params.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["total_params"] and row["model_type"] in INDEX]


def test_totals_equal_those_of_transformers(truth_dir):
    """Every configuration whose family has an anatomy, to the last parameter."""
    wrong = []
    for row in exact_rows(truth_dir):
        model = load_model(truth_dir / "configs" / f"{row['model_id'].replace('/', '--')}.json")
        if row["error"] == "" and model.parameters != int(row["total_params"]):
            wrong.append((row["model_id"], model.parameters - int(row["total_params"])))

    assert wrong == []


def test_generic_estimates_keep_their_promise(truth_dir):
    """Nine of ten configurations whose family is known would be estimated within the stated uncertainty."""
    kept = []
    for row in exact_rows(truth_dir):
        cfg = read_config(truth_dir / "configs" / f"{row['model_id'].replace('/', '--')}.json")
        if (anatomy := generic_anatomy(cfg)) is not None:
            error = abs(sum(b.parameters for b in anatomy.blocks) / int(row["total_params"]) - 1)
            kept.append(error <= uncertainty_of(cfg))

    assert len(kept) >= 150
    assert sum(kept) >= 0.9 * len(kept)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["llama", "gemma2", "deepseek_v3", "never_heard_of"]), st.data())
def test_hostile_configurations_get_clear_errors(model_type, data):
    """Whatever a field holds: a model, or a SizeupError with a message."""
    base = LLAMA | {"model_type": model_type}
    field = data.draw(st.sampled_from([*base, "head_dim", "num_key_value_heads", "quantization_config", "layer_types"]))
    try:
        said = model_from_config(base | {field: data.draw(VALUES)}).notes
    except SizeupError as error:
        said = error.message

    assert said is not None
