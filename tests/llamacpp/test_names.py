"""Names, shapes and order of GGUF tensors are those that the official converter writes."""

import gguf
import pytest
from golden import NAMES, model

from sizeup.engines.llamacpp.architectures import architecture_of
from sizeup.engines.llamacpp.names import gguf_tensors
from sizeup.engines.llamacpp.weights import file_bytes
from sizeup.models.from_config import model_from_config

#: Matrices that the converter cuts in pieces with names of their own.
SPLIT = {"kv_b_proj", "in_proj_qkvz", "gate_up_proj", "in_proj_ba"}
OFFICIAL = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_official(name):
    """Each tensor is one that the gguf package lists for the architecture, once."""
    m = model(name)
    if architecture_of(m) not in OFFICIAL:
        pytest.skip(f"the gguf package here doesn't know {architecture_of(m)} yet")
    known = {gguf.TENSOR_NAMES[t] for t in gguf.MODEL_TENSORS[OFFICIAL[architecture_of(m)]]}
    written = gguf_tensors(m)

    assert len({t.name for t in written}) == len(written)
    for tensor in written:
        stem = tensor.name.removesuffix(".weight").removesuffix(".bias")
        assert stem.replace(f"blk.{tensor.layer}.", "blk.{bid}.") in known


@pytest.mark.parametrize("name", NAMES)
def test_names_are_the_converters(name):
    """What the official table says of a checkpoint's name, the rules by role say too."""
    m = model(name)
    if architecture_of(m) not in OFFICIAL:
        pytest.skip(f"the gguf package here doesn't know {architecture_of(m)} yet")
    table = gguf.get_tensor_name_map(OFFICIAL[architecture_of(m)], 200)
    mine = {t.name for t in gguf_tensors(m)}
    checked = 0
    for block in m.blocks:
        if block.stack not in {"text", "encoder", "decoder"}:
            continue
        for tensor in block.tensors:
            own = tensor.name.replace("{layer}", str(block.layers[0]) if block.layers else "").replace(".{copy}", "")
            own = own.replace("language_model.", "")
            found = table.get_name(own, try_suffixes=(".weight", ".bias"))
            if found and not tensor.tied_to and tensor.role != "buffer" and not SPLIT & set(own.split(".")):
                checked += 1
                assert found in mine or f"{found}.weight" in mine, (own, found)
    assert checked


def test_experts_are_merged_and_in_three_dimensions():
    """One tensor for all experts of a layer: experts × rows × columns."""
    shapes = {t.name: t.shape for t in gguf_tensors(model("Qwen3-30B-A3B"))}

    assert shapes["blk.0.ffn_gate_exps.weight"] == (128, 768, 2048)
    assert shapes["blk.0.ffn_down_exps.weight"] == (128, 2048, 768)
    assert shapes["blk.47.ffn_gate_inp.weight"] == (128, 2048)


def test_latent_attention_is_split_into_keys_and_values():
    """kv_b_proj becomes k_b, transposed for each head, and v_b."""
    shapes = {t.name: t.shape for t in gguf_tensors(model("DeepSeek-V2"))}

    assert shapes["blk.0.attn_k_b.weight"] == (128, 512, 128)
    assert shapes["blk.0.attn_v_b.weight"] == (128, 128, 512)
    assert "blk.0.attn_kv_b.weight" not in shapes


@pytest.mark.parametrize(("name", "tied"), [("gemma-3-1b", True), ("Llama-3.1-8B", False)])
def test_a_tied_head_is_not_written_twice(name, tied):
    """The head is a tensor of its own only where the model has one."""
    assert ("output.weight" in {t.name for t in gguf_tensors(model(name))}) is not tied


@pytest.mark.parametrize(
    ("name", "fmt", "gib"),
    [
        # Sizes of published files, in GiB to two digits: llama.cpp's `print_info: file size`.
        ("Llama-3.1-8B", "Q4_K_M", 4.58),
        ("Llama-3.1-8B", "Q8_0", 7.95),
        ("Llama-3.1-8B", "F16", 14.96),
        ("Qwen3-30B-A3B", "Q4_K_M", 17.28),
        ("Mixtral-8x7B", "Q4_K_M", 26.49),
        ("gemma-2-27b", "Q4_K_M", 15.50),
    ],
)
def test_files_have_their_published_size(name, fmt, gib):
    """The bytes of all tensors; metadata is a few MB."""
    assert file_bytes(model(name), fmt) / 2**30 == pytest.approx(gib, rel=0.004)


def test_a_new_family_works_by_default():
    """A configuration with nothing unusual under an unknown type is named like a Llama."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
    }  # fmt: skip
    names = [t.name for t in gguf_tensors(model_from_config(config))]

    assert names.count("blk.1.attn_k.weight") == 1
    assert len(names) == 2 * 9 + 3
