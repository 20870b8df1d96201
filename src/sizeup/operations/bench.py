"""Measure a model, or a server that runs: how fast it reads and writes, how long one waits, what it holds.

MODEL is the path of a GGUF file, the name that Ollama or LM Studio keeps one by, the address of a server
(http://host:port), with --engine transformers a folder of safetensors, or any model that sizeup knows: that one is
measured with random weights of the same shape, since bytes and speed don't depend on values. Each setting is warmed
up, repeated, set beside the prediction and kept in the ledger at once, so that an interruption loses nothing that was
finished. --memory measures a load's memory instead: the engine's own buffers, and the process by kind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sizeup.engines.http import address
from sizeup.engines.launch import LOCAL, Server
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.openai import probe
from sizeup.engines.protocol import Endpoint
from sizeup.engines.registry import attach, is_address
from sizeup.engines.signals import interruptible
from sizeup.errors import BadInput, NetworkError, SizeupError
from sizeup.machines.device import Machine
from sizeup.machines.spec import load_machine
from sizeup.measure.bench.cells import Cell, cells, context_for
from sizeup.measure.bench.client import Client
from sizeup.measure.bench.compare import Change, changes, earlier
from sizeup.measure.bench.html import page
from sizeup.measure.bench.memory import measured_memory, records
from sizeup.measure.bench.memory_report import MemoryReport
from sizeup.measure.bench.resources import listener_pid
from sizeup.measure.bench.results import CellResult, Prediction
from sizeup.measure.bench.rows import Subject, rows
from sizeup.measure.bench.runner import bench as measure_cells
from sizeup.measure.ledger import Ledger, Selection, shipped
from sizeup.measure.rows import ModelRecord, Row
from sizeup.operations.prediction import predict
from sizeup.operations.serving import (
    Served,
    Wish,
    cores,
    has_weights,
    local_gguf,
    plain_format,
    planned,
    serving,
)
from sizeup.quantity.units import parse_tokens

_LOCAL_HOSTS = {LOCAL, "localhost", "::1"}


class BenchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured, and how thoroughly."""

    model: Annotated[str, Meta(description="A GGUF file, a server's address, or a model's name (random weights).")]
    prompt: Annotated[str, Meta(description="Prompt lengths in tokens, with commas.")] = "128,512"
    depth: Annotated[str, Meta(description="Tokens already in the cache, with commas.")] = "0"
    generate: Annotated[int, Meta(description="Tokens generated after each prompt.")] = 64
    concurrency: Annotated[str, Meta(description="Requests at once, with commas.")] = "1"
    repetitions: Annotated[int, Meta(description="Runs of each setting.")] = 3
    memory: Annotated[bool, Meta(description="Measure a load's memory instead of speed.")] = False
    random: Annotated[bool, Meta(description="Random weights of the same shape, even where a file is there.")] = False
    compare: Annotated[str, Meta(description="Beside earlier runs: `last`, or another model's name.")] = ""
    html: Annotated[str, Meta(description="Write the report with charts to this HTML file.")] = ""
    engine: Annotated[
        Literal["", "llama.cpp", "ollama", "vllm", "lmstudio", "mlx", "openai", "transformers"],
        Meta(description="What the server is; default: it is asked."),
    ] = ""
    name: Annotated[str, Meta(description="Which of a server's models; default: its first.")] = ""
    format: Annotated[str, Meta(description="The format of random weights; default: the best plan's.")] = ""
    kv: Annotated[str, Meta(description="Cache type: f16, q8_0, q4_0; or K/V as q8_0/q4_0.")] = "f16"
    gpu_layers: Annotated[int | None, Meta(description="Layers on the GPUs; -1 all; default: as many as fit.")] = None
    flash_attention: Annotated[Literal["auto", "on", "off"], Meta(description="Fused attention.")] = "auto"
    ubatch: Annotated[int, Meta(description="Tokens computed at once while reading a prompt.")] = 512
    threads: Annotated[int | None, Meta(description="Threads on the CPU; default: its cores.")] = None
    force: Annotated[bool, Meta(description="Measure even what doesn't fit.")] = False
    offline: Annotated[bool, Meta(description="Never use the network.")] = False
    no_ledger: Annotated[bool, Meta(description="Don't keep the rows.")] = False


class BenchReport(msgspec.Struct, frozen=True):
    """What was measured.

    how: what served it. weights: `file`, `random`, or `served` by an endpoint. kept: rows that are new in the ledger.
    interrupted: it was stopped before the last setting; what is here was finished.
    """

    model: str
    format: str
    engine: str
    version: str
    how: str
    machine: str
    weights: str
    results: tuple[CellResult, ...] = ()
    changes: tuple[Change, ...] = ()
    memory: MemoryReport | None = None
    kept: int = 0
    html: str | None = None
    interrupted: bool = False
    notes: tuple[str, ...] = ()
    schema: str = "sizeup.bench/1"

    @property
    def exit_code(self) -> int:
        """130 after an interruption, like any interrupted program."""
        return 130 if self.interrupted else 0


def bench(request: BenchRequest) -> BenchReport:
    """Measure what is asked for."""
    if request.repetitions < 1:
        raise BadInput(f"repetitions is {request.repetitions}", hint="repetitions is 1 or more")
    wanted = cells(_lengths(request.prompt), _lengths(request.depth), request.generate, _lengths(request.concurrency))
    if request.html:
        _check_writable(request.html)
    with interruptible():
        if is_address(request.model):
            return _finished(request, _bench_endpoint(request, wanted))
        served = planned(_wish(request, wanted))
        if request.memory:
            return _bench_memory(request, served)
        return _finished(request, _bench_served(request, served, wanted))


def _bench_endpoint(request: BenchRequest, wanted: tuple[Cell, ...]) -> BenchReport:
    if request.memory:
        raise BadInput("--memory loads a model itself, and an address was given", hint="give a model or a GGUF file")
    engine, endpoint = attach(request.model, engine=request.engine, model=request.name)
    there = address(endpoint.url)
    pid = listener_pid(there.port) if there.host in _LOCAL_HOSTS else None
    machine = load_machine(None).name if there.host in _LOCAL_HOSTS else there.authority
    subject = Subject(_served_name(endpoint.model), engine.name, endpoint.version, machine, "", weights="served")
    collected = _Collected(request, subject)
    client = Client(engine, endpoint, _vocabulary(endpoint))
    deep = any(cell.depth for cell in wanted) and not engine.reuses
    collected.notes += (
        [f"{engine.name} may not keep prompts in its cache: depths are part of the prompt"] if deep else []
    )
    collected.collect(measure_cells(client, wanted, repetitions=request.repetitions, pid=pid), len(wanted))
    return collected.report(f"attached to {endpoint.url}")


def _bench_served(request: BenchRequest, served: Served, wanted: tuple[Cell, ...]) -> BenchReport:
    with serving(served, request.engine or "llama.cpp", threads=request.threads) as (engine, server):
        endpoint = server.endpoint
        collected = _Collected(request, _subject(served, endpoint))
        client = Client(engine, endpoint, served.model.vocabulary or _vocabulary(endpoint))

        def expected(cell: Cell) -> Prediction:
            return predict(served, cell, request.threads, engine=engine.name)

        results = measure_cells(client, wanted, repetitions=request.repetitions, pid=server.pid, predict=expected)
        collected.collect(results, len(wanted), server)
        return collected.report(server.how)


def _bench_memory(request: BenchRequest, served: Served) -> BenchReport:
    threads = request.threads or cores(served.machine) or 1
    found = measured_memory(served.model, served.plan.setting, served.file, threads=threads, date=_today())
    collected = _Collected(request, _subject(served, Endpoint("", "llama.cpp", version=found.version)))
    collected.keep([*found.rows, *records(served.model)])
    return msgspec.structs.replace(collected.report("llama-cpp-python"), memory=found)


class _Collected:
    """Results as they come, each kept in the ledger at once."""

    def __init__(self, request: BenchRequest, subject: Subject) -> None:
        self._request, self._subject = request, subject
        self._before = _earlier(request.compare, subject.name)
        self._results: list[CellResult] = []
        self._kept = 0
        self._interrupted = False
        self.notes: list[str] = []

    def collect(self, results: Iterator[CellResult], wanted: int, server: Server | None = None) -> None:
        """Take all results; after Ctrl-C, or when the server fails, keep those that are finished."""
        try:
            for result in results:
                self._results.append(result)
                self.keep(rows(self._subject, result, _today()))
        except KeyboardInterrupt:
            self._interrupted = True
            self.notes.append(f"interrupted after {len(self._results)} of {wanted} settings")
        except NetworkError as error:
            raise self._failure(error, wanted, server) from error

    def keep(self, new: Iterable[Row | ModelRecord]) -> None:
        """Add rows to the ledger. When it can't hold them, the bench goes on and says so."""
        if self._request.no_ledger:
            return
        try:
            with Ledger() as ledger:
                self._kept += ledger.add(new)
        except SizeupError as error:
            if error.message not in self.notes:
                self.notes.append(error.message)

    def report(self, how: str) -> BenchReport:
        """All of it."""
        subject = self._subject
        return BenchReport(
            model=subject.name,
            format=subject.format,
            engine=subject.engine,
            version=subject.version,
            how=how,
            machine=subject.machine,
            weights=subject.weights,
            results=tuple(self._results),
            changes=changes(self._results, self._before),
            kept=self._kept,
            interrupted=self._interrupted,
            notes=tuple(self.notes),
        )

    def _failure(self, error: NetworkError, wanted: int, server: Server | None) -> SizeupError:
        finished = f"; {len(self._results)} of {wanted} settings were finished"
        finished += f" and {self._kept} rows kept in the ledger" if self._kept else ""
        if server is not None and server.wait(1.0) is not None:
            words = server.last_words(300).splitlines()
            said = f" with the words {words[-1]!r}" if words else ""
            return SizeupError(f"the server ended in the middle{said}{finished}", hint="look at free memory")
        return type(error)(error.message + finished, hint=error.hint)


def _finished(request: BenchRequest, report: BenchReport) -> BenchReport:
    """The report, its page written. A page that can't be written doesn't cost the results."""
    if not request.html:
        return report
    try:
        Path(request.html).expanduser().write_text(page(_title(report), report.results, report.changes), "utf-8")
    except OSError as error:
        return msgspec.structs.replace(report, notes=(*report.notes, f"can't write {request.html}: {error.strerror}"))
    return msgspec.structs.replace(report, html=request.html)


def _title(report: BenchReport) -> tuple[str, str]:
    engine = " ".join(filter(None, (report.engine, report.version)))
    what = "random weights" if report.weights == "random" else ""
    return " ".join(filter(None, (report.model, report.format))), ", ".join(
        filter(None, (engine, report.machine, what))
    )


def _wish(request: BenchRequest, wanted: tuple[Cell, ...]) -> Wish:
    keys, _, values = request.kv.partition("/")
    context, sequences = context_for(wanted)
    setting = LlamaSetting(
        cache_k=keys,
        cache_v=values or keys,
        gpu_layers=request.gpu_layers,
        parallel=sequences,
        unified=sequences == 1,
        flash_attention=request.flash_attention,
        ubatch=request.ubatch,
    )
    return Wish(
        model=request.model,
        format=plain_format(request.engine, request.format),
        contexts=(context,),
        setting=setting,
        random=request.random or local_gguf(request.model) is None,
        force=request.force,
        offline=request.offline,
    )


def _subject(served: Served, endpoint: Endpoint) -> Subject:
    machine: Machine = served.machine
    on_gpu = bool(machine.gpus) and served.plan.setting.gpu_layers != 0
    return Subject(
        name=served.model.name,
        engine=endpoint.engine,
        version=endpoint.version,
        machine=machine.name,
        machine_class="unified" if on_gpu and machine.unified else "gpu" if on_gpu else "cpu",
        format=served.format,
        model=served.model,
        setting=served.plan.setting,
        weights="file" if has_weights(endpoint.engine, served) else "random",
    )


def _earlier(compare: str, model: str) -> dict[Cell, Row]:
    if not compare:
        return {}
    wanted = model if compare == "last" else compare
    with Ledger() as ledger:
        mine = ledger.rows(Selection(kind="measure", model=wanted))
    return earlier([*shipped()[0], *mine], wanted)


def _served_name(model: str) -> str:
    """What a server calls its model, without the folders of a file."""
    return Path(model).name if model.endswith(".gguf") else model


def _vocabulary(endpoint: Endpoint) -> int | None:
    """How many token ids the server knows, where it says."""
    props = probe(endpoint.url, "/props")
    size = props.get("vocabulary") if isinstance(props, dict) else None
    return size if isinstance(size, int) else None


def _lengths(text: str) -> tuple[int, ...]:
    return tuple(0 if part.strip() == "0" else parse_tokens(part) for part in text.split(",") if part.strip())


def _check_writable(path: str) -> None:
    try:
        with contextlib.closing(Path(path).expanduser().open("a", encoding="utf-8")):
            pass
    except OSError as error:
        raise SizeupError(f"can't write {path}: {error.strerror}", hint="give another file to --html") from error


def _today() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
