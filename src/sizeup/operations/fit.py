"""Does a model fit here, and how fast does it run? By format and context, with the best plan and its command.

The answer "no" exits with 3 and says what would make it fit.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sizeup.advice.checkpoint_plans import ENGINES, Wanted, checkpoint_plan, checkpoint_runner
from sizeup.advice.grid import CONTEXTS, best_plan, grid, largest_context, remedies
from sizeup.advice.plans import Plan, make_plan
from sizeup.advice.speculation import Speculation, parsed, speculate
from sizeup.advice.speeds import Runner, details_with, llamacpp_runner, speed_with
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.errors import BadInput
from sizeup.machines.budget import Budget, machine_budget
from sizeup.machines.device import Machine
from sizeup.machines.spec import load_machine
from sizeup.measure.bench.memory_report import MemoryReport
from sizeup.models.load import load_model
from sizeup.models.model import Model
from sizeup.quantity.units import parse_tokens


class FitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, and how it should run."""

    model: Annotated[str | dict[str, Any], Meta(description="A catalogue name, Hub id, path, Ollama tag.")] = ""
    shape: Annotated[
        str, Meta(description="A hypothetical model: layers=12,embedding=512,heads=8,vocabulary=50000.")
    ] = ""
    machine: Annotated[str, Meta(description="'2x RTX 4090, 64 GB RAM', a TOML file; default: this machine.")] = ""
    engine: Annotated[
        Literal["llama.cpp", "ollama", "vllm", "sglang", "mlx"], Meta(description="The engine that runs it.")
    ] = "llama.cpp"
    format: Annotated[
        str, Meta(description="One format (Q4_K_M, F16; vllm: AWQ, FP8; mlx: 4bit); default: a grid.")
    ] = ""
    context: Annotated[str | int, Meta(description="Tokens of context (8192, 32k); default: a grid of them.")] = ""
    kv: Annotated[str, Meta(description="Cache type: f16, q8_0, q4_0; or K/V as q8_0/q4_0.")] = "f16"
    gpu_layers: Annotated[int | None, Meta(description="Layers on the GPUs; -1 all; default: as many as fit.")] = None
    users: Annotated[int, Meta(description="Sequences at once, each with the whole context.")] = 1
    flash_attention: Annotated[Literal["auto", "on", "off"], Meta(description="Fused attention.")] = "auto"
    ubatch: Annotated[int, Meta(description="Tokens computed at once while reading a prompt.")] = 512
    offline: Annotated[bool, Meta(description="Never use the network.")] = False
    tensor_parallel: Annotated[int, Meta(description="GPUs that share every layer (vllm, sglang).", ge=1)] = 1
    speculative: Annotated[
        str, Meta(description="Speculative decoding: share accepted[:draft model], as 0.7:Qwen/Qwen3-0.6B.")
    ] = ""
    simulate: Annotated[
        bool, Meta(description="Let llama.cpp's own allocator check the best plan, without weights.")
    ] = False


class FitReport(msgspec.Struct, frozen=True):
    """The plans, the best of them first.

    fits: whether the best plan does. largest_context: that still fits in the best plan's format; None when none does.
    remedies: what would make it fit, when it doesn't. speculation: what speculative decoding gives, when asked for.
    simulation: the best plan's buffers by llama.cpp's own allocator, on the processor, when that was asked for.
    """

    model: str
    machine: str
    fits: bool
    plans: tuple[Plan, ...]
    largest_context: int | None
    remedies: tuple[str, ...]
    notes: tuple[str, ...] = ()
    simulation: MemoryReport | None = None
    speculation: Speculation | None = None
    schema: str = "sizeup.fit/1"

    @property
    def best(self) -> Plan:
        """The plan to take, or the nearest miss."""
        return self.plans[0]

    @property
    def exit_code(self) -> int:
        """0 when something fits, 3 when nothing does."""
        return 0 if self.fits else 3


def fit(request: FitRequest) -> FitReport:
    """Lay out the grid, choose the best plan, and say why."""
    if request.model and request.shape:
        raise BadInput("both a model and --shape are given", hint="give one of them")
    model = load_model(request.shape or request.model, network=not request.offline)
    machine = load_machine(request.machine or None)
    if request.engine in ENGINES:
        return _fit_checkpoint(request, model, machine)
    if request.tensor_parallel > 1:
        raise BadInput(
            f"{request.engine} splits layers over GPUs, and each token passes through one after the other",
            hint="--tensor-parallel is for --engine vllm or sglang",
        )
    return _fit_llamacpp(request, model, machine)


def _fit_llamacpp(request: FitRequest, model: Model, machine: Machine) -> FitReport:
    """llama.cpp, and Ollama, which runs the same files with the same memory but adds its server's time."""
    setting, budget = _setting(request), machine_budget(machine)
    plans = grid(
        model,
        machine,
        setting,
        formats=(request.format,) if request.format else None,
        contexts=(parse_tokens(request.context),) if request.context else None,
    )
    if request.engine == "ollama":
        plans = tuple(_under_ollama(model, machine, budget, plan) for plan in plans)
    chosen = best_plan(plans)
    runner = llamacpp_runner(model, chosen.setting, machine, budget, request.engine)
    best = msgspec.structs.replace(chosen, speed=details_with(runner, chosen.speed))
    fitting = best.fits.verdict != "no"
    return FitReport(
        model=model.name,
        machine=machine.name,
        fits=fitting,
        plans=(best, *(plan for plan in plans if plan is not chosen)),
        largest_context=largest_context(model, machine, best.setting, setting.gpu_layers),
        remedies=() if fitting else remedies(model, machine, best),
        notes=(*model.notes, *machine.notes),
        simulation=_simulated(model, best.setting) if request.simulate else None,
        speculation=_speculation(request, machine, runner, best),
    )


def _under_ollama(model: Model, machine: Machine, budget: Budget, plan: Plan) -> Plan:
    runner = llamacpp_runner(model, plan.setting, machine, budget, "ollama")
    command = f"OLLAMA_CONTEXT_LENGTH={plan.context} OLLAMA_NUM_PARALLEL={plan.setting.parallel} ollama serve"
    return msgspec.structs.replace(
        plan, engine="ollama", engine_version="", speed=speed_with(runner), command=command
    )  # fmt: skip


def _fit_checkpoint(request: FitRequest, model: Model, machine: Machine) -> FitReport:
    """vLLM, SGLang and MLX: weights exact, keys and values nearly, the rest assumed."""
    _only_llamacpp(request)
    engine = ENGINES[request.engine]
    contexts = (parse_tokens(request.context),) if request.context else CONTEXTS
    wanted = [
        Wanted(name, context, request.users, request.tensor_parallel)
        for name in ((request.format,) if request.format else engine.formats)
        for context in contexts
        if context <= (model.context or context)
    ]
    if not wanted:
        raise BadInput(f"{model.name} has a context of {model.context:,} tokens", hint="ask for less with --context")
    plans = {choice: checkpoint_plan(model, machine, engine, choice) for choice in wanted}
    ordered = sorted(plans, key=lambda choice: _rank(plans[choice]), reverse=True)
    chosen = ordered[0]
    runner = checkpoint_runner(model, machine, engine, chosen)
    best = msgspec.structs.replace(plans[chosen], speed=details_with(runner, plans[chosen].speed))
    fitting = best.fits.verdict != "no"
    return FitReport(
        model=model.name,
        machine=machine.name,
        fits=fitting,
        plans=(best, *(plans[choice] for choice in ordered[1:])),
        largest_context=None,
        remedies=() if fitting else ("a smaller format or context", "more GPUs with --tensor-parallel"),
        notes=(*model.notes, *machine.notes, *_checkpoint_notes(request)),
        speculation=_speculation(request, machine, runner, best),
    )


def _rank(plan: Plan) -> tuple[bool, float, int]:
    """What fits first, then what loses least, then the longest context."""
    return (
        plan.fits.verdict != "no",
        -plan.loss.divergence,
        plan.context if plan.fits.verdict == "yes" else -plan.context,
    )


def _only_llamacpp(request: FitRequest) -> None:
    """Raises BadInput for options that mean something to llama.cpp alone."""
    usual = FitRequest(model=request.model)
    for name in ("kv", "gpu_layers", "flash_attention", "ubatch", "simulate"):
        if getattr(request, name) != getattr(usual, name):
            option = name.replace("_", "-")
            raise BadInput(f"--{option} means nothing to {request.engine}", hint=f"leave --{option} out")


def _checkpoint_notes(request: FitRequest) -> tuple[str, ...]:
    exact = f"{request.engine}: weights are exact, keys and values nearly; activations, graphs and context are assumed"
    split = "sums between GPUs are taken as in a ring; nobody has published enough runs to fit them"
    return (exact, split) if request.tensor_parallel > 1 else (exact,)


def _speculation(request: FitRequest, machine: Machine, runner: Runner, best: Plan) -> Speculation | None:
    """What speculative decoding gives; the draft runs where the model does, in the same format."""
    if not request.speculative:
        return None
    if best.speed.decode_tokens_per_s is None:
        raise BadInput(best.speed.because, hint="describe the machine's bandwidth in a TOML file")
    acceptance, name = parsed(request.speculative)
    if not name:
        return speculate(runner, acceptance)
    small = load_model(name, network=not request.offline)
    if request.engine in ENGINES:
        engine = ENGINES[request.engine]
        plan = checkpoint_plan(small, machine, engine, Wanted(best.format, runner.context, request.users))
        draft = checkpoint_runner(small, machine, engine, Wanted(best.format, runner.context))
    else:
        setting = msgspec.structs.replace(best.setting, gpu_layers=0 if best.setting.gpu_layers == 0 else -1)
        plan = make_plan(small, setting, machine)
        draft = llamacpp_runner(small, plan.setting, machine, machine_budget(machine), request.engine)
    return speculate(runner, acceptance, draft, small.name, plan.footprint.component("weights"))


def _simulated(model: Model, setting: LlamaSetting) -> MemoryReport:
    """The engine's own account of a setting; its row is kept in the ledger."""
    from datetime import UTC, datetime

    from sizeup.measure.bench.memory import records, simulated_memory
    from sizeup.measure.ledger import Ledger

    found = simulated_memory(model, setting, date=datetime.now(UTC).isoformat(timespec="seconds"))
    with Ledger() as ledger:
        ledger.add([*found.rows, *records(model)])
    return found


def _setting(request: FitRequest) -> LlamaSetting:
    keys, _, values = request.kv.partition("/")
    return LlamaSetting(
        cache_k=keys,
        cache_v=values or keys,
        gpu_layers=request.gpu_layers,
        parallel=request.users,
        unified=request.users == 1,
        flash_attention=request.flash_attention,
        ubatch=request.ubatch,
    )
