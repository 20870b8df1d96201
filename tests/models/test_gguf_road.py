"""GGUF headers as models, against the safetensors and the anatomy of the same small random models.

The headers were written by llama.cpp's own converter (see make_checkpoints.py) and kept in data/.
"""

from __future__ import annotations

import time

import pytest
import recorded

from sizeup.errors import BadConfig, BadFile
from sizeup.models.anatomy.registry import INDEX
from sizeup.models.count import by_role
from sizeup.models.from_gguf import model_from_gguf
from sizeup.models.from_safetensors import model_from_safetensors
from sizeup.models.gguf_windows import RULES, windows
from sizeup.models.load import load_model
from sizeup.models.mixers import Attention, LatentAttention, LinearAttention, ShortConvolution, StateSpace
from sizeup.models.sources.header import Header, Skipped, StoredTensor
from sizeup.models.stored import stored_bytes

TOWERS = {"vision", "audio", "projector"}

#: What the converter leaves out of a checkpoint, in parameters: BERT's pooler, xIELU's constants.
LEFT_OUT = {"bert": 9312, "apertus": 8}

HEADLESS = {"bert", "modernbert"}


def text_roles(model):
    return {term.name: term.value for term in by_role(model).parts if term.name not in TOWERS}


def text_mixers(model):
    return {
        (block.stack, layer): block.mixers
        for block in model.blocks
        if block.stack not in TOWERS
        for layer in block.layers
    }


@pytest.mark.parametrize("family", recorded.families("gguf"))
def test_every_byte_is_accounted_for(family):
    header = recorded.header(family, "gguf")
    model = model_from_gguf(header)

    assert stored_bytes(model).value == header.data_bytes
    assert sorted(name for name, tensor in model.expand() if not tensor.tied_to) == sorted(
        tensor.name for tensor in header.tensors
    )


@pytest.mark.parametrize("family", recorded.families("gguf"))
def test_counts_the_same_parameters_as_the_checkpoint(family):
    checkpoint = model_from_safetensors(recorded.header(family, "safetensors"), recorded.config(family))
    converted = model_from_gguf(recorded.header(family, "gguf"))
    difference = {
        role: text_roles(checkpoint).get(role, 0) - text_roles(converted).get(role, 0)
        for role in text_roles(checkpoint).keys() | text_roles(converted).keys()
    }

    assert sum(abs(count) for count in difference.values()) == LEFT_OUT.get(family, 0)


@pytest.mark.parametrize("family", [name for name in recorded.families("gguf") if name in INDEX])
def test_remembers_the_same_as_the_checkpoint(family):
    checkpoint = model_from_safetensors(recorded.header(family, "safetensors"), recorded.config(family))
    converted = model_from_gguf(recorded.header(family, "gguf"))

    assert text_mixers(converted) == text_mixers(checkpoint)


@pytest.mark.parametrize("family", recorded.families("gguf"))
def test_sizes_and_ties(family):
    model = model_from_gguf(recorded.header(family, "gguf"))
    config = recorded.config(family)
    text = config.get("text_config", config)

    assert model.road == "gguf header"
    assert model.vocabulary == text["vocab_size"]
    assert model.hidden in {text.get(name) for name in ("hidden_size", "n_embd", "d_model")}
    stored = any(tensor.name == "output.weight" for tensor in recorded.header(family, "gguf").tensors)
    tied = [tensor for _, tensor in model.expand() if tensor.tied_to]
    assert bool(tied) == (not stored and family not in HEADLESS)


def test_a_projector_file_is_a_vision_model():
    header = recorded.header("qwen2_vl", "mmproj")
    model = model_from_gguf(header)

    assert stored_bytes(model).value == header.data_bytes
    assert {block.stack for block in model.blocks} == {"vision", "projector"}
    assert model.facts.modalities == ("image",)
    layers = next(block for block in model.blocks if block.layers)
    assert layers.mixers == (Attention(4, 4, 16, 16, causal=False),)


def test_mixers_of_each_kind_are_seen():
    """The recorded families cover latent attention, windows, Mamba 1 and 2, gated delta nets and convolutions."""
    kinds = {type(mixer) for name in recorded.families("gguf") for block in _blocks(name) for mixer in block.mixers}

    assert kinds == {Attention, LatentAttention, StateSpace, LinearAttention, ShortConvolution}
    assert {mixer.version for b in _blocks("mamba") for mixer in b.mixers} == {1}
    assert {mixer.version for b in _blocks("mamba2") for mixer in b.mixers} == {2}


def _blocks(family):
    return model_from_gguf(recorded.header(family, "gguf")).blocks


def test_windows_are_those_of_the_architecture():
    """A period from the file replaces the architecture's; a list replaces both; unlisted architectures ignore it."""
    assert windows("gemma3", 12, 1024, None) == ([1024] * 5 + [None]) * 2
    assert windows("gemma2", 4, None, None) == [4096, None, 4096, None]
    assert windows("gpt-oss", 4, 128, None) == [128, None, 128, None]
    assert windows("smallthinker", 4, 4096, None) == [None, 4096, 4096, 4096]
    assert windows("olmo2", 4, None, None) == [None] * 4
    assert windows("exaone4", 32, 4096, None) == [None] * 32
    assert windows("gemma4", 3, 512, (True, False, True)) == [512, None, 512]
    assert windows("cohere2", 6, 100, 3) == [100, 100, None] * 2
    assert windows("llama", 2, 4096, None) == [None, None]
    assert all(rule.period is None or rule.period >= 0 for rule in RULES.values())


def test_llama4_sees_chunks_of_8192():
    assert windows("llama4", 4, None, None) == [8192, 8192, 8192, None]
    assert windows("llama4", 4, 0, None) == [None] * 4


def header_of(tensors, **metadata):
    stored = tuple(StoredTensor(name, "F32", shape, 0, 4 * _product(shape)) for name, shape in tensors)
    base = {"general.architecture": "llama", "llama.block_count": 1, "llama.embedding_length": 8}
    return Header("gguf", stored, base | metadata, (), sum(t.nbytes for t in stored), 0)


def _product(shape):
    result = 1
    for extent in shape:
        result *= extent
    return result


def test_facts_come_from_the_metadata():
    header = header_of(
        [("token_embd.weight", (10, 8))],
        **{
            "general.name": "Tiny",
            "general.license": "mit",
            "general.languages": ("en", "de"),
            "general.base_model.0.repo_url": "https://huggingface.co/org/base",
            "general.file_type": 15,
            "tokenizer.chat_template": "{{ '<|im_start|>' }}",
            "tokenizer.ggml.tokens": Skipped("string", 10),
        },
    )
    model = model_from_gguf(header)

    assert (model.name, model.scheme, model.vocabulary) == ("Tiny", "Q4_K_M", 10)
    assert model.facts.licence == "mit"
    assert model.facts.base_model == "org/base"
    assert model.facts.prompt_template == "chatml"
    assert model.facts.languages == ("en", "de")


def test_a_header_without_architecture_is_refused():
    with pytest.raises(BadFile, match=r"general\.architecture"):
        model_from_gguf(Header("gguf", (), {}, (), 0, 0))


@pytest.mark.parametrize(
    ("key", "bad"), [("llama.block_count", -1), ("llama.block_count", 10**9), ("llama.attention.head_count", "x")]
)
def test_impossible_metadata_names_the_key(key, bad):
    with pytest.raises(BadConfig, match=key.replace(".", r"\.")):
        model_from_gguf(header_of([("blk.0.attn_q.weight", (8, 8))], **{key: bad}))


def test_layers_beyond_the_block_count_do_not_crash():
    """A file that holds more layers than it claims is still counted to the byte."""
    header = header_of([("blk.7.attn_q.weight", (8, 8)), ("blk.7.ffn_up.weight", (8, 8))])

    assert stored_bytes(model_from_gguf(header)).value == header.data_bytes


def test_experts_of_old_files_are_gathered():
    """Files from before merged experts hold each expert alone: four copies, of which a token uses two."""
    tensors = [(f"blk.0.ffn_{part}.{number}.weight", (8, 8)) for part in ("gate", "up", "down") for number in range(4)]
    model = model_from_gguf(header_of(tensors, **{"llama.expert_count": 4, "llama.expert_used_count": 2}))

    assert stored_bytes(model).value == 12 * 64 * 4
    assert model.active_parameters == 6 * 64
    assert sorted(name for name, _ in model.expand()) == sorted(name for name, _ in tensors)


def test_attention_tensors_of_a_linear_layer_are_linear_attention():
    """Kimi's KDA layers and MiniMax's lightning layers use the names of attention."""
    kda = {"ssm_conv1d_q.weight": (32, 4), "ssm_f_a.weight": (4, 8), "attn_q.weight": (32, 8)}
    header = header_of(
        [(f"blk.0.{name}", shape) for name, shape in kda.items()],
        **{"llama.kda.head_dim": 16, "llama.attention.head_count": 2, "llama.ssm.conv_kernel": 4},
    )
    (block,) = (block for block in model_from_gguf(header).blocks if block.layers)

    assert {tensor.role for tensor in block.tensors} == {"linear_attention"}
    assert block.mixers == (LinearAttention("kda", 2, 16, 16, 4, 96),)
    metadata = {"general.architecture": "minimax-01", "minimax-01.block_count": 8, "minimax-01.embedding_length": 32}
    metadata |= {"minimax-01.attention.head_count": 2, "minimax-01.attention.key_length": 16}
    lightning = header_of([("blk.0.attn_qkv.weight", (96, 32)), ("blk.7.attn_q.weight", (32, 32))], **metadata)
    kinds = {b.layers: b.mixers for b in model_from_gguf(lightning).blocks if b.layers}

    assert kinds == {(0,): (LinearAttention("lightning", 2, 16, 16),), (7,): (Attention(2, 2, 16, 16),)}


@pytest.mark.slow
def test_a_large_vocabulary_is_quick(tmp_path):
    """128,256 tokens and 280,147 merges, 32 layers: at most 0.15 s."""
    numpy = pytest.importorskip("numpy")
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "large.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(32)
    writer.add_embedding_length(64)
    writer.add_token_list([f"token {number}" for number in range(128_256)])
    writer.add_token_merges([f"a{number} b{number}" for number in range(280_147)])
    for layer in range(32):
        for stem in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            writer.add_tensor(f"blk.{layer}.{stem}.weight", numpy.zeros((64, 64), numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    load_model(path)
    started = time.perf_counter()
    model = load_model(path)

    assert time.perf_counter() - started <= 0.15
    assert model.vocabulary == 128_256
