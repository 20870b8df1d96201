"""Models that scan: against simulated steps, and what must hold at any length of the sequence."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_cases import estimated

from sizeup.errors import BadConfig, BadInput
from sizeup.estimate.training import loops
from sizeup.estimate.training.architectures.chunk_scan import Chunks
from sizeup.estimate.training.architectures.decoder import segments
from sizeup.estimate.training.architectures.reordered import contracted
from sizeup.estimate.training.architectures.sums import running_sum, segment_sum
from sizeup.estimate.training.build import Build, Method
from sizeup.estimate.training.models import subject_of
from sizeup.estimate.training.program import record
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.step import counted_weights
from sizeup.estimate.training.tape import Parameter, Tape, height, net, rounded
from sizeup.models.config import Config
from sizeup.models.from_config import model_from_config
from sizeup.operations.train import TrainRequest, train

SCRIPT = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "training_grid.py")))
SCANS, DEFAULT = SCRIPT.SCANS, SCRIPT.DEFAULT
BY_TOKEN = SCRIPT.BY_TOKEN


def recorded(name, sequence=48, batch=2, **run):
    """The pieces of a small model's step in bf16."""
    build = Build(Tape(), Method(item=2), batch, sequence)
    return record(build, segments(subject_of(SCRIPT.config_of(name)).shape, Run(**run)), keeps_outputs=False)


def heights(recording):
    """What every piece reaches and leaves, forward and backward."""
    logs = [log for piece in recording.pieces.values() for log in (piece.forward, piece.release, piece.backward)]
    return [(height(log).top, net(log)) for log in logs]


def test_estimates_agree_with_simulated_steps(grid):
    """Every family, each with six to ten settings: within a hundredth of a per cent."""
    rows = [row for row in grid["rows"] if row[0] in SCANS]
    assert {name for name, *_ in rows} == set(SCANS)
    for name, label, peak in rows:
        setting = DEFAULT | SCRIPT.SETTINGS[label]
        assert estimated(grid["configs"][name], setting).peak_bytes == pytest.approx(peak, rel=1e-4), (name, label)


@pytest.mark.parametrize("name", SCANS)
def test_nothing_is_guessed_and_the_road_is_named(name):
    found = subject_of(SCRIPT.config_of(name))
    assert found.uncertainty == 0
    assert any("writes them out in Python" in note for note in found.notes)


@pytest.mark.parametrize("name", SCANS)
def test_all_weights_are_there(name, grid):
    """Those that train are the model's own parameters, as its description counts them."""
    config = grid["configs"][name]
    weights = counted_weights(record_of(config))
    trained = sum(weight.n * count for weight, count in weights if weight.trains)
    assert trained == model_from_config(Config(config, "the configuration")).parameters


def record_of(config):
    build = Build(Tape(), Method(item=2), 2, 8)
    return record(build, segments(subject_of(config).shape, Run()), keeps_outputs=False)


@pytest.mark.parametrize("name", BY_TOKEN)
@pytest.mark.parametrize("again", [(), (True,) * 5])
def test_a_few_runs_of_the_loop_stand_for_all(name, again, monkeypatch):
    """Each token's own run gives the same heights, to the byte."""
    few = heights(recorded(name, 23, checkpoint=again))
    monkeypatch.setattr(loops, "RUNS", 100)
    assert heights(recorded(name, 23, checkpoint=again)) == few


@pytest.mark.parametrize("name", SCANS)
def test_the_work_does_not_grow_with_the_sequence(name):
    short, long = (
        sum(len(piece.forward) + len(piece.backward) for piece in recorded(name, tokens).pieces.values())
        for tokens in (512, 1 << 20)
    )
    assert short == long


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(SCANS)), st.integers(1, 3), st.integers(1, 400))
def test_one_more_token_or_sequence_never_takes_less(name, batch, sequence):
    config = SCRIPT.config_of(name)
    peaks = [
        estimated(config, DEFAULT | {"batch": b, "sequence": s}).peak_bytes
        for b, s in ((batch, sequence), (batch, sequence + 1), (batch + 1, sequence))
    ]
    assert peaks[0] <= peaks[1]
    assert peaks[0] <= peaks[2]


def test_a_chunk_twice_as_long_has_twice_the_pairs():
    """Of each pair of tokens a layer keeps decay, product and both, in fp32; of each chunk half as many states."""
    config = SCRIPT.config_of("mamba2")
    setting = DEFAULT | {"batch": 1, "sequence": 4096}
    small, large = (estimated(config | {"chunk_size": size}, setting).peak_bytes for size in (256, 512))
    tokens, layers = 4096, config["num_hidden_layers"]
    pairs = 3 * 4 * tokens * config["num_heads"] * 256
    states = 3 * 4 * (tokens // 512) * config["num_heads"] * config["head_dim"] * config["state_size"]
    assert large - small == pytest.approx((pairs - states) * layers, rel=0.05)


def test_several_chunks_are_copied_and_one_is_not():
    one, two = Chunks(1, 1, 8, 2, 4, 4), Chunks(1, 2, 8, 2, 4, 4)
    assert (one.several, one.apart) == (False, False)
    assert (two.several, two.apart) == (True, True)
    sizes = []
    for chunks in (one, two):
        tape = Tape()
        a, b = tape.value(1024, 4), tape.value(1024, 4)
        contracted(tape, a, b, 256, copies=(chunks.several, chunks.several))
        sizes.append(sum(entry >> 9 << 9 for entry in tape.log if entry > 0))
    assert sizes[1] - sizes[0] == 2 * rounded(4096)


def test_a_running_sum_turns_its_gradient_round():
    """Three tensors of its size at once, of which one remains."""
    tape = Tape()
    x = Parameter(1000, 4, None, needs=True)
    output = running_sum(tape, x)
    start = len(tape.log)
    output.node.grads[0] = tape.value(1000, 4)
    tape.backward()
    assert height(tape.log[start:]).top == 4 * rounded(4000)


def test_segment_sums_keep_two_masks():
    tape = Tape()
    sums = segment_sum(tape, Parameter(64 * 10, 4, None, needs=True), 64)
    assert net(tape.log) == rounded(4 * sums.n) + 2 * rounded(64 * 64)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("zamba", "layers_block_type", ["hybrid"]), ("nemotron_h", "layers_block_type", ["linear_attention", "swamp"])],
)
def test_kinds_of_layers_that_make_no_model(name, field, value):
    with pytest.raises(BadConfig) as error:
        subject_of(SCRIPT.config_of(name) | {field: value})
    assert field in str(error.value)


FAST = {"kernels": "fast"}


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("label", ["bf16", "autocast checkpointed", "lora of inputs", "padded"])
def test_kernels_take_less(name, label):
    """They keep less than what is written out in Python, never less than the projections."""
    config, setting = SCRIPT.config_of(name), DEFAULT | SCRIPT.SETTINGS[label]
    slow, fast = (estimated(config, setting | more).peak_bytes for more in ({}, FAST))
    assert 0.1 * slow < fast < slow


def test_what_the_kernels_of_mamba2_keep():
    """A layer: the norm's own, the projection's output, the scan's, and 4 bytes for each token and group."""
    kept = {}
    for layers in (2, 3):
        build = Build(Tape(), Method(item=2), 2, 512)
        shape = subject_of(SCRIPT.config_of("mamba2") | {"num_hidden_layers": layers}).shape
        made = record(build, segments(shape, Run(kernels=True)), keeps_outputs=False)
        kept[layers] = sum(net(made.pieces[key].forward) + net(made.pieces[key].release) for key in made.order)
    tokens, hidden, inner, groups, state, heads = 1024, 512, 1024, 2, 48, 16
    projected = 2 * inner + 2 * groups * state + heads
    norm = tokens * (2 * hidden + 4 + 2 * hidden)
    stream = 4 * tokens * hidden
    expected = norm + stream + 2 * tokens * (projected + inner) + 4 * tokens * groups
    assert kept[3] - kept[2] == pytest.approx(expected, rel=0.15)


def test_kernels_widen_the_range_and_are_named():
    report = train(TrainRequest(model=SCRIPT.config_of("mamba2"), sequence=256, kernels="fast"))
    assert report.uncertainty > 0
    assert any("not checked by simulation" in note for note in report.notes)


@pytest.mark.parametrize("name", ["llama", "qwen3_next", "t5"])
def test_kernels_for_a_model_without_mamba_are_refused(name, grid):
    with pytest.raises(BadInput) as error:
        train(TrainRequest(model=grid["configs"][name], sequence=256, kernels="fast"))
    assert "kernels" in str(error.value)
    assert error.value.hint


@pytest.mark.parametrize("name", ["tensor_parallel", "context_parallel"])
def test_a_scan_is_not_split(name):
    with pytest.raises(BadInput) as error:
        train(TrainRequest(model=SCRIPT.config_of("bamba"), sequence=256, **{name: 2}))
    assert name in str(error.value)
    assert "fsdp" in error.value.hint
