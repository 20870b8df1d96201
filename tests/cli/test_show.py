"""`sizeup show` and what it says beside the count."""

import json
import struct

import pytest

import sizeup


def write_safetensors(path, tensors):
    """A checkpoint without values: the header, and a file of the right size."""
    header, offset = {}, 0
    for name, shape in tensors.items():
        size = 2
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + offset)


@pytest.fixture
def checkpoint(tmp_path):
    """A tiny qwen3 folder as its makers would publish it."""
    config = {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128, "vocab_size": 256,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "max_position_embeddings": 1024,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = {"model.embed_tokens.weight": (256, 64), "model.norm.weight": (64,), "lm_head.weight": (256, 64)}
    for layer in range(2):
        block = f"model.layers.{layer}"
        tensors |= {
            f"{block}.self_attn.q_proj.weight": (64, 64), f"{block}.self_attn.k_proj.weight": (32, 64),
            f"{block}.self_attn.v_proj.weight": (32, 64), f"{block}.self_attn.o_proj.weight": (64, 64),
            f"{block}.self_attn.q_norm.weight": (16,), f"{block}.self_attn.k_norm.weight": (16,),
            f"{block}.mlp.gate_proj.weight": (128, 64), f"{block}.mlp.up_proj.weight": (128, 64),
            f"{block}.mlp.down_proj.weight": (64, 128), f"{block}.input_layernorm.weight": (64,),
            f"{block}.post_attention_layernorm.weight": (64,),
        }  # fmt: skip
    return tmp_path, tensors


def test_headers_are_the_first_road(checkpoint):
    """A folder with safetensors is counted from its headers."""
    folder, tensors = checkpoint
    write_safetensors(folder / "model.safetensors", tensors)
    shown = sizeup.show(str(folder))

    assert shown.road == "safetensors header"
    assert shown.parameters.total == 2 * 256 * 64 + 64 + 2 * (2 * 64 * 64 + 2 * 32 * 64 + 32 + 3 * 128 * 64 + 128)


def test_a_checkpoint_as_the_anatomy_says(checkpoint):
    """Names and shapes agree: exact, exit code 0."""
    folder, tensors = checkpoint
    write_safetensors(folder / "model.safetensors", tensors)
    shown = sizeup.show(verify=str(folder))

    assert shown.verification.exact
    assert shown.exit_code == 0


def test_a_checkpoint_that_differs(checkpoint):
    """A missing, an extra and a reshaped tensor are named; the answer is no."""
    folder, tensors = checkpoint
    del tensors["model.layers.1.self_attn.q_norm.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = (120, 64)
    tensors["surprise.weight"] = (3, 3)
    write_safetensors(folder / "model.safetensors", tensors)
    shown = sizeup.show(verify=str(folder))

    assert [d.name for d in shown.verification.missing] == ["model.layers.{layer}.self_attn.q_norm.weight"]
    assert [d.name for d in shown.verification.extra] == ["surprise.weight"]
    assert [d.found for d in shown.verification.reshaped] == [(120, 64)]
    assert shown.exit_code == 3


def test_hub_totals_are_explained():
    """DeepSeek-V3's page counts multi-token prediction and block scales; Qwen3-0.6B's counts the head twice."""
    deepseek, qwen = sizeup.show("deepseek-ai/DeepSeek-V3"), sizeup.show("Qwen/Qwen3-0.6B")

    assert deepseek.hub.published == deepseek.hub.lines.value == 684531386000
    assert deepseek.hub.lines.find("quantization scales").value == 41540496
    assert qwen.hub.lines.value == 751632384


def test_active_parameters_have_a_definition():
    """Qwen3-30B-A3B: with and without what is looked up."""
    definitions = sizeup.show("Qwen/Qwen3-30B-A3B").parameters.definitions

    assert definitions.inner < definitions.multiplied < definitions.all


def test_adapters():
    """rank · (in + out) for each target and layer."""
    shown = sizeup.show("Qwen/Qwen3-8B", lora="q_proj,v_proj", rank=8)

    assert shown.lora.value == 36 * 8 * ((4096 + 4096) + (4096 + 1024))


def test_weights_of_every_format_shrink_with_its_bits():
    """From fp32 down to Q2_K, and bf16 is two bytes a parameter."""
    shown = sizeup.show("Qwen/Qwen3-8B")

    assert shown.bytes["bf16"] == 2 * shown.parameters.total
    assert list(shown.bytes.values()) == sorted(shown.bytes.values(), reverse=True)
