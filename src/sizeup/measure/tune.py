"""Finds the fastest setting by trying: one setting after another is moved, short trials first, long ones for the best.

Coordinate search with successive halving (Jamieson and Talwalkar 2016): of the values of one setting all are tried on
an eighth of the work, the better half on a quarter, and so on until two are left for the whole. A value is taken when
it is faster by more than NOISE. Trials that were made before are not made again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.errors import SizeupError
from sizeup.measure.rows import Row
from sizeup.progress import tell

#: How a row of the ledger names what this module does; raised when a change alters its numbers.
METHOD = "tune/1"
#: A gain below this share may be chance.
NOISE = 0.02
_UBATCHES = (128, 256, 512, 1024, 2048)
_LEAST_SHARE = 8


class Candidate(msgspec.Struct, frozen=True):
    """One way to run: what llama.cpp is told, and its threads."""

    setting: LlamaSetting
    threads: int


class Work(msgspec.Struct, frozen=True):
    """What is timed: tokens read at once, then tokens generated."""

    prompt: int
    generate: int

    def share(self, divisor: int) -> Work:
        """A part of it, at least a token of each."""
        return Work(max(1, self.prompt // divisor), max(1, self.generate // divisor))


class Trial(msgspec.Struct, frozen=True):
    """A candidate that was timed. failed: why it couldn't be; then the seconds are 0. kept: known from before."""

    candidate: Candidate
    work: Work
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    failed: str = ""
    kept: bool = False

    @property
    def seconds(self) -> float:
        """All of it; endless when it failed."""
        return math.inf if self.failed else self.prefill_seconds + self.decode_seconds


#: Times a candidate on some work: seconds of prefill and of decode. Raises SizeupError when it can't run.
Timer = Callable[[Candidate, Work], tuple[float, float]]


class Search:
    """A search in progress.

    fits: whether the estimate says that a candidate stays within the memory budget; others are never tried.
    left: seconds of the time budget. known: trials from before. on_trial: hears each new trial.
    """

    def __init__(
        self,
        timer: Timer,
        work: Work,
        *,
        fits: Callable[[Candidate], bool],
        left: Callable[[], float],
        known: Iterable[Trial] = (),
        on_trial: Callable[[Trial], None] = lambda _: None,
    ) -> None:
        self._timer, self._work, self._fits, self._left, self._on_trial = timer, work, fits, left, on_trial
        self._known = {(trial.candidate, trial.work): trial for trial in known}
        self.trials: list[Trial] = []

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is spent."""
        return self._left() <= 0

    def run(self, start: Candidate, moves: Sequence[Callable[[Candidate], Iterable[Candidate]]]) -> Trial:
        """The best trial of the whole work. The start is always tried, whatever the time."""
        best = self._timed(start, self._work)
        moved = True
        while moved and not self.out_of_time:
            moved = False
            for move in moves:
                if self.out_of_time:
                    break
                found = self._halved(best, self._admitted(move(best.candidate), best.candidate))
                if found.seconds < best.seconds * (1 - NOISE):
                    best, moved = found, True
        return best

    def _admitted(self, candidates: Iterable[Candidate], current: Candidate) -> list[Candidate]:
        others = [candidate for candidate in dict.fromkeys(candidates) if candidate != current]
        return [candidate for candidate in others if self._fits(candidate)]

    def _halved(self, best: Trial, candidates: list[Candidate]) -> Trial:
        """The best of these, or the best so far when the time runs out."""
        divisor = _LEAST_SHARE
        while len(candidates) > 1 and divisor > 1:
            trials = [self._timed(candidate, self._work.share(divisor)) for candidate in self._while_time(candidates)]
            working = sorted((trial for trial in trials if not trial.failed), key=lambda trial: trial.seconds)
            candidates = [trial.candidate for trial in working[: math.ceil(len(candidates) / 2)]]
            divisor //= 2
        finals = [self._timed(candidate, self._work) for candidate in self._while_time(candidates)]
        return min([best, *finals], key=lambda trial: trial.seconds)

    def _while_time(self, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        for candidate in candidates:
            if self.out_of_time:
                return
            yield candidate

    def _timed(self, candidate: Candidate, work: Work) -> Trial:
        trial = self._known.get((candidate, work))
        if trial is None:
            tell(f"trying {words(candidate)}", len(self.trials))
            try:
                trial = Trial(candidate, work, *self._timer(candidate, work))
            except SizeupError as error:
                trial = Trial(candidate, work, failed=error.message)
            self._on_trial(trial)
            self._known[candidate, work] = trial
        self.trials.append(trial)
        return trial


def words(candidate: Candidate) -> str:
    """The settings that are moved, in a line."""
    setting = candidate.setting
    cache = setting.cache_k if setting.cache_k == setting.cache_v else f"{setting.cache_k}/{setting.cache_v}"
    layers = "all" if setting.gpu_layers in {None, -1} else str(setting.gpu_layers)
    return (
        f"{candidate.threads} threads, ubatch {setting.ubatch}, batch {setting.batch}, KV {cache}, "
        f"flash attention {setting.flash_attention}, GPU layers {layers}"
    )


def moves(
    *, threads: Sequence[int], layers: int, gpu: bool, caches: Sequence[str]
) -> list[Callable[[Candidate], Iterable[Candidate]]]:
    """How a candidate may be changed, one setting at a time, the most telling first.

    layers: of the model, the output layer included; only moved with a GPU. caches: types that the KV cache may have.
    """
    found: list[Callable[[Candidate], Iterable[Candidate]]] = [
        lambda now: (msgspec.structs.replace(now, threads=count) for count in threads)
    ]
    if gpu:
        found.append(lambda now: _layers(now, layers))
    found += [
        lambda now: (_with(now, ubatch=size, batch=max(size, now.setting.batch)) for size in _UBATCHES),
        lambda now: (_with(now, flash_attention=way) for way in ("on", "off")),
        lambda now: (_with(now, cache_k=kind, cache_v=kind) for kind in caches),
        lambda now: (_with(now, batch=size) for size in (512, 2048, 4096) if size >= now.setting.ubatch),
    ]
    return found


def _layers(now: Candidate, layers: int) -> Iterator[Candidate]:
    current = layers if now.setting.gpu_layers in {None, -1} else now.setting.gpu_layers or 0
    for step in (-4, -2, -1, 1, 2, 4):
        if 0 <= current + step <= layers:
            yield _with(now, gpu_layers=current + step)


def _with(now: Candidate, **changes: Any) -> Candidate:
    setting = msgspec.structs.replace(now.setting, **changes)
    quantized = setting.cache_v not in {"f16", "f32", "bf16"}
    if quantized and setting.flash_attention == "off":
        return now
    return msgspec.structs.replace(now, setting=setting)


def trial_row(trial: Trial, about: Mapping[str, Any]) -> Row:
    """A trial as a row of the ledger. about: the fields that all trials of a search share."""
    return Row(
        kind="measure",
        components={"prefill": trial.prefill_seconds, "decode": trial.decode_seconds},
        source="sizeup",
        setting=msgspec.to_builtins(trial.candidate),
        workload=msgspec.to_builtins(trial.work),
        unit="seconds",
        method=METHOD,
        **about,
    )


def trial_of(row: Row) -> Trial | None:
    """The trial that a row keeps; None for any other row."""
    if row.method != METHOD or row.unit != "seconds":
        return None
    try:
        candidate = msgspec.convert(row.setting, Candidate)
        work = msgspec.convert(row.workload, Work)
    except msgspec.ValidationError:
        return None
    return Trial(candidate, work, float(row.components["prefill"]), float(row.components["decode"]), kept=True)
