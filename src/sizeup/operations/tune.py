"""Find the fastest setting of a model on this machine by trying, within a time budget and never past the memory budget.

It starts from the plan and moves threads, layers on the GPU, ubatch, flash attention, the KV cache's type and batch,
one at a time. Every trial is kept in the ledger, so that a search that was interrupted goes on where it stopped. MODEL
is a GGUF file, or any model that sizeup knows, with random weights: speed doesn't depend on values.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sizeup.advice.plans import make_plan
from sizeup.engines.llamacpp.command import server_command
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.signals import interruptible
from sizeup.errors import BadInput, SizeupError
from sizeup.measure.ledger import Ledger, Selection
from sizeup.measure.rows import shape_key
from sizeup.measure.simulation import measure_file, worker_python
from sizeup.measure.tune import METHOD, Candidate, Search, Trial, Work, moves, trial_of, trial_row
from sizeup.operations.serving import Served, Wish, cores, local_gguf, planned, weights_of
from sizeup.quantity.units import parse_tokens


class TuneRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is tuned, for what work, and for how long."""

    model: Annotated[str, Meta(description="A GGUF file, or a model's name (random weights).")]
    minutes: Annotated[float, Meta(description="The time budget.", gt=0)] = 5.0
    prompt: Annotated[int, Meta(description="Tokens read in each trial.", ge=1)] = 512
    generate: Annotated[int, Meta(description="Tokens generated in each trial.", ge=1)] = 64
    format: Annotated[str, Meta(description="The format of random weights; default: the best plan's.")] = ""
    context: Annotated[str | int, Meta(description="Tokens of context (8192, 32k); default: the best plan's.")] = ""
    caches: Annotated[str, Meta(description="Types that the KV cache may have, with commas: f16,q8_0.")] = "f16"
    again: Annotated[bool, Meta(description="Measure anew what the ledger already has.")] = False
    force: Annotated[bool, Meta(description="Start even from what doesn't fit.")] = False
    no_ledger: Annotated[bool, Meta(description="Don't keep the trials.")] = False
    offline: Annotated[bool, Meta(description="Never use the network.")] = False


class TuneReport(msgspec.Struct, frozen=True):
    """The best trial beside the start. gain: how much less time the work takes, 0.2 for a fifth.

    finished: no further move helps; else the time ran out, or it was interrupted. reused: trials from the ledger.
    """

    model: str
    format: str
    machine: str
    start: Trial
    best: Trial
    trials: tuple[Trial, ...]
    command: str
    finished: bool
    interrupted: bool = False
    reused: int = 0
    kept: int = 0
    notes: tuple[str, ...] = ()
    schema: str = "sizeup.tune/1"

    @property
    def gain(self) -> float:
        """Share of the start's time that the best saves."""
        return 1 - self.best.seconds / self.start.seconds if self.start.seconds else 0.0

    @property
    def exit_code(self) -> int:
        """130 after an interruption, like any interrupted program."""
        return 130 if self.interrupted else 0


def tune(request: TuneRequest) -> TuneReport:
    """Search from the best plan."""
    worker_python()
    caches = tuple(kind.strip() for kind in request.caches.split(",") if kind.strip())
    contexts = (parse_tokens(request.context),) if request.context else None
    wish = Wish(
        model=request.model,
        format=request.format,
        contexts=contexts,
        setting=LlamaSetting(cache_k=caches[0], cache_v=caches[0]),
        random=local_gguf(request.model) is None,
        force=request.force,
        offline=request.offline,
    )
    served = planned(wish)
    if request.prompt + request.generate > served.plan.context:
        raise BadInput(
            f"{request.prompt} + {request.generate} tokens don't fit in a context of {served.plan.context}",
            hint="ask for less, or for more --context",
        )
    with interruptible(), weights_of(served) as path:
        return _Tuning(request, served, path).run(caches)


class _Tuning:
    """One search with its ledger."""

    def __init__(self, request: TuneRequest, served: Served, path: Path) -> None:
        self._request, self._served, self._path = request, served, path
        self._kept = 0
        self._notes: list[str] = []
        self._about: dict[str, Any] = {
            "model": served.model.name,
            "shape": shape_key(served.model),
            "family": served.model.family,
            "engine": "llama.cpp",
            "format": served.format,
            "machine": served.machine.name,
        }

    def run(self, caches: tuple[str, ...]) -> TuneReport:
        """Search until nothing helps, the time is up, or Ctrl-C."""
        request, served = self._request, self._served
        end = time.monotonic() + request.minutes * 60
        most = cores(served.machine) or 1
        start = Candidate(served.plan.setting, most)
        search = Search(
            self._timed,
            Work(request.prompt, request.generate),
            fits=self._fits,
            left=lambda: end - time.monotonic(),
            known=[] if request.again else self._known(),
            on_trial=self._keep,
        )
        ways = moves(
            threads=_thread_counts(most, served.machine.cpu_threads),
            layers=served.model.layers + 1,
            gpu=bool(served.machine.gpus),
            caches=caches,
        )
        interrupted = False
        try:
            search.run(start, ways)
        except KeyboardInterrupt:
            interrupted = True
        return self._report(search, finished=not interrupted and not search.out_of_time, interrupted=interrupted)

    def _report(self, search: Search, *, finished: bool, interrupted: bool) -> TuneReport:
        whole = [trial for trial in search.trials if trial.work == Work(self._request.prompt, self._request.generate)]
        if not whole or whole[0].failed:
            why = whole[0].failed if whole else "it was interrupted"
            raise SizeupError(f"the plan itself could not be timed: {why}", hint="try sizeup bench, or a smaller model")
        best = min(whole, key=lambda trial: trial.seconds)
        name = str(self._served.file or f"{self._served.model.name.rpartition('/')[2]}-{self._served.format}.gguf")
        command = [*server_command(best.candidate.setting, name), "-t", str(best.candidate.threads)]
        return TuneReport(
            model=self._served.model.name,
            format=self._served.format,
            machine=self._served.machine.name,
            start=whole[0],
            best=best,
            trials=tuple(search.trials),
            command=" ".join(command),
            finished=finished,
            interrupted=interrupted,
            reused=sum(trial.kept for trial in search.trials),
            kept=self._kept,
            notes=tuple(self._notes),
        )

    def _timed(self, candidate: Candidate, work: Work) -> tuple[float, float]:
        run = measure_file(
            self._path, candidate.setting, prefill=work.prompt, decode=work.generate, threads=candidate.threads
        )
        return run.seconds("prefilled"), run.seconds("decoded")

    def _fits(self, candidate: Candidate) -> bool:
        return make_plan(self._served.model, candidate.setting, self._served.machine).fits.verdict != "no"

    def _known(self) -> list[Trial]:
        """Trials of the same model, format and machine from before."""
        if self._request.no_ledger:
            return []
        with Ledger() as ledger:
            rows = ledger.rows(Selection(kind="measure", shape=self._about["shape"]))
        same = [row for row in rows if row.method == METHOD and row.machine == self._about["machine"]]
        return [trial for row in same if row.format == self._about["format"] and (trial := trial_of(row))]

    def _keep(self, trial: Trial) -> None:
        if self._request.no_ledger or trial.failed:
            return
        date = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with Ledger() as ledger:
                self._kept += ledger.add([trial_row(trial, self._about | {"date": date})])
        except SizeupError as error:
            if error.message not in self._notes:
                self._notes.append(error.message)


def _thread_counts(cores_: int, threads: int | None) -> tuple[int, ...]:
    """Half of the cores, one less than all, all, and all hardware threads."""
    counts = {max(1, cores_ // 2), max(1, cores_ - 1), cores_, threads or cores_}
    return tuple(sorted(counts))
