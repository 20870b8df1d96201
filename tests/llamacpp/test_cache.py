"""The cache, to the byte: as llama.cpp's allocator says, as published, and as the formulas in papers say."""

import pytest
from golden import MIB, case_id, cases, machine, model, refusals, setting
from hypothesis import given
from hypothesis import strategies as st

from sizeup.engines.llamacpp.backends import BACKENDS
from sizeup.engines.llamacpp.cache import placed_cache
from sizeup.engines.llamacpp.footprint import footprint
from sizeup.engines.llamacpp.names import layer_count
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.weights import assign
from sizeup.errors import BadInput
from sizeup.models.from_config import model_from_config

CUDA = BACKENDS["cuda"]


def cached(m, wanted):
    """All of the cache, on the host."""
    return placed_cache(m, wanted, assign(layer_count(m), 0, ()), ()).total


@pytest.mark.parametrize(("name", "changes", "truth"), cases("cpu"), ids=case_id)
def test_to_the_byte(name, changes, truth):
    """KV cache and recurrent states."""
    assert cached(model(name), setting(changes)) == truth["cache"]


@pytest.mark.parametrize(("name", "changes", "truth"), cases("gpu"), ids=case_id)
def test_with_its_layers(name, changes, truth):
    """Each GPU holds the cache of its own layers."""
    m, wanted = model(name), setting(changes)
    gpus = len(truth["gpus"])
    found = placed_cache(m, wanted, assign(layer_count(m), wanted.gpu_layers, (1.0,) * gpus), (CUDA,) * gpus)

    assert [k + s for k, s in zip(found.kv, found.state, strict=True)] == [gpu["context"] for gpu in truth["gpus"]]
    assert found.host_kv + found.host_state == truth["host"]["context"]


@pytest.mark.parametrize(("name", "changes"), refusals(), ids=case_id)
def test_what_llama_cpp_refuses(name, changes):
    """A type whose blocks don't fit a head is refused with a way out."""
    with pytest.raises(BadInput) as told:
        footprint(model(name), setting(changes), machine())

    assert told.value.hint


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        # 32 layers × 8 heads × 128 × 2 × 2 B × 8192
        ("Llama-3.1-8B", {"context": 8192}, 1024 * MIB),
        ("Llama-3.1-8B", {"context": 8192, "cache_k": "q8_0", "cache_v": "q8_0"}, 544 * MIB),
        ("Llama-3.1-8B", {"context": 8192, "cache_k": "q4_0", "cache_v": "q4_0"}, 288 * MIB),
        # 60 layers × (512 + 64) × 2 B × 8192: one compressed vector for keys and values
        ("DeepSeek-V2", {"context": 8192}, 60 * 576 * 2 * 8192),
        # 40 layers × 64 heads × 128 × 2 × 2 B × 4096: no grouping of heads, published as 5120 MiB
        ("command-r-v01", {"context": 4096}, 5120 * MIB),
        # ggml-ci's log of pythia-2.8b
        ("pythia-2.8b", {"context": 2048}, 640 * MIB),
        # 4 full layers at 32k and 22 windows of 512 + 512 tokens; one head of 256
        ("gemma-3-1b", {"context": 32768}, (4 * 32768 + 22 * 1024) * 2 * 256 * 2),
        ("gemma-3-1b", {"context": 32768, "full_swa": True}, 26 * 32768 * 2 * 256 * 2),
        # no cache in an encoder
        ("bge-large", {"context": 512}, 0),
    ],
)
def test_classics(name, changes, expected):
    """Figures that can be reckoned by hand."""
    assert cached(model(name), setting(changes)) == expected


def test_published_rows(truth_dir):
    """KV sizes that llama.cpp printed."""
    import csv
    import json

    rows = csv.DictReader((truth_dir / "memory_published.csv").open())
    folder = truth_dir / "configs"
    checked = 0
    for row in rows:
        if row["method"] != "llama.cpp" or not row["metric"].startswith("KV"):
            continue
        name = {"Qwen3-30B-A3B": "Qwen/Qwen3-30B-A3B-Base"}.get(row["model"], row["model"].split(" ")[0])
        config = folder / f"{name.replace('/', '--')}.json"
        if not config.exists() or "bge" in name:  # llama.cpp has given encoders no cache since 2025
            continue
        context = next(int(w) for w in row["setting"].replace(";", " ").replace(",", " ").split() if w in CONTEXTS)
        m = model_from_config(json.loads(config.read_text()))
        assert cached(m, LlamaSetting(context=context)) == float(row["measured"]) * MIB
        checked += 1
    assert checked >= 3


CONTEXTS = {"2048", "4096", "8192", "32768"}


@given(
    context=st.integers(1, 300_000),
    parallel=st.integers(1, 16),
    unified=st.booleans(),
    ubatch=st.integers(1, 4096),
    full=st.booleans(),
)
def test_never_less_for_more(context, parallel, unified, ubatch, full):
    """More context, never a smaller cache; windows never cost more than the whole."""
    m = model("gemma-3-1b")
    options = {"parallel": parallel, "unified": unified, "ubatch": ubatch}
    context = max(context, parallel)
    small = cached(m, LlamaSetting(context=context, full_swa=full, **options))
    large = cached(m, LlamaSetting(context=context + 4096, full_swa=full, **options))
    whole = cached(m, LlamaSetting(context=context, full_swa=True, **options))

    assert small <= large
    assert small <= whole


def test_states_grow_with_sequences_and_not_with_context():
    """A recurrent model keeps one state for each sequence."""
    m = model("mamba")
    one = cached(m, LlamaSetting(context=2048))

    assert cached(m, LlamaSetting(context=65536)) == one
    assert cached(m, LlamaSetting(context=2048, parallel=4)) == 4 * one
