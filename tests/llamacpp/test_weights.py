"""Weights go where llama.cpp puts them, in the bytes that its backends give them."""

import pytest
from golden import case_id, cases, machine, model, setting
from hypothesis import given
from hypothesis import strategies as st

from sizeup.engines.llamacpp.backends import BACKENDS, repack_rule
from sizeup.engines.llamacpp.names import layer_count
from sizeup.engines.llamacpp.setting import LlamaSetting, Override
from sizeup.engines.llamacpp.weights import HOST, assign, file_bytes, placed_weights

CUDA = BACKENDS["cuda"]
AVX2 = repack_rule(machine(features=("avx2", "avx512f")).cpu)


def placed(m, wanted, gpus=0, rule=AVX2):
    """Weights of a setting on so many equal GPUs."""
    everything = -1 if wanted.gpu_layers is None else wanted.gpu_layers
    places = assign(layer_count(m), everything if gpus else 0, (1.0,) * gpus)
    return placed_weights(m, wanted, places, (CUDA,) * gpus, rule)


@pytest.mark.parametrize(("name", "changes", "truth"), cases("cpu"), ids=case_id)
def test_on_the_host_to_the_byte(name, changes, truth):
    """Buffers of the CPU, repacked weights included."""
    found = placed(model(name), setting(changes))

    assert found.plain + found.repacked == truth["weights"]


@pytest.mark.parametrize(("name", "changes", "truth"), cases("gpu"), ids=case_id)
def test_on_gpus_to_the_byte(name, changes, truth):
    """Buffers of each GPU and of the host beside it."""
    found = placed(model(name), setting(changes), len(truth["gpus"]))

    assert list(found.gpus) == [gpu["model"] for gpu in truth["gpus"]]
    assert found.plain + found.repacked == truth["host"]["model"]


def test_repacked_and_plain_are_told_apart():
    """Llama-3.1-8B Q4_K_M: what AVX2 rearranges and what stays."""
    found = placed(model("Llama-3.1-8B"), LlamaSetting())

    assert (found.repacked, found.plain) == (3359637504, 1553260544)
    assert placed(model("Llama-3.1-8B"), LlamaSetting(repack=False)).repacked == 0


@pytest.mark.parametrize(
    ("layers", "gpu_layers", "shares", "expected"),
    [
        (4, 0, (1.0,), [HOST] * 5),
        (4, 1, (1.0,), [HOST] * 4 + [0]),
        (4, 2, (1.0,), [HOST] * 3 + [0, 0]),
        (4, -1, (1.0,), [0] * 5),
        (4, 99, (1.0, 1.0), [0, 0, 0, 1, 1]),
        (4, 99, (1.0, 0.0), [0] * 5),
        (4, 99, (1.0, 4.0), [0, 1, 1, 1, 1]),
    ],
)
def test_the_last_layers_go_first(layers, gpu_layers, shares, expected):
    """-ngl counts the output as a layer and takes from the end; GPUs take by their shares."""
    found = assign(layers, gpu_layers, shares)

    assert [*found.layers, found.output] == expected


def test_a_tied_head_is_doubled_on_a_gpu():
    """Embeddings stay on the host; a head that shares them needs a copy on the GPU."""
    m = model("gemma-3-1b")
    found = placed(m, LlamaSetting(gpu_layers=-1), 1)

    assert sum(found.gpus) + found.plain > file_bytes(m, "Q4_K_M") * 1.2


def test_override_patterns_win():
    """-ot sends matching tensors to the host."""
    m = model("Qwen3-30B-A3B")
    by_number = placed(m, LlamaSetting(gpu_layers=-1, cpu_moe_layers=layer_count(m)), 1)
    by_pattern = placed(m, LlamaSetting(gpu_layers=-1, overrides=(Override(r"ffn_.*_exps"),)), 1)

    assert by_number.gpus == by_pattern.gpus
    assert by_number.plain == by_pattern.plain
    assert by_number.gpu_experts == (0,)


@given(layers=st.integers(-1, 40), moe=st.integers(0, 60), gpus=st.integers(1, 4))
def test_nothing_is_lost(layers, moe, gpus):
    """However it is placed, all of the file is somewhere, and no more than padding beside it."""
    m = model("Qwen3-30B-A3B")
    found = placed(m, LlamaSetting(gpu_layers=layers, cpu_moe_layers=moe), gpus)
    whole = sum(found.gpus) + found.plain + found.repacked

    assert 0 <= whole - file_bytes(m, "Q4_K_M") < 1 << 20
