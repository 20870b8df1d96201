"""Graphs with open sizes: one recording answers for many settings, and never otherwise than a graph of its own."""

import gc
import itertools
import json
import time
from pathlib import Path

import pytest
from golden import NAMES, machine, model
from hypothesis import given
from hypothesis import strategies as st

from sizeup.engines.llamacpp import reserve
from sizeup.engines.llamacpp.backends import BACKENDS
from sizeup.engines.llamacpp.compute import compute_buffers
from sizeup.engines.llamacpp.extent import Case, Extent, Irregular, decisions, evaluate, form_of, polynomial
from sizeup.engines.llamacpp.footprint import footprint
from sizeup.engines.llamacpp.names import layer_count
from sizeup.engines.llamacpp.replay import Script, replay
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.weights import assign
from sizeup.errors import BadInput
from sizeup.models.from_config import model_from_config

MODELS = {name: model(name) for name in NAMES}


def placed(m, setting, gpus):
    """The buffers with the setting's layers on so many GPUs."""
    places = assign(layer_count(m), setting.gpu_layers if gpus else 0, (1.0,) * gpus)
    return compute_buffers(m, setting, places, (BACKENDS["cuda"],) * gpus)


settings = st.builds(
    LlamaSetting,
    context=st.sampled_from([256, 1000, 2048, 4096, 32768, 131072]),
    ubatch=st.sampled_from([1, 7, 32, 96, 128, 512, 1000, 2048]),
    parallel=st.sampled_from([1, 2, 3, 4]),
    unified=st.booleans(),
    cache_k=st.sampled_from(["f16", "f32", "q8_0", "q4_0"]),
    flash_attention=st.sampled_from(["on", "off"]),
    outputs=st.sampled_from([None, 0]),
    full_swa=st.booleans(),
    gpu_layers=st.sampled_from([-1, 3]),
    cpu_moe_layers=st.sampled_from([0, 2]),
)


@given(st.sampled_from(NAMES), settings, st.integers(0, 2))
def test_a_recording_gives_what_fixed_sizes_give(name, setting, gpus):
    """Whatever was asked before, the answer is that of a graph built for these very sizes."""
    found = placed(MODELS[name], setting, gpus)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reserve, "_with_open", lambda sizes, case: sizes)

        assert placed(model(name), setting, gpus) == found


@pytest.mark.parametrize("flash", ["on", "off"])
def test_a_few_graphs_answer_for_a_grid(flash, monkeypatch):
    """Contexts, ubatches and numbers of sequences with caches of their own share a graph."""
    built = []
    monkeypatch.setattr(reserve, "build", lambda *given: built.append(1) or build(*given))
    m = model("Llama-3.1-8B")
    for context, ubatch, parallel in itertools.product((2048, 8192, 32768), (128, 512, 2048), (1, 4)):
        setting = LlamaSetting(context=context, ubatch=ubatch, parallel=parallel, unified=False, flash_attention=flash)
        placed(m, setting, 0)

    assert len(built) == 1


build = reserve.build


# ── extents ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.tuples(*[st.integers(1, 1000)] * 3), st.tuples(*[st.integers(1, 1000)] * 3), st.integers(-9, 9))
def test_extents_compute_as_polynomials(here, there, count):
    """The form read off at one point is right at any other."""

    def area(x, y, z):
        return 3 * x * y + (z - x) * count + y * y + 7

    case = Case(here)
    extent = area(*(case.open(number, 1) for number in range(3)))

    assert extent.value == area(*here)
    assert evaluate(polynomial(form_of(extent)), there) == area(*there)


@given(st.integers(1, 50), st.integers(1, 50))
def test_what_was_decided_is_known_to_hold_or_not(here, there):
    """A comparison holds for another size exactly when it comes out the same."""
    case = Case((here,))
    smaller = case.open(0, 2) < 51

    assert decisions(case)((there,)) == ((2 * there < 51) == smaller)


def test_only_whole_quotients_stay_open():
    """Halves of an even size, not thirds of it; a product by one of its factors, not by another size."""
    case = Case((5, 4, 3))
    size, count, other = case.open(0, 256), case.open(1, 1), case.open(2, 1)

    assert isinstance(size // 128, Extent)
    assert (size * count // count).form == size.form
    for divisor in (3, other, count + 1):
        with pytest.raises(Irregular):
            size * count // divisor


def test_a_size_that_is_counted_to_is_fixed():
    """`range` wants a plain number; it holds for that number only."""
    case = Case((3,))

    assert len(range(case.open(0, 1))) == 3
    assert decisions(case)((3,))
    assert not decisions(case)((4,))


def test_an_operation_that_extents_do_not_have_fixes_the_sizes(monkeypatch):
    """A builder that wants a remainder still gets its graph."""
    m, expected = model("Llama-3.1-8B"), placed(model("Llama-3.1-8B"), LlamaSetting(), 0)
    monkeypatch.setattr(reserve, "build", lambda *given: (given[2].tokens % 7, build(*given))[1])

    assert placed(m, LlamaSetting(), 0) == expected
    assert placed(m, LlamaSetting(ubatch=128), 0) != expected


# ── the allocator ─────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def scripts(draw):
    """Buffers that come and go, and growing sizes."""
    amounts = draw(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), min_size=1, max_size=6))
    sizes = [(32 * size, 32 * growth) for size, growth in amounts]
    events, numbers, alive, count = [], [], [], 0
    for _ in range(draw(st.integers(1, 40))):
        if alive and draw(st.booleans()):
            buffer, number = alive.pop(draw(st.integers(0, len(alive) - 1)))
            events.append(~buffer)
        else:
            buffer, number = count, draw(st.integers(0, len(sizes) - 1))
            alive.append((buffer, number))
            events.append(buffer)
            count += 1
        numbers.append(number)
    return Script(events, numbers, count, 32), sizes


@given(scripts(), st.integers(0, 30))
def test_a_run_holds_as_far_as_it_says(given_script, steps):
    """Within its reach a run gives the peak that a run from there gives, either way."""
    script, sizes = given_script
    there = [(size + steps * growth, growth) for size, growth in sizes]
    run, other = replay(script, sizes), replay(script, there)

    assert run.low <= 0 <= run.high
    if steps <= run.high:
        assert run.peak(steps) == other.peak(0)
    if -steps >= other.low:
        assert other.peak(-steps) == run.peak(0)


def test_freed_memory_is_taken_by_the_best_fit():
    """Of holes of 96 and 64 bytes the second takes 50 bytes, padded to 64; nothing is added at the end."""
    sizes = [(96, 0), (32, 0), (64, 0), (50, 0)]
    script = Script([0, 1, 2, 3, ~0, ~2, 4, 5], [0, 1, 2, 1, 0, 2, 3, 0], 6, 32)

    assert replay(script, sizes).peak(0) == 96 + 32 + 64 + 32


def test_a_size_that_grows_by_less_than_the_alignment_is_known_here_only():
    """Rounding isn't proportional."""
    run = replay(Script([0], [0], 1, 32), [(40, 8)])

    assert (run.peak(0), run.low, run.high) == (64, 0, 0)


# ── speed ─────────────────────────────────────────────────────────────────────────────────────────────────────


def grid():
    """The settings of the ledger's grid in one format, without those that llama.cpp refuses."""
    for context, cache, flash, ubatch, parallel in itertools.product(
        (2048, 8192, 32768, 131072), ("f16", "q8_0", "q4_0"), ("on", "off"), (128, 512, 2048), (1, 4)
    ):
        value = cache if flash == "on" else "f16"
        yield LlamaSetting(
            context=context, cache_k=cache, cache_v=value, flash_attention=flash, ubatch=ubatch, parallel=parallel,
            unified=parallel == 1,
        )  # fmt: skip


def seconds_of(models):
    """(processor seconds, estimates) of the grid over models that were never asked about."""
    host, cells, count = machine(memory=1 << 50), list(grid()), 0
    gc.collect()
    gc.freeze()  # what other tests left is no part of an estimate
    started = time.process_time()
    for m in models:
        for setting in cells:
            try:
                count += footprint(m, setting, host).total_bytes > 0
            except BadInput:
                continue
    seconds = time.process_time() - started
    gc.unfreeze()
    return seconds, count


def test_a_part_of_the_grid_is_quick():
    """Half a millisecond an estimate: for slow machines more than twice what these models take."""
    seconds, count = seconds_of([model(name) for name in ("Llama-3.1-8B", "gemma-3-1b", "DeepSeek-V2", "Qwen3-Next")])

    assert count > 500
    assert seconds / count < 0.0005


@pytest.mark.slow
def test_the_whole_grid_takes_a_second(truth_dir):
    """57 models × 144 settings: one second of one core, the best of three."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    import build_ledger

    configs = Path(truth_dir, "configs")
    names = build_ledger.GRID_MODELS
    read = {name: json.loads((configs / f"{name.replace('/', '--')}.json").read_text()) for name in names}
    runs = [seconds_of([model_from_config(config, name) for name, config in read.items()]) for _ in range(3)]

    assert runs[0][1] > 8000
    assert min(seconds for seconds, _ in runs) <= 1
