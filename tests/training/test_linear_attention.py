"""Hybrids with linear attention: against simulated steps, and what must hold at any length of the sequence."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_cases import estimated

from sizeup.errors import BadConfig, BadInput
from sizeup.estimate.training import loops
from sizeup.estimate.training.architectures.decoder import segments
from sizeup.estimate.training.basic import multiply
from sizeup.estimate.training.build import Build, Method
from sizeup.estimate.training.models import subject_of
from sizeup.estimate.training.program import record
from sizeup.estimate.training.recordings import recording_of
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.step import counted_weights
from sizeup.estimate.training.tape import Node, Tape, height, net, rounded
from sizeup.estimate.training.tensors import divide, matmul, solve_triangular, turned, written
from sizeup.models.config import Config
from sizeup.models.from_config import model_from_config
from sizeup.operations.train import TrainRequest, train

SCRIPT = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "training_grid.py")))
LINEAR, DEFAULT = SCRIPT.LINEAR, SCRIPT.DEFAULT


def leaf(tape, n, item=4):
    value = tape.value(n, item)
    value.node, value.needs = Node([], lambda _g: (), [None]), True
    return value


def recorded(config, sequence, batch=2, **run):
    """The pieces of a small model's step in bf16."""
    build = Build(Tape(), Method(item=2), batch, sequence)
    return record(build, segments(subject_of(config).shape, Run(**run)), keeps_outputs=False)


def heights(recording):
    """What every piece reaches and leaves, forward and backward."""
    logs = [log for piece in recording.pieces.values() for log in (piece.forward, piece.release, piece.backward)]
    return [(height(log).top, net(log)) for log in logs]


def test_estimates_agree_with_simulated_steps(grid):
    """Every family, each with five to fourteen settings: within a twentieth of a per cent, and a fifth for RecurrentGemma."""
    rows = [row for row in grid["rows"] if row[0] in LINEAR]
    assert {name for name, *_ in rows} == set(LINEAR)
    for name, label, peak in rows:
        found = estimated(grid["configs"][name], DEFAULT | SCRIPT.SETTINGS[label]).peak_bytes
        worst = 2e-3 if name == "recurrent_gemma" else 5e-4
        assert found == pytest.approx(peak, rel=worst), (name, label)


@pytest.mark.parametrize("name", LINEAR)
def test_nothing_is_guessed_and_the_road_is_named(name):
    found = subject_of(SCRIPT.config_of(name))
    assert found.uncertainty == 0
    assert any("writes them out in Python" in note for note in found.notes)


@pytest.mark.parametrize("name", LINEAR)
def test_all_weights_are_there(name, grid):
    """Those that train are the model's own parameters, as its description counts them."""
    config = grid["configs"][name]
    weights = counted_weights(recorded(config, 8))
    trained = sum(weight.n * count for weight, count in weights if weight.trains)
    described = model_from_config(Config(config, "the configuration"))
    extra = sum(tensor.parameters for block in described.blocks if block.stack == "mtp" for tensor in block.tensors)
    assert trained == described.parameters - extra


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("again", [(), (True,) * 6])
def test_a_few_runs_of_the_loop_stand_for_all(name, again, monkeypatch):
    """Each run of its own gives the same heights, to the byte; the last block or chunk may be short."""
    config = SCRIPT.config_of(name)
    for sequence in (64 * 7, 64 * 6 + 5) if name not in SCRIPT.BY_TOKEN else (23,):
        monkeypatch.setattr(loops, "RUNS", 4)
        few = heights(recorded(config, sequence, checkpoint=again))
        monkeypatch.setattr(loops, "RUNS", 100)
        assert heights(recorded(config, sequence, checkpoint=again)) == few


@pytest.mark.parametrize("name", LINEAR)
def test_the_work_does_not_grow_with_the_sequence(name):
    config = SCRIPT.config_of(name)
    short, long = (
        sum(len(piece.forward) + len(piece.backward) for piece in recorded(config, tokens).pieces.values())
        for tokens in (1 << 10, 1 << 20)
    )
    assert short == long


@pytest.mark.parametrize("name", LINEAR)
def test_recorded_once_for_every_length(name):
    """The programs compute with open sizes and don't turn them into numbers."""
    shape = subject_of(SCRIPT.config_of(name)).shape
    fields = {key: value for key, value in DEFAULT.items() if key != "lora_targets"}
    first, second = (
        recording_of(shape, TrainSetting(**(fields | {"batch": b, "sequence": s})))[0] for b, s in ((2, 512), (3, 1536))
    )
    assert first is second


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(LINEAR)), st.integers(1, 3), st.integers(2, 400))
def test_a_longer_sequence_or_one_more_never_takes_less(name, batch, sequence):
    config = SCRIPT.config_of(name)
    peaks = [
        estimated(config, DEFAULT | {"batch": b, "sequence": s}).peak_bytes
        for b, s in ((batch, sequence), (batch, sequence + 64), (batch + 1, sequence))
    ]
    assert peaks[0] <= peaks[1]
    assert peaks[0] <= peaks[2]


def test_decays_of_every_channel_are_kept_for_every_pair():
    """Kimi's attention keeps a decay and two products for each pair of a chunk and channel; a gradient takes three."""
    config = SCRIPT.config_of("kimi_linear")
    wide = config | {"linear_head_dim": 2 * config["linear_head_dim"]}
    setting = DEFAULT | {"batch": 1, "sequence": 1024}
    small, large = (estimated(each, setting).peak_bytes for each in (config, wide))
    pairs = 4 * 1024 * 64 * config["linear_num_heads"] * config["linear_head_dim"]
    layers = config["layer_types"].count("linear_attention")
    assert large - small == pytest.approx(3 * pairs * (layers + 1), rel=0.1)


def test_a_module_that_keeps_its_state_keeps_the_graph_of_a_layer_that_ran_again():
    """RecurrentGemma's recurrence: what a recomputed layer saved stays until its module runs again."""
    config = SCRIPT.config_of("recurrent_gemma")
    once, again = (recorded(config, 32, checkpoint=kinds) for kinds in ((), (True,) * 3))
    states = 4 * 2 * 32 * config["lru_width"]

    def left(recording):
        logs = ((piece.forward, piece.release, piece.backward) for piece in recording.pieces.values() if piece.layer)
        return max(sum(net(log) for log in three) for three in logs)

    assert left(again) - left(once) > 2 * states


def test_writing_in_place_copies_the_gradient_and_clears_the_slice():
    tape = Tape()
    whole, part = leaf(tape, 4096), leaf(tape, 512)
    output = written(tape, whole, part)
    assert output.storage is whole.storage
    start = len(tape.log)
    output.node.grads[0] = tape.value(4096, 4)
    tape.backward()
    assert height(tape.log[start:]).top == 2 * rounded(4 * 4096) + 2 * rounded(4 * 512)


def test_a_triangular_system_keeps_itself_and_its_result():
    tape = Tape()
    system, right = leaf(tape, 64 * 64), leaf(tape, 64 * 16)
    before = net(tape.log)
    output = solve_triangular(tape, system, right)
    del system, right
    assert net(tape.log) - before == rounded(4 * 64 * 16) - rounded(4 * 64 * 16)
    output.node.grads[0] = tape.value(64 * 16, 4)
    start = len(tape.log)
    tape.backward()
    assert height(tape.log[start:]).top == 2 * rounded(4 * 64 * 64) + rounded(4 * 64 * 16)


def test_products_copy_only_what_is_out_of_order():
    sizes = []
    for copies in ((False, False), (True, False), (True, True)):
        tape = Tape()
        a, b = leaf(tape, 1024), leaf(tape, 1024)
        start = len(tape.log)
        _kept = matmul(tape, a, b, 256, copies=copies)
        sizes.append(net(tape.log[start:]))
        del a, b
    assert [size - sizes[0] for size in sizes] == [0, 4096, 2 * 4096]


def test_turning_twice_puts_in_order():
    tape = Tape()
    x = leaf(tape, 256)
    assert turned(tape, x).strided
    assert not turned(tape, turned(tape, x)).strided
    assert divide(tape, x, multiply(tape, x, x)).n == 256


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("qwen3_next", {"linear_num_value_heads": 6}, "linear_num_value_heads"),
        ("olmo_hybrid", {"linear_num_value_heads": 6}, "linear_num_value_heads"),
        ("recurrent_gemma", {"lru_width": 641}, "lru_width"),
        ("qwen3_5_text", {"linear_num_key_heads": 0}, "linear_num_key_heads"),
        ("minimax", {"block_size": 0}, "block_size"),
        ("lfm2", {"conv_L_cache": -1}, "conv_L_cache"),
        ("kimi_linear", {"kv_lora_rank": None}, "kv_lora_rank"),
    ],
)
def test_sizes_that_do_not_fit_are_named(name, wrong, said):
    with pytest.raises(BadConfig, match=said):
        subject_of(SCRIPT.config_of(name) | wrong)


@pytest.mark.parametrize("name", LINEAR)
def test_kernels_that_are_not_modelled_are_refused(name):
    with pytest.raises(BadInput, match="kernels"):
        train(TrainRequest(model=SCRIPT.config_of(name), kernels="fast", batch=1, sequence=64))


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("split", ["tensor_parallel", "context_parallel"])
def test_ranks_do_not_split_what_is_computed_token_after_token(name, split):
    with pytest.raises(BadInput, match=split):
        train(TrainRequest(model=SCRIPT.config_of(name), batch=1, sequence=64, **{split: 2}))
