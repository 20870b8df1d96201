"""Compute buffers: those of llama.cpp's allocator, to the byte on the host and nearly so on GPUs."""

import time

import msgspec
import pytest
from golden import MIB, case_id, cases, machine, model, setting

from sizeup.engines.llamacpp import compute, reserve
from sizeup.engines.llamacpp.assembly import Frame
from sizeup.engines.llamacpp.backends import BACKENDS
from sizeup.engines.llamacpp.compute import compute_buffers
from sizeup.engines.llamacpp.footprint import footprint
from sizeup.engines.llamacpp.names import layer_count
from sizeup.engines.llamacpp.output import output_bytes
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.weights import assign

FAKE = BACKENDS["cuda"]


def host_buffer(m, wanted):
    """The buffer when everything is on the host."""
    return compute_buffers(m, wanted, assign(layer_count(m), 0, ()), ()).host


@pytest.mark.parametrize(("name", "changes", "truth"), cases("cpu"), ids=case_id)
def test_on_the_host_to_the_byte(name, changes, truth):
    """The miniature graph has the peak of the real one; with all rows of logits nearly so."""
    wanted = setting(changes)

    assert host_buffer(model(name), wanted) == pytest.approx(truth["compute"], rel=0.03 if wanted.outputs == 0 else 0)
    assert output_bytes(model(name), wanted) == pytest.approx(truth["output"], abs=0.02 * MIB)


@pytest.mark.parametrize(("name", "changes", "truth"), cases("gpu"), ids=case_id)
def test_on_gpus(name, changes, truth, monkeypatch):
    """One and two GPUs, whole and in part, experts on the host.

    The recording backend has no fused sum of experts, which CUDA has and which keeps some results longer; and without
    allocating llama.cpp forgets where it wanted norms to be.
    """
    monkeypatch.setattr(compute, "Frame", lambda **fields: Frame(**{**fields, "norms_follow": False}))
    m, wanted = model(name), setting(changes)
    gpus = len(truth["gpus"])
    kernels = (msgspec.structs.replace(FAKE, keeps_experts=False),) * gpus
    found = compute_buffers(m, wanted, assign(layer_count(m), wanted.gpu_layers, (1.0,) * gpus), kernels)

    for mine, theirs in zip((*found.gpus, found.host), (*truth["gpus"], truth["host"]), strict=True):
        assert mine == pytest.approx(theirs["compute"], rel=0.01, abs=8192)


def test_flash_attention_saves_the_scores():
    """Without it scores of every head are held: heads × cells × tokens × 4 B."""
    m = model("Llama-3.1-8B")
    on = host_buffer(m, LlamaSetting(flash_attention="on"))
    off = host_buffer(m, LlamaSetting(flash_attention="off"))

    assert off - on > 0.8 * 32 * 8192 * 512 * 4


def test_auto_means_flash_attention_where_there_is_any():
    """`auto` turns it on."""
    m = model("Llama-3.1-8B")

    assert host_buffer(m, LlamaSetting()) == host_buffer(m, LlamaSetting(flash_attention="on"))


def test_layers_that_repeat_are_left_out_without_a_difference(monkeypatch):
    """Building a few layers gives the peak of building them all."""
    for name in ("Llama-3.1-8B", "gemma-3-1b", "DeepSeek-V2", "Qwen3-Next"):
        settled = host_buffer(model(name), LlamaSetting())
        with monkeypatch.context() as every_layer:
            every_layer.setattr(reserve, "settled", lambda steps: steps)

            assert host_buffer(model(name), LlamaSetting()) == settled


def test_several_gpus_hold_copies_for_batches_in_flight():
    """A pipeline over GPUs keeps four copies of inputs."""
    m = model("Llama-3.1-8B")
    whole = assign(layer_count(m), -1, (1.0, 1.0))
    piped = compute_buffers(m, LlamaSetting(gpu_layers=-1), whole, (FAKE, FAKE))
    single = compute_buffers(m, LlamaSetting(gpu_layers=-1), assign(layer_count(m), -1, (1.0,)), (FAKE,))

    assert piped.gpus[0] > single.gpus[0] + 3 * 8192 * 512 * 2


def test_repeated_footprints_are_quick():
    """A search asks for hundreds: 1 ms each at most (generous here for slow machines)."""
    m, computer, wanted = model("Qwen3-30B-A3B"), machine(24 << 30), LlamaSetting(gpu_layers=-1)
    footprint(m, wanted, computer)
    started = time.perf_counter()
    for _ in range(50):
        footprint(m, wanted, computer)

    assert (time.perf_counter() - started) / 50 < 0.002
