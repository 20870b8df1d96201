"""Judge the quality of a model's output: loss on text, and coding problems run against hidden tests.

MODEL is the path of a GGUF file, or the address of a server (http://host:port), which can't be asked for losses. With
--reference (the same model in a higher precision) it says what quantization cost: KL divergence and how often both
think the same token likeliest. Coding answers are run in a sandbox without network, home or rights; without one
(bubblewrap, or a container engine) sizeup refuses with exit code 6. --tasks hands standard tasks over to
lm-evaluation-harness in an environment of its own. Results are kept in the ledger, and `advise` counts them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sizeup.engines.launch import LOCAL
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.openai import OpenAI
from sizeup.engines.protocol import Endpoint
from sizeup.engines.registry import attach, is_address
from sizeup.engines.signals import interruptible
from sizeup.errors import BadInput, NotFound, SizeupError
from sizeup.machines.spec import load_machine
from sizeup.measure.ledger import Ledger
from sizeup.measure.quality.answers import MOST_TOKENS
from sizeup.measure.quality.coding import Graded, GradeScore, answerer, grade, scores
from sizeup.measure.quality.loss import LossReport, Wanted, measure_loss
from sizeup.measure.quality.measured import forget
from sizeup.measure.quality.problems import chosen
from sizeup.measure.quality.rows import Subject, coding_row, loss_rows, standard_row
from sizeup.measure.quality.sandbox import Sandbox
from sizeup.measure.quality.sandboxes import Bare, find_sandbox
from sizeup.measure.quality.standard import TaskScore, harness, run_tasks
from sizeup.measure.quality.texts import text_named
from sizeup.measure.rows import Row
from sizeup.operations.eval_memory import loss_plan, reference_for
from sizeup.operations.serving import Served, Wish, cores, local_gguf, needs_file, planned, serving

_PARTS = ("loss", "coding", "tasks")
_NO_LOSS = "a server doesn't tell the probabilities of all tokens"


class EvalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is judged, and how."""

    model: Annotated[str, Meta(description="The path of a GGUF file, or a server's address (http://host:port).")]
    parts: Annotated[
        str, Meta(description="loss, coding, tasks; with commas. Default: loss and coding; of a server: coding.")
    ] = ""
    reference: Annotated[str, Meta(description="The same model in a higher precision: a GGUF file.")] = ""
    text: Annotated[str, Meta(description="A text file; `code`, `prose`; default: both of these.")] = ""
    length: Annotated[int, Meta(description="Tokens of a stretch of text; half of it is scored.", ge=16)] = 512
    stretches: Annotated[int, Meta(description="Stretches of text at most.", ge=1)] = 64
    grades: Annotated[str, Meta(description="Of the coding problems: completion, function, repair; default: all.")] = ""
    problems: Annotated[int | None, Meta(description="Problems of each grade at most; default: all.")] = None
    tokens: Annotated[int, Meta(description="The most tokens of an answer.", ge=1)] = MOST_TOKENS
    chat: Annotated[
        Literal["auto", "on", "off"], Meta(description="Ask in chat; auto: if the model has a template for it.")
    ] = "auto"
    tasks: Annotated[str, Meta(description="Standard tasks of lm-evaluation-harness, with commas: gsm8k,ifeval.")] = ""
    limit: Annotated[int | None, Meta(description="Questions of each standard task at most; default: all.")] = None
    unsafe: Annotated[bool, Meta(description="Run a model's code without a sandbox. Don't.")] = False
    name: Annotated[str, Meta(description="Which of a server's models; default: its first.")] = ""
    kv: Annotated[str, Meta(description="Cache type: f16, q8_0, q4_0; or K/V as q8_0/q4_0.")] = "f16"
    gpu_layers: Annotated[int | None, Meta(description="Layers on the GPUs; -1 all; default: as many as fit.")] = None
    threads: Annotated[int | None, Meta(description="Threads on the CPU; default: its cores.")] = None
    force: Annotated[bool, Meta(description="Load even what doesn't fit.")] = False
    no_ledger: Annotated[bool, Meta(description="Don't keep the rows.")] = False


class Coding(msgspec.Struct, frozen=True):
    """pass@1 by grade and of all; sandbox: where the answers ran. chat: how the model was asked."""

    scores: tuple[GradeScore, ...]
    results: tuple[Graded, ...]
    sandbox: str
    chat: bool


class Standard(msgspec.Struct, frozen=True):
    """What lm-evaluation-harness found, and how it was started."""

    scores: tuple[TaskScore, ...]
    command: str


class EvalReport(msgspec.Struct, frozen=True):
    """The parts that were asked for. kept: rows that are new in the ledger.

    interrupted: it was stopped; what is here was finished.
    """

    model: str
    format: str
    engine: str
    machine: str
    loss: LossReport | None = None
    coding: Coding | None = None
    standard: Standard | None = None
    kept: int = 0
    interrupted: bool = False
    notes: tuple[str, ...] = ()
    schema: str = "sizeup.eval/1"

    @property
    def exit_code(self) -> int:
        """130 after an interruption, like any interrupted program."""
        return 130 if self.interrupted else 0


def eval(request: EvalRequest) -> EvalReport:  # noqa: A001  the operation's name
    """Judge what is asked for; what can't be done is refused before anything is loaded."""
    parts = _parts(request)
    sandbox = _sandbox(request) if "coding" in parts else None
    if "tasks" in parts:
        harness()
    with interruptible():
        if is_address(request.model):
            engine, endpoint = attach(request.model, model=request.name)
            there = load_machine(None).name if LOCAL in endpoint.url or "localhost" in endpoint.url else endpoint.url
            judging = _Judging(request, Subject(endpoint.model, engine.name, endpoint.version, there), sandbox)
            if not request.parts and not request.tasks:
                judging.note(f"no loss: {_NO_LOSS}; for that give the path of its GGUF file")
            return judging.of_server(engine, endpoint, parts, chat=request.chat != "off")
        return _judge_file(request, parts, sandbox)


def _judge_file(request: EvalRequest, parts: tuple[str, ...], sandbox: Sandbox | None) -> EvalReport:
    served = _served(request)
    subject = Subject(served.model.name, "llama.cpp", "", served.machine.name, served.format, served.model)
    judging = _Judging(request, subject, sandbox)
    try:
        if "loss" in parts:
            judging.loss(served)
        if set(parts) - {"loss"}:
            chat = request.chat == "on" or (request.chat == "auto" and bool(served.model.facts.prompt_template))
            with serving(served, "llama.cpp", threads=request.threads) as (engine, server):
                judging.of_server(engine, server.endpoint, parts, chat=chat)
    except KeyboardInterrupt:
        judging.interrupted = True
    return judging.report()


def _served(request: EvalRequest) -> Served:
    file = local_gguf(request.model)
    if file is None:
        raise NotFound(f"no GGUF file {request.model!r}", hint="give the path of a GGUF file, or a server's address")
    keys, _, values = request.kv.partition("/")
    setting = LlamaSetting(cache_k=keys, cache_v=values or keys, gpu_layers=request.gpu_layers)
    wish = Wish(model=request.model, contexts=(4096,), setting=setting, force=request.force, offline=True)
    return needs_file(planned(wish), wish)


class _Judging:
    """One model's judgement in progress."""

    def __init__(self, request: EvalRequest, subject: Subject, sandbox: Sandbox | None) -> None:
        self._request, self._subject, self._sandbox = request, subject, sandbox
        self._loss: LossReport | None = None
        self._coding: Coding | None = None
        self._standard: Standard | None = None
        self._kept = 0
        self._notes: list[str] = []
        self.interrupted = False

    def note(self, words: str) -> None:
        """Something that the reader should know."""
        self._notes.append(words)

    def loss(self, served: Served) -> None:
        """The loss on the text, beside the reference's."""
        request = self._request
        keys, _, values = request.kv.partition("/")
        wanted = Wanted(
            length=request.length,
            stretches=request.stretches,
            threads=request.threads or cores(served.machine) or 1,
            cache_k=keys,
            cache_v=values or keys,
        )
        if served.file is None:
            raise NotFound(f"the weights of {served.model.name} are not here", hint="give the path of a GGUF file")
        text = text_named(request.text)
        free, force = request.gpu_layers, request.force
        own = loss_plan(str(served.file), wanted, force=force, gpu_layers=free)
        wanted = msgspec.structs.replace(wanted, gpu_layers=own.plan.setting.gpu_layers)
        reference = None
        if request.reference:
            reference = reference_for(own, wanted, request.reference, force=force, gpu_layers=free)
        found = measure_loss(served.file, text, wanted, reference)
        if found.apart:
            self._notes.append("model and reference were loaded one after the other: memory holds only one of them")
        if request.length > found.trained_length:
            self._notes.append(f"stretches of {request.length} tokens; it was trained on {found.trained_length}")
        self._loss = found
        self._subject = msgspec.structs.replace(self._subject, version=found.version)
        self._keep(loss_rows(self._subject, found, _now()))

    def of_server(self, engine: OpenAI, endpoint: Endpoint, parts: tuple[str, ...], *, chat: bool) -> EvalReport:
        """What is asked of a server."""
        self._subject = msgspec.structs.replace(self._subject, version=endpoint.version or self._subject.version)
        try:
            if "coding" in parts:
                self._code(engine, endpoint, chat=chat)
            if "tasks" in parts:
                self._hand_over(endpoint, chat=chat)
        except KeyboardInterrupt:
            self.interrupted = True
        return self.report()

    def _code(self, engine: OpenAI, endpoint: Endpoint, *, chat: bool) -> None:
        request = self._request
        problems = chosen(request.grades, request.problems)
        if self._sandbox is None:
            return
        graded: list[Graded] = []
        asked = answerer(engine, endpoint, chat=chat, tokens=request.tokens)
        try:
            for one in grade(problems, asked, self._sandbox, chat=chat):
                graded.append(one)  # noqa: PERF402  what is finished is kept when the next fails
        finally:
            if graded:
                self._coding = Coding(scores(graded), tuple(graded), self._sandbox.name, chat)
        if len(graded) < len(problems):
            self._notes.append(f"stopped after {len(graded)} of {len(problems)} problems")
            return
        self._keep([coding_row(self._subject, self._coding_scores(), chat=chat, tokens=request.tokens, date=_now())])

    def _coding_scores(self) -> tuple[GradeScore, ...]:
        return self._coding.scores if self._coding else ()

    def _hand_over(self, endpoint: Endpoint, *, chat: bool) -> None:
        request = self._request
        tasks = [task.strip() for task in request.tasks.split(",") if task.strip()]
        found, command = run_tasks(endpoint, tasks, chat=chat, limit=request.limit)
        self._standard = Standard(found, " ".join(command))
        shares = {f"{score.task}.{score.metric}": score.value for score in found if 0 <= score.value <= 1}
        self._keep([standard_row(self._subject, shares, {"limit": request.limit, "chat": chat}, _now())])

    def _keep(self, rows: list[Row] | tuple[Row, ...]) -> None:
        if self._request.no_ledger:
            return
        try:
            with Ledger() as ledger:
                self._kept += ledger.add(rows)
            forget()
        except SizeupError as error:
            self._notes.append(error.message)

    def report(self) -> EvalReport:
        """All of it."""
        subject = self._subject
        return EvalReport(
            model=subject.name,
            format=subject.format,
            engine=" ".join(filter(None, (subject.engine, subject.version))),
            machine=subject.machine,
            loss=self._loss,
            coding=self._coding,
            standard=self._standard,
            kept=self._kept,
            interrupted=self.interrupted,
            notes=tuple(self._notes),
        )


def _parts(request: EvalRequest) -> tuple[str, ...]:
    server = is_address(request.model)
    default = ("coding",) if server else ("loss", "coding")
    wanted = tuple(part.strip() for part in request.parts.split(",") if part.strip())
    if not wanted:
        wanted = ("tasks",) if request.tasks else default
    unknown = [part for part in wanted if part not in _PARTS]
    if unknown:
        raise BadInput(f"no part {unknown[0][:40]!r}", hint=f"one of {', '.join(_PARTS)}")
    if server and "loss" in wanted:
        raise BadInput(_NO_LOSS, hint="give the path of its GGUF file")
    if "tasks" in wanted and not request.tasks:
        raise BadInput("no standard tasks are named", hint="name them: --tasks gsm8k,ifeval")
    return wanted


def _sandbox(request: EvalRequest) -> Sandbox:
    chosen(request.grades)
    return Bare() if request.unsafe else find_sandbox()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
