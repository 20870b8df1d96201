"""References of every kind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import recorded

from sizeup.errors import BadConfig, BadFile, BadInput, NetworkError, NotFound
from sizeup.models.catalogue.entry import entries
from sizeup.models.from_catalogue import model_from_entry
from sizeup.models.from_transformers import BuiltClass, model_from_transformers
from sizeup.models.load import load_model
from sizeup.models.prompt_template import template_family


@pytest.fixture(autouse=True)
def no_other_programs(tmp_path, monkeypatch):
    """Models that happen to be on this machine don't decide these tests."""
    for variable in (
        "HF_HOME",
        "HF_HUB_CACHE",
        "OLLAMA_MODELS",
        "LLAMA_CACHE",
        "SIZEUP_HOME",
        "HOME",
        "XDG_CACHE_HOME",
    ):
        monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))


def test_a_dict_is_its_anatomy():
    assert load_model(recorded.config("llama")).road == "anatomy"


def test_a_config_file_is_named_after_its_folder(tmp_path):
    folder = tmp_path / "My-Model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(recorded.config("llama")))

    assert load_model(folder / "config.json").name == "My-Model"
    assert load_model(str(folder)).parameters == load_model(recorded.config("llama")).parameters


def test_a_gguf_file(tmp_path):
    """Written by the official writer, with a vocabulary that isn't read."""
    numpy = pytest.importorskip("numpy")
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_context_length(256)
    writer.add_token_list([f"token {number}" for number in range(300)])
    writer.add_tensor("token_embd.weight", numpy.zeros((300, 32), numpy.float16))
    writer.add_tensor("blk.0.attn_q.weight", numpy.zeros((32, 32), numpy.float32))
    writer.add_tensor("blk.0.attn_k.weight", numpy.zeros((16, 32), numpy.float32))
    writer.add_tensor("output_norm.weight", numpy.zeros(32, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = load_model(path)

    assert model.road == "gguf header"
    assert model.vocabulary == 300
    assert model.parameters == 300 * 32 + 32 * 32 + 16 * 32 + 32
    assert next(mixer for block in model.blocks for mixer in block.mixers).kv_heads == 2


def test_catalogue_names_are_loose():
    assert load_model("qwen3-8b").name == "Qwen/Qwen3-8B"
    assert load_model("Qwen/Qwen3-8B").facts.licence == "apache-2.0"


def test_every_catalogue_entry_is_a_model():
    """All of them in two seconds on a busy machine; a quiet one needs a third of a second."""
    started = time.perf_counter()
    models = [model_from_entry(entry) for entry in entries()]

    assert time.perf_counter() - started <= 2.0
    assert all(model.parameters > 0 for model in models)


@pytest.mark.parametrize(
    ("reference", "error", "says"),
    [
        ("", BadInput, "no model is given"),
        ("qwen3-8bb", NotFound, "on this machine or in the catalogue"),
        ("./nowhere/config.json", NotFound, "nowhere"),
        ("somebody/something-else", (NetworkError, NotFound), "something-else|network"),
    ],
)
def test_wrong_references_get_a_hint(reference, error, says):
    with pytest.raises(error, match=says) as caught:
        load_model(reference)

    assert caught.value.hint


def test_a_wrong_name_is_corrected():
    with pytest.raises(NotFound) as caught:
        load_model("qwen3-8bb")

    assert "Qwen/Qwen3-8B" in caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[1]", "NaN", '{"model_type": 3}', '{"model_type": "llama"}'])
def test_broken_configurations_are_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)

    with pytest.raises((BadConfig, BadFile)) as caught:
        load_model(tmp_path)

    assert "config" in caught.value.message


def test_models_load_without_heavy_modules():
    """The roads need neither torch nor numpy nor anything of the network."""
    code = (
        "import sys; from sizeup.models.load import load_model; load_model('layers=1,embedding=8,heads=1,vocabulary=9');"
        "load_model('qwen3-8b');"
        "print([m for m in ('torch', 'numpy', 'transformers', 'http.client', 'dataclasses', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_built_class_is_a_model():
    """What the transformers worker answers, as plain data."""
    header = recorded.header("falcon_h1", "safetensors")
    built = BuiltClass(
        "FalconH1ForCausalLM",
        "5.23.0",
        recorded.config("falcon_h1"),
        {tensor.name: tensor.shape for tensor in header.tensors},
        ties={"extra.weight": "model.embed_tokens.weight"},
        parameters=sum(t.nbytes // 2 for t in header.tensors),
    )
    model = model_from_transformers(built)

    assert model.road == "transformers"
    assert model.parameters == built.parameters
    assert model.notes == ()
    assert {type(mixer).__name__ for b in model.blocks for mixer in b.mixers} == {"Attention", "StateSpace"}
    assert [tensor.tied_to for _, tensor in model.expand() if tensor.tied_to] == ["model.embed_tokens.weight"]


@pytest.mark.parametrize(
    ("template", "family"),
    [
        ("{{'<|im_start|>'+role}}", "chatml"),
        ("<|start_header_id|>", "llama3"),
        ("[INST] {{x}} [/INST]", "llama2"),
        ("<start_of_turn>", "gemma"),
        ("<|start|>assistant<|channel|>", "gpt_oss"),
        ("{{ messages }}", "custom"),
    ],
)
def test_template_families(template, family):
    assert template_family(template) == family


def test_no_machine_paths():
    """The sources name no folder of the machine they were written on."""
    sources = Path(__file__).parents[2] / "src" / "sizeup" / "models"

    assert [p.name for p in sources.rglob("*.py") if "/opt/" in p.read_text() or "/work" in p.read_text()] == []
