"""What a configuration says beside its sizes: activation, class, prediction layers, parts that nobody has described."""

import pytest

from sizeup.errors import BadConfig
from sizeup.models.anatomy.registry import anatomy_of
from sizeup.models.config import Config
from sizeup.models.from_config import model_from_config

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}


def activation(config):
    blocks = anatomy_of(config["model_type"])(Config(config)).blocks
    return next(block.feed_forward.activation for block in blocks if block.feed_forward)


@pytest.mark.parametrize(
    ("named", "expected"),
    [("gelu_pytorch_tanh", "gelu_tanh"), ("relu2", "relu2"), ("swish", "silu"), ("something_new", "silu")],
)
def test_activation_is_read(named, expected):
    assert activation(LLAMA | {"hidden_act": named}) == expected


def test_older_gemma_means_the_approximation():
    gemma = LLAMA | {"model_type": "gemma", "hidden_act": "gelu", "num_key_value_heads": 1, "head_dim": 16}
    assert activation(gemma) == "gelu_tanh"


def test_activation_of_a_class_is_not_exchanged():
    """gpt-oss clamps its gate, whatever `hidden_act` says."""
    config = LLAMA | {"model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2, "hidden_act": "silu"}
    assert activation(config) == "swiglu_oai"


def test_classifiers_have_labels_in_place_of_a_vocabulary():
    whole = model_from_config(LLAMA | {"architectures": ["LlamaModel"]})
    reward = model_from_config(LLAMA | {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "good"}})
    tagger = model_from_config(LLAMA | {"architectures": ["LlamaForTokenClassification"], "num_labels": 5})

    assert reward.parameters == whole.parameters + 64
    assert tagger.parameters == whole.parameters + 5 * 64 + 5


def test_described_prediction_layers_have_no_note_of_being_unknown():
    deepseek = {"model_type": "deepseek_v3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4}
    deepseek |= {"num_attention_heads": 4, "vocab_size": 100, "num_nextn_predict_layers": 1}

    assert not [note for note in model_from_config(deepseek).notes if "aren't described" in note]
    assert [note for note in model_from_config(LLAMA | {"num_mtp_modules": 3}).notes if "(3) that aren't" in note]


def test_image_tokenizer_of_emu3_is_not_claimed():
    """A VQ model stands beside the text of Emu3ForConditionalGeneration: an estimate, marked as one."""
    model = model_from_config({"model_type": "emu3", "text_config": LLAMA, "vq_config": {"codebook_size": 10}})

    assert model.road == "generic"
    assert model.uncertainty > 0
    assert [note for note in model.notes if "only the text decoder is estimated" in note]


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (LLAMA | {"model_type": "deci"}, "num_key_value_heads_per_layer"),
        (LLAMA | {"model_type": "deci", "num_key_value_heads_per_layer": [2]}, "num_key_value_heads_per_layer"),
        ({"model_type": "openelm", "model_dim": 8, "head_dim": 4, "num_transformer_layers": 2}, "num_query_heads"),
        (LLAMA | {"model_type": "arctic", "moe_layer_frequency": 2}, "moe_layer_frequency"),
    ],
)
def test_lists_by_layer_and_versions_are_checked(config, field):
    with pytest.raises(BadConfig, match=field):
        model_from_config(config)


def test_relatives_with_other_parts_are_estimates():
    """DeepSeek-VL2 has DeepSeek-OCR's model type, MiniCPM-V 2 that of its successors, and neither its parts."""
    vl2 = {"model_type": "deepseek_vl_v2", "language_config": LLAMA, "projector_config": {"projector_type": "mlp"}}
    minicpm = LLAMA | {"model_type": "minicpmv", "version": 2.0, "vision_config": {}}

    assert model_from_config(vl2).road == "generic"
    assert model_from_config(minicpm).road == "generic"


def test_image_experts_of_ernie_are_not_active_for_words():
    config = {
        "model_type": "ernie4_5_vl_moe_text",
        "hidden_size": 64,
        "intermediate_size": 128,
        "moe_intermediate_size": [16, 8],
        "moe_num_experts": [4, 4],
        "moe_k": 2,
        "moe_num_shared_experts": 0,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 100,
        "use_bias": False,
    }
    model = model_from_config(config)
    words, images = 3 * 64 * 16, 3 * 64 * 8

    assert model.parameters - model.active_parameters == 2 * words + 4 * images
