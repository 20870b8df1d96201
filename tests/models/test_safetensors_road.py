"""Safetensors headers as models: to the byte, with an anatomy's roles or by names alone."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
import recorded

from sizeup.models.anatomy.registry import INDEX
from sizeup.models.count import by_role
from sizeup.models.from_config import model_from_config
from sizeup.models.from_safetensors import model_from_safetensors
from sizeup.models.load import load_model
from sizeup.models.sources.header import Header, StoredTensor
from sizeup.models.stored import stored_bytes

FAMILIES = recorded.families()
DESCRIBED = [name for name in FAMILIES if name in INDEX]

#: MiniMax calls its linear attention `self_attn`: names alone can't tell.
ALIKE = {"minimax"}


def roles(model):
    return {term.name: term.value for term in by_role(model).parts}


def kinds(model):
    return {
        (block.stack, layer): (block.mixers, block.feed_forward)
        for block in model.blocks
        if block.stack != "mtp"
        for layer in block.layers
    }


def tied(model):
    return [t.name for block in model.blocks if block.stack != "mtp" for t in block.tensors if t.tied_to]


def names(model):
    return sorted(name for name, tensor in model.expand() if not tensor.tied_to)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_byte_and_name_is_accounted_for(family):
    """With a configuration and without one."""
    header = recorded.header(family, "safetensors")
    stored = sorted(tensor.name for tensor in header.tensors)

    for model in (model_from_safetensors(header, recorded.config(family)), model_from_safetensors(header)):
        assert stored_bytes(model).value == header.data_bytes
        assert names(model) == stored
        assert model.road == "safetensors header"


@pytest.mark.parametrize("family", DESCRIBED)
def test_the_header_and_the_anatomy_are_one_model(family):
    """The same parameters by role, mixers, feed-forwards and ties on both roads."""
    described = model_from_config(recorded.config(family))
    stored = model_from_safetensors(recorded.header(family, "safetensors"), recorded.config(family))

    assert stored.parameters == described.parameters
    assert stored.active_parameters == described.active_parameters
    assert roles(stored) == roles(described)
    assert kinds(stored) == kinds(described)
    assert tied(stored) == tied(described)


@pytest.mark.parametrize("family", [name for name in DESCRIBED if name not in ALIKE])
def test_names_alone_tell_nearly_the_same_roles(family):
    """Without a configuration the rules place at least 99 % of the parameters as the anatomy does."""
    described = roles(model_from_safetensors(recorded.header(family, "safetensors"), recorded.config(family)))
    guessed = roles(model_from_safetensors(recorded.header(family, "safetensors")))
    differing = sum(abs(described.get(role, 0) - guessed.get(role, 0)) for role in described.keys() | guessed.keys())

    assert differing <= 0.01 * 2 * sum(described.values())


def moved(header: Header, change) -> Header:
    tensors = tuple(msgspec.structs.replace(tensor, name=change(tensor.name)) for tensor in header.tensors)
    return msgspec.structs.replace(header, tensors=tensors)


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.removeprefix("model."),
        lambda name: f"language_model.{name}",
        lambda name: name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name,
    ],
)
@pytest.mark.parametrize("family", ["llama", "deepseek_v3", "qwen3"])
def test_another_prefix_is_the_same_model(family, change):
    header = recorded.header(family, "safetensors")
    plain = model_from_safetensors(header, recorded.config(family))
    renamed = model_from_safetensors(moved(header, change), recorded.config(family))

    assert roles(renamed) == roles(plain)
    assert kinds(renamed) == kinds(plain)
    assert names(renamed) == sorted(change(tensor.name) for tensor in header.tensors)


def test_merged_experts_are_the_same_experts():
    """A file with one tensor for all experts of a layer counts as one with a tensor for each."""
    header = recorded.header("qwen3_moe", "safetensors")
    config = recorded.config("qwen3_moe")
    plain = model_from_safetensors(header, config)
    merged = model_from_safetensors(_merged(header), config)

    assert merged.parameters == plain.parameters
    assert merged.active_parameters == plain.active_parameters
    assert roles(merged) == roles(plain)


def _merged(header: Header) -> Header:
    groups: dict[str, list[StoredTensor]] = {}
    kept = []
    for tensor in header.tensors:
        head, dot, tail = tensor.name.partition(".experts.")
        if dot:
            groups.setdefault(f"{head}.experts.{tail.partition('.')[2].removesuffix('.weight')}", []).append(tensor)
        else:
            kept.append(tensor)
    for name, experts in groups.items():
        shape = (len(experts), *experts[0].shape)
        kept.append(StoredTensor(name, "BF16", shape, 0, 2 * math.prod(shape)))
    return msgspec.structs.replace(header, tensors=tuple(kept))


def test_a_tied_head_that_is_stored_counts_once():
    """Its bytes count, its parameters don't, and a note says so."""
    header, config = recorded.header("qwen2", "safetensors"), recorded.config("qwen2") | {"tie_word_embeddings": True}
    model = model_from_safetensors(header, config)

    assert model.parameters == model_from_config(config).parameters
    assert stored_bytes(model).value == header.data_bytes
    assert any("although it is tied" in note for note in model.notes)


def test_extra_layers_are_multi_token_prediction():
    """Layers beyond those of the configuration aren't parameters of the class."""
    header, config = recorded.header("llama", "safetensors"), recorded.config("llama")
    model = model_from_safetensors(header, config | {"num_hidden_layers": 3})

    assert [block.layers for block in model.blocks if block.stack == "mtp"] == [(3,)]
    assert model.parameters == model_from_config(config | {"num_hidden_layers": 3}).parameters
    assert stored_bytes(model).value == header.data_bytes


def test_old_buffers_are_not_parameters():
    header, config = recorded.header("llama", "safetensors"), recorded.config("llama")
    extra = StoredTensor("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", (8,), 0, 32)
    model = model_from_safetensors(
        msgspec.structs.replace(header, tensors=(*header.tensors, extra), data_bytes=header.data_bytes + 32), config
    )

    assert model.parameters == model_from_config(config).parameters
    assert stored_bytes(model).value == header.data_bytes + 32


def test_written_by_the_official_writer(tmp_path):
    """A folder that the safetensors package wrote from an anatomy's names and shapes."""
    numpy = pytest.importorskip("numpy")
    from safetensors.numpy import save_file

    config = recorded.config("deepseek_v3")
    described = model_from_config(config)
    arrays = {
        name: numpy.zeros(tensor.stored_shape, numpy.float16)
        for name, tensor in described.expand()
        if not tensor.tied_to
    }
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_model(tmp_path)

    assert loaded.road == "safetensors header"
    assert loaded.parameters == described.parameters
    assert roles(loaded) == roles(described)
    assert stored_bytes(loaded).value == sum(array.nbytes for array in arrays.values())


def test_nothing_known_is_said():
    """Unknown names still sum up, and the notes say how they were read."""
    tensors = (StoredTensor("a.b", "F32", (4, 4), 0, 64), StoredTensor("c", "I64", (2,), 0, 16))
    model = model_from_safetensors(Header("safetensors", tensors, {}, (), 80, 80))

    assert stored_bytes(model).value == 80
    assert model.family == "unknown"
    assert "roles are told from names" in model.notes[0]
