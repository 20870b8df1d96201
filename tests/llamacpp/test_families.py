"""Families with parts of their own: what the file holds of them, and that llama.cpp loads it."""

import json
from pathlib import Path

import msgspec
import pytest

from sizeup.engines.llamacpp.architectures import architecture_of
from sizeup.engines.llamacpp.cache import placed_cache
from sizeup.engines.llamacpp.compute import compute_buffers
from sizeup.engines.llamacpp.footprint import footprint
from sizeup.engines.llamacpp.names import gguf_tensors, layer_count
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.weights import HOST, Assignment, placed_weights
from sizeup.errors import NotFound
from sizeup.machines.device import Device, Machine
from sizeup.measure.simulation import simulate
from sizeup.models.from_config import model_from_config

DEEPSEEK_V4 = "sgl-project--DeepSeek-V4-Flash-FP8"
NEMOTRON_3 = "nvidia--NVIDIA-Nemotron-3-Super-120B-A12B-FP8"
GEMMA_4 = "google--gemma-4-31B"
#: Configurations, and what llama.cpp 0.5.0 (0c1e570) reserves for them on a processor with AVX-512, in bytes.
RECORDED = json.loads(Path(__file__).with_name("families.json").read_text())
SIMULATED = (
    DEEPSEEK_V4,
    NEMOTRON_3,
    GEMMA_4,
    "XiaomiMiMo--MiMo-7B-Base",
    "deepseek-ai--DeepSeek-V3.2",
    "zai-org--GLM-5",
)


@pytest.fixture
def model_of(truth_dir):
    """The model of a configuration, by the file's name."""

    def build(name):
        return model_from_config(json.loads(Path(truth_dir, "configs", f"{name}.json").read_text()), name)

    return build


def cache_bytes(model, **changes):
    setting = LlamaSetting(**changes)
    return placed_cache(model, setting, Assignment((HOST,) * layer_count(model), HOST), ()).total


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"context": 4096}, 78_790_656),
        ({"context": 8192, "parallel": 4, "unified": False, "flash_attention": "off"}, 260_112_384),
        ({"context": 10000, "parallel": 4, "ubatch": 128, "cache_k": "q8_0", "cache_v": "q8_0"}, 230_146_048),
        ({"context": 32768, "parallel": 2, "full_swa": True, "recurrent_snapshots": 1}, 3_385_393_152),
    ],
)
def test_compressed_caches_are_llama_cpps_to_the_byte(model_of, changes, known):
    """DeepSeek-V4: known is what llama.cpp 0.5.0 allocates."""
    assert cache_bytes(model_of(DEEPSEEK_V4), **changes) == known


def test_compressed_caches_grow_with_a_fraction_of_the_context(model_of):
    model = model_of(DEEPSEEK_V4)
    more = cache_bytes(model, context=1 << 20) - cache_bytes(model, context=1 << 19)

    entries = 21 * (512 + 128) / 4 + 20 * 512 / 128
    assert more == (1 << 19) * entries * 2


def test_layers_of_prediction_are_in_the_file_where_llama_cpp_has_them(model_of):
    nemotron = {t.name for t in gguf_tensors(model_of(NEMOTRON_3)) if t.layer == 88}
    mimo = model_of("XiaomiMiMo--MiMo-7B-Base")

    assert {"blk.88.nextn.shared_head_norm.weight", "blk.88.attn_norm.weight"} <= nemotron
    assert {"blk.88.post_attention_norm.weight", "blk.88.exp_probs_b.bias"} <= nemotron
    assert layer_count(mimo) == mimo.layers == 36
    assert not [t for t in gguf_tensors(mimo) if t.role == "mtp"]


def test_a_tensors_name_comes_once(model_of, truth_dir):
    for path in sorted(Path(truth_dir, "configs").glob("*.json")):
        model = model_of(path.stem)
        try:
            names = [tensor.name for tensor in gguf_tensors(model)]
        except NotFound:
            continue
        assert len(names) == len(set(names)), path.stem


def test_a_falcon_with_biases_is_none_of_llama_cpps(model_of):
    assert architecture_of(model_of("tiiuae--falcon-7b-instruct")) == "falcon"
    with pytest.raises(NotFound, match="no biases"):
        architecture_of(model_of("tiiuae--falcon-rw-1b"))


def test_a_head_looked_for_first_is_held_twice_unless_it_is_mapped(model_of):
    model = model_of(GEMMA_4)
    places = Assignment((HOST,) * layer_count(model), HOST)
    setting = LlamaSetting(format="Q8_0")

    mapped = placed_weights(model, setting, places, ()).plain
    read = placed_weights(model, msgspec.structs.replace(setting, mmap=False), places, ()).plain

    assert read - mapped == 262_144 * 5376 // 32 * 34


@pytest.mark.parametrize(("entry", "row"), [(e, row) for e in RECORDED for row in e["cpu"]])
def test_families_of_their_own_are_llama_cpps_to_the_byte(entry, row):
    """Streams, embeddings of layers, shared caches, gates, lightning and expanded attention, encoders with windows."""
    size = 1 << 50
    host = Device(
        name="host", kind="cpu", vendor="amd", memory_bytes=size, free_bytes=size, backend="cpu", features=("avx512",)
    )
    model, setting = model_from_config(entry["config"], entry["name"]), LlamaSetting(**row["setting"])

    (device,) = footprint(model, setting, Machine(name="it", cpu=host, gpus=(), evidence="file")).devices
    found = dict.fromkeys(("weights", "cache", "compute"), 0)
    for item in device.items:
        if item.component in found and item.name != "output buffer":
            found[item.component] += item.bytes
    assert found == {component: row[component] for component in found}


@pytest.mark.llamacpp
@pytest.mark.usefixtures("llama_python")
@pytest.mark.parametrize("name", SIMULATED)
def test_llama_cpp_loads_it_and_agrees(model_of, name):
    model = model_of(name)
    settings = [LlamaSetting(format="Q8_0", context=4096), LlamaSetting(format="Q8_0", context=4096, mmap=False)]
    places = Assignment((HOST,) * layer_count(model), HOST)

    for setting, cell in zip(settings, simulate(model, settings), strict=True):
        estimated = placed_weights(model, setting, places, ())
        assert cell.refused == ""
        assert cell.weights == estimated.plain + estimated.repacked
        assert cell.cache == cache_bytes(model, context=4096)


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"context": 4096}, 274_297_792),
        ({"context": 8192, "parallel": 4, "unified": False, "flash_attention": "off"}, 445_261_824),
        ({"context": 32768, "ubatch": 2048, "flash_attention": "off"}, 6408 << 20),
        ({"context": 131072, "ubatch": 512, "parallel": 4, "unified": False, "flash_attention": "off"}, 1407 << 20),
    ],
)
def test_the_bound_of_compressed_attention_is_near_what_is_reserved(model_of, changes, known):
    """DeepSeek-V4: known is what llama.cpp 0.5.0 reserves."""
    model = model_of(DEEPSEEK_V4)
    setting = LlamaSetting(format="Q8_0", **changes)
    places = Assignment((HOST,) * layer_count(model), HOST)

    assert compute_buffers(model, setting, places, ()).host == pytest.approx(known, rel=0.03)
