"""A step recorded once with open sizes is the step recorded for any batch, sequence and rank, to the byte."""

import operator
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from training_cases import LLAMA

from sizeup.errors import SizeupError
from sizeup.estimate.training import recordings
from sizeup.estimate.training.checks import check
from sizeup.estimate.training.estimate import training_footprint
from sizeup.estimate.training.models import subject_of
from sizeup.estimate.training.open_sizes import Sheet
from sizeup.estimate.training.outline import Log, Outline
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.tape import Blocks, height

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 300).map(lambda n: 8 * n), st.integers(1, 64))
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(["full", "lora", "qlora", "dora"]),
        "precision": st.sampled_from(["fp32", "bf16", "bf16-autocast-fp32-weights", "fp8"]),
        "checkpointing": st.sampled_from(["none", "full", "selective", "2"]),
        "attention": st.sampled_from(["sdpa", "eager"]),
        "loss": st.sampled_from(["standard", "chunked", "fused"]),
        "padding": st.booleans(),
        "accumulating": st.booleans(),
        "lora_dropout": st.sampled_from([0.0, 0.1]),
    },
)
SHARED = st.fixed_dictionaries(
    {},
    optional={
        "optimizer": st.sampled_from(["adamw_fused", "adafactor", "sgd"]),
        "gradient_clip": st.booleans(),
        "data_parallel": st.sampled_from([1, 2]),
        "sharding": st.sampled_from(["none", "zero1", "zero2", "zero3", "fsdp"]),
        "pipeline_parallel": st.sampled_from([1, 2]),
        "micro_batches": st.sampled_from([1, 4]),
        "tensor_parallel": st.sampled_from([1, 2]),
        "sequence_parallel": st.booleans(),
        "loss_parallel": st.booleans(),
        "objective": st.sampled_from(["causal", "dpo"]),
    },
)
MODELS = ("llama", "gemma3_text", "gemma4 experts", "deepseek_v3", "gpt_oss", "phi", "falcon", "t5", "mamba2", "bert")


@pytest.fixture(scope="module")
def shapes(grid):
    """The shapes of small models, one of a kind."""
    return [subject_of(grid["configs"][name]).shape for name in MODELS if name in grid["configs"]]


def chosen(shapes, number, setting, sizes):
    """A shape, and a setting with those sizes that it can have."""
    shape = shapes[number % len(shapes)]
    made = TrainSetting(**setting, batch=sizes[0], sequence=sizes[1], lora_rank=sizes[2])
    try:
        check(made, shape, None)
    except SizeupError:
        assume(False)
    return shape, made


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 99), SETTINGS, SIZES, SIZES)
def test_a_recording_holds_elsewhere(shapes, number, setting, here, there):
    """Where its decisions would be the same, every log of the recording is the one recorded there."""
    shape, first = chosen(shapes, number, setting, here)
    shape, second = chosen(shapes, number, setting, there)
    recording = recordings.new_recording(shape, first)
    assert recording.formulas is not None
    for elsewhere in (first, second):
        amounts = recording.amounts(recordings.values_of(elsewhere))
        if amounts is None:
            continue
        plain = recordings.new_recording(shape, elsewhere, opened=False).recording
        sized, blocks = recording.sized(amounts), recording.blocks(amounts)
        assert sized.order == plain.order
        outline = Outline(sized)
        for key, piece in plain.pieces.items():
            assert sized.pieces[key].weights == piece.weights
            for log, other in ((outline.forward, piece.forward), (outline.backward, piece.backward)):
                expected = height(other)
                assert [log[key].height(blocks) for _ in range(6)] == [expected] * 6
                assert log[key].by_label(blocks) == Log(other).by_label(Blocks())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), SETTINGS, SHARED, SHARED, SIZES, SIZES)
def test_what_is_kept_changes_no_answer(shapes, number, setting, one, other, here, there):
    """A footprint is the same after any other of the same model as when it is the first."""
    shape, first = chosen(shapes, number, setting | one, here)
    shape, second = chosen(shapes, number, setting | other, there)
    recordings.kept.clear()
    alone = training_footprint(shape, second)
    recordings.kept.clear()
    training_footprint(shape, first)
    assert [training_footprint(shape, second) for _ in range(6)] == [alone] * 6


def test_one_recording_for_a_whole_sweep(monkeypatch):
    runs = []
    record = recordings.record
    monkeypatch.setattr(recordings, "record", lambda *args, **named: runs.append(1) or record(*args, **named))
    recordings.kept.clear()
    shape = subject_of(LLAMA).shape
    sizes = product((1, 2, 4, 8, 16), (512, 1000, 2048, 4096), (8, 64), ("adamw_fused", "sgd"))
    for batch, sequence, rank, optimizer in sizes:
        setting = TrainSetting(method="lora", batch=batch, sequence=sequence, lora_rank=rank, optimizer=optimizer)
        training_footprint(shape, setting)
    assert len(runs) <= 2


@pytest.mark.parametrize("setting", [{}, {"method": "lora", "checkpointing": "full"}, {"loss": "chunked"}], ids=str)
def test_sequences_of_a_token_or_two(grid, setting):
    """Where slices are whole tensors and sums are of one row, every family still runs, and takes no more than for many."""
    for config in grid["configs"].values():
        shape = subject_of(config).shape
        peaks = [training_footprint(shape, TrainSetting(**setting, sequence=n)).peak_bytes for n in (1, 2, 3, 512)]
        assert max(peaks) == peaks[-1]


def test_recordings_that_are_kept_are_bounded():
    recordings.kept.clear()
    shape = subject_of(LLAMA | {"num_hidden_layers": 1}).shape
    for number in range(recordings.LIMIT + 20):
        recordings.recording_of(shape, TrainSetting(method="lora", lora_dropout=number / 1000, sequence=64))
    assert sum(map(len, recordings.kept.values())) == recordings.LIMIT
    recordings.kept.clear()


def test_a_program_that_needs_numbers_gets_them(monkeypatch):
    """What only an integer can do is recorded for the sizes at hand alone."""
    segments = recordings.segments

    def halved(shape, run):
        found = segments(shape, run)
        start = found[0].run

        def run_halved(build, state):
            build.tape.transient(round(build.sequence * 0.5))
            start(build, state)

        return [type(found[0])(found[0].key, run_halved, found[0].name), *found[1:]]

    monkeypatch.setattr(recordings, "segments", halved)
    recordings.kept.clear()
    shape = subject_of(LLAMA).shape
    for sequence in (64, 65536, 64):
        recording, amounts = recordings.recording_of(shape, TrainSetting(sequence=sequence))
        assert (recording.formulas, amounts, recording.values[1]) == (None, [], sequence)
        assert next(iter(recording.recording.pieces.values())).forward[0] == max(512, sequence // 2)
    recordings.kept.clear()


OPERATIONS = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv, "%": operator.mod,
    "b": max, "<": operator.lt, "=": operator.eq,
}  # fmt: skip
STEPS = st.lists(
    st.tuples(st.sampled_from("+-*/%<=b"), st.integers(0, 20), st.one_of(st.integers(1, 12), st.integers(-20, -1))),
    max_size=25,
)


def computed(sizes, steps):
    """What a program makes of the sizes: each step takes what an earlier one made, and a number or another one."""
    found, outcomes = list(sizes), []
    for operation, left, right in steps:
        a = found[left % len(found)]
        b = found[right % len(found)] if right < 0 else right
        if operation in "/%" and not b:
            continue
        if operation in "<=":
            outcomes.append(bool(OPERATIONS[operation](a, b)))
            continue
        found.append(OPERATIONS[operation](a, b))
    return found, outcomes


@settings(max_examples=300)
@given(st.tuples(st.integers(1, 50), st.integers(1, 5000)), st.tuples(st.integers(1, 50), st.integers(1, 5000)), STEPS)
def test_arithmetic_is_done_again(here, there, steps):
    """A sheet's amounts are those of the same arithmetic with integers, where the same is decided."""
    sheet = Sheet(here)
    made, outcomes = computed(sheet.open, [step for step in steps if step[0] != "%" or step[2] > 0])
    for values in (here, there):
        try:
            expected, decided = computed(values, [step for step in steps if step[0] != "%" or step[2] > 0])
        except ZeroDivisionError:
            continue
        amounts = sheet.closed().amounts(values)
        if values == here:
            assert amounts is not None
            assert decided == outcomes
        if amounts is not None:
            found = [amounts[size.number] if type(size) is not int else size for size in made]
            assert (found, outcomes) == (expected, decided)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.lists(st.integers(1, 9), min_size=5, max_size=5))
def test_points_left_out_are_never_the_highest(numbers, sizes):
    """For any sizes, the height of a log in short is the height of the log, first reached at the same entry."""
    entries, alive = [], []
    for place, number in enumerate(numbers):
        if place % 3 == 2 and alive:
            entries.append(-(alive.pop(number % len(alive)) << 9))
        else:
            alive.append(number)
            entries.append(number << 9)
    blocks = Blocks({number: sizes[number - 1] for number in range(1, 6)})
    log = Log(tuple(entries))
    assert [log.height(blocks) for _ in range(6)] == [height(entries, blocks)] * 6
