"""Quantized files: what packed tensors stand for, and the way there and back through the schemes."""

from __future__ import annotations

import pytest
import recorded

from sizeup.formats import lookup
from sizeup.formats.checkpoint_configs import scheme_from_config
from sizeup.models.from_config import model_from_config
from sizeup.models.from_safetensors import model_from_safetensors
from sizeup.models.packed import PackingHints, unpack
from sizeup.models.quantized import kind_of
from sizeup.models.sources.header import Header, StoredTensor
from sizeup.models.stored import stored_bytes

SECTIONS = {
    "fp8": {"quant_method": "fp8", "weight_block_size": [32, 32]},
    "fp8 per tensor": {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "static"},
    "fp8 with exceptions": {"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "model.layers.1.mlp"]},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 32},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 32},
    "gptq 8 bit": {"quant_method": "gptq", "bits": 8, "group_size": -1},
    "bitsandbytes nf4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "bitsandbytes nf4, double": {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
    "bitsandbytes int8": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]},
    "compressed-tensors w4a16": {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True},
            }
        },
    },
    "compressed-tensors fp8": {
        "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}
        },
    },
    "mlx": {"bits": 4, "group_size": 32},
}  # fmt: skip


def on_disk(config):
    """The header that a scheme's writer would make for a configuration's checkpoint."""
    scheme = scheme_from_config(config)
    plain = model_from_config({key: value for key, value in config.items() if not key.startswith("quantization")})
    stored = []
    for name, tensor in plain.expand():
        if not tensor.tied_to:
            stored += scheme.stored(name, tensor.stored_shape, kind=kind_of(tensor))
    tensors = tuple(StoredTensor(part.name, part.dtype, part.shape, 0, part.bytes) for part in stored)
    total = sum(tensor.nbytes for tensor in tensors)
    return Header("safetensors", tensors, {}, (), total, total)


def quantized(family, method):
    section = SECTIONS[method]
    key = "quantization" if method == "mlx" else "quantization_config"
    config = recorded.config(family) | {key: section, "num_nextn_predict_layers": 0}
    return config | ({"n_shared_experts": 1} if family == "deepseek_v3" else {})


@pytest.mark.parametrize("method", SECTIONS)
@pytest.mark.parametrize("family", ["llama", "deepseek_v3"])
def test_a_quantized_file_is_the_same_model(family, method):
    """Parameters as unquantized, bytes to the byte, scales beside their weights; on both roads."""
    config = quantized(family, method)
    header = on_disk(config)
    plain = model_from_config({key: value for key, value in config.items() if not key.startswith("quantization")})
    described = model_from_config(config)
    stored = model_from_safetensors(header, config)

    assert stored.parameters == described.parameters == plain.parameters
    assert stored.active_parameters == described.active_parameters == plain.active_parameters
    assert stored_bytes(stored).value == header.data_bytes
    assert stored_bytes(described).value == header.data_bytes
    assert stored.scheme == described.scheme


@pytest.mark.parametrize("method", [m for m in SECTIONS if not m.startswith("bitsandbytes nf4")])
def test_shapes_come_back_without_a_configuration(method):
    """Logical shapes follow from the packed ones; bitsandbytes keeps them in values, which aren't read."""
    config = quantized("llama", method)
    expected = {
        name: tensor.shape
        for name, tensor in model_from_config(config).expand()
        if not tensor.tied_to and tensor.role != "scale"
    }
    hints = PackingHints(group=32)
    found = {item.name: item.shape for item in unpack(on_disk(config).tensors, hints) if not item.side}

    assert found == expected


@pytest.mark.parametrize("method", SECTIONS)
def test_no_byte_is_lost_without_a_configuration(method):
    header = on_disk(quantized("llama", method))

    assert stored_bytes(model_from_safetensors(header)).value == header.data_bytes


def test_gpt_oss_blocks_and_scales():
    """MXFP4 of gpt-oss: two values in a byte, blocks of 32 with one scale."""
    tensors = (
        StoredTensor("e.gate_up_proj_blocks", "U8", (4, 64, 3, 16), 0, 4 * 64 * 48),
        StoredTensor("e.gate_up_proj_scales", "U8", (4, 64, 3), 0, 4 * 64 * 3),
    )
    weight, scales = unpack(tensors)

    assert (weight.name, weight.shape, weight.stored) == ("e.gate_up_proj", (4, 64, 96), "F4")
    assert scales.side


def test_scales_of_nothing_are_tensors_like_others():
    """A name that ends like a scale beside no weight isn't one."""
    (alone,) = unpack([StoredTensor("vision.scale", "F32", (3,), 0, 12)])

    assert not alone.side


def test_padding_is_accounted_for():
    """Words that hold more bits than the weights need leave bytes over, which are listed."""
    tensors = (
        StoredTensor("m.qweight", "I32", (5, 8), 0, 160),
        StoredTensor("m.qzeros", "I32", (1, 1), 0, 4),
        StoredTensor("m.scales", "F16", (1, 8), 0, 16),
    )
    items = unpack(tensors)

    assert sum(lookup(item.stored).bytes_of(item.shape) for item in items) == 180
