"""The search for the fastest setting: against known landscapes, budgets, failures, interruptions, and a real llama.cpp."""

import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sizeup
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.errors import BadInput, MissingPart, SizeupError
from sizeup.measure.ledger import Ledger
from sizeup.measure.simulation import worker_python
from sizeup.measure.tune import NOISE, Candidate, Search, Work, moves, trial_of, trial_row

WORK = Work(512, 64)
START = Candidate(LlamaSetting(context=4096), 4)
MOVES = moves(threads=(1, 2, 3, 4, 8), layers=33, gpu=False, caches=("f16", "q8_0"))


def landscape(candidate, work):
    """Fastest with 3 threads, ubatch 1024 and flash attention."""
    setting = candidate.setting
    slow = 1 + abs(candidate.threads - 3) * 0.3 + abs(setting.ubatch - 1024) / 1024 * 0.5
    slow *= 1.2 if setting.flash_attention != "on" else 1
    return work.prompt / 1000 * slow, work.generate / 50 * slow


def search(timer=landscape, *, left=lambda: 100.0, fits=lambda _: True, known=(), on_trial=lambda _: None):
    return Search(timer, WORK, fits=fits, left=left, known=known, on_trial=on_trial)


def test_the_best_corner_is_found():
    found = search()
    best = found.run(START, MOVES)

    assert best.candidate.threads == 3
    assert best.candidate.setting.ubatch == 1024
    assert best.candidate.setting.flash_attention == "on"
    assert best.work == WORK
    assert not found.out_of_time


def test_short_trials_come_before_long_ones():
    found = search()
    found.run(START, MOVES[:1])
    lengths = [trial.work.prompt for trial in found.trials]

    assert lengths[0] == 512
    assert lengths[1:5] == [64] * 4
    assert lengths.count(512) <= 3 + len(MOVES)


def test_what_does_not_fit_is_never_tried():
    found = search(fits=lambda candidate: candidate.setting.ubatch <= 512)
    best = found.run(START, MOVES)

    assert all(trial.candidate.setting.ubatch <= 512 for trial in found.trials)
    assert best.candidate.setting.ubatch == 512


def test_a_gain_within_the_noise_is_no_gain():
    def flat(candidate, work):
        share = 1 - NOISE / 2 if candidate.threads == 2 else 1
        return work.prompt * share, 0.0

    assert search(flat).run(START, MOVES).candidate == START


def test_what_fails_is_passed_over():
    def timer(candidate, work):
        if candidate.setting.flash_attention == "on":
            raise SizeupError("this GPU can't")
        return landscape(candidate, work)

    found = search(timer)
    best = found.run(START, MOVES)

    assert best.candidate.setting.flash_attention != "on"
    assert any(trial.failed == "this GPU can't" for trial in found.trials)


@given(st.integers(0, 40))
@settings(deadline=None)
def test_the_time_budget_holds(budget):
    clock = [0]

    def timer(candidate, work):
        clock[0] += 1
        return landscape(candidate, work)

    found = search(timer, left=lambda: budget - clock[0])
    best = found.run(START, MOVES)

    assert clock[0] <= max(1, budget)
    assert best.seconds <= found.trials[0].seconds


def test_a_search_goes_on_where_it_stopped():
    kept = []

    def break_off(trial):
        kept.append(trial)
        if len(kept) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(on_trial=break_off).run(START, MOVES)
    rows = [trial_row(trial, {"model": "m", "engine": "llama.cpp"}) for trial in kept]
    again = []
    found = search(known=[trial_of(row) for row in rows], on_trial=again.append)
    best = found.run(START, MOVES)

    assert best.candidate == search().run(START, MOVES).candidate
    assert not {(t.candidate, t.work) for t in again} & {(t.candidate, t.work) for t in kept}


def test_a_trial_survives_the_ledger():
    kept = search()
    kept.run(START, MOVES[:1])
    trial = kept.trials[-1]
    row = msgspec.json.decode(
        msgspec.json.encode(trial_row(trial, {"model": "m", "engine": "e"})),
        type=type(trial_row(trial, {"model": "m", "engine": "e"})),
    )

    assert trial_of(row) == msgspec.structs.replace(trial, kept=True)
    assert trial_of(msgspec.structs.replace(row, method="bench/1")) is None
    assert trial_of(msgspec.structs.replace(row, setting={})) is None


def test_layers_move_only_with_a_gpu():
    plain = {c.setting.gpu_layers for move in MOVES for c in move(START)}
    on_gpu = {c.setting.gpu_layers for move in moves(threads=(4,), layers=33, gpu=True, caches=()) for c in move(START)}

    assert plain == {None}
    assert on_gpu == {None, 29, 31, 32}


def test_a_quantized_cache_keeps_flash_attention():
    now = Candidate(LlamaSetting(cache_k="q8_0", cache_v="q8_0"), 4)

    assert all(c.setting.flash_attention != "off" or c.setting.cache_v == "f16" for move in MOVES for c in move(now))


@pytest.mark.llamacpp
def test_a_real_search_is_kept_and_reused(tmp_path, monkeypatch):
    try:
        python = worker_python()
    except MissingPart as missing:
        pytest.skip(str(missing))
    monkeypatch.setenv("SIZEUP_LLAMACPP_PYTHON", python)
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
    from talking import write_talking

    path = str(write_talking(tmp_path / "tiny.gguf"))
    wanted = {"prompt": 32, "generate": 4, "minutes": 0.1, "context": 512}
    first = sizeup.tune(path, **wanted)
    second = sizeup.tune(path, **wanted | {"minutes": 0.02})
    with Ledger() as ledger:
        rows = ledger.rows()

    assert first.best.seconds <= first.start.seconds
    assert first.kept == len(rows) - second.kept > 0
    assert second.reused > 0
    assert second.start.kept
    assert first.command.startswith("llama-server -m")
    assert f"-t {first.best.candidate.threads}" in first.command


def test_work_must_fit_in_the_context(tmp_path, monkeypatch):
    monkeypatch.setattr("sizeup.operations.tune.worker_python", lambda: sys.executable)
    with pytest.raises(BadInput, match="don't fit in a context of 512"):
        sizeup.tune("Qwen/Qwen3-0.6B", context=512, prompt=512, offline=True)
