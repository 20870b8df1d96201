"""The grid of a model on a machine: formats × contexts, the best plan, the largest context, and what would help."""

from __future__ import annotations

import msgspec

from sizeup.advice.formats import is_native_mxfp4
from sizeup.advice.plans import Plan, make_plan
from sizeup.advice.worth import USUAL_CONTEXT, worth
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.machines.budget import Budget, machine_budget
from sizeup.machines.device import Machine
from sizeup.models.model import Model
from sizeup.quantity.units import format_bytes, format_tokens

FORMATS = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K")
CONTEXTS = (4096, 8192, 32768, 131072)
_SMALLEST_CONTEXT = 256


def grid(
    model: Model,
    machine: Machine,
    setting: LlamaSetting,
    formats: tuple[str, ...] | None = None,
    contexts: tuple[int, ...] | None = None,
) -> tuple[Plan, ...]:
    """A plan for each format and context. None: the usual ones; a GGUF keeps its own format.

    Contexts beyond the model's own are left out, unless they are asked for.
    """
    if formats is None:
        formats = formats_of_grid(model)
    if contexts is None:
        limit = model.context or max(CONTEXTS)
        contexts = tuple(c for c in CONTEXTS if c <= limit) or (limit,)
    budget = machine_budget(machine)
    return tuple(
        make_plan(model, _with(setting, format_, context), machine, budget)
        for format_ in formats
        for context in contexts
    )


def formats_of_grid(model: Model) -> tuple[str, ...]:
    """The formats to lay out: a file's own, the one a model was trained in, or the usual ones."""
    if model.road == "gguf header":
        return ("",)
    return ("F16", "MXFP4_MOE") if is_native_mxfp4(model) else FORMATS


def _with(setting: LlamaSetting, format_: str, context: int) -> LlamaSetting:
    return msgspec.structs.replace(setting, format=format_, context=context * setting.parallel)


def best_plan(plans: tuple[Plan, ...]) -> Plan:
    """The plan to take: it fits, holds the usual context, and is worth most; when nothing fits, the nearest miss."""
    return max(plans, key=_merit)


def _merit(plan: Plan) -> tuple[float, ...]:
    rank = {"yes": 2.0, "tight": 1.0, "no": 0.0}[plan.fits.verdict]
    if rank == 0.0:
        return (rank, plan.fits.probability, plan.fits.headroom_bytes)
    context = plan.context // plan.setting.parallel
    return (rank, float(context >= USUAL_CONTEXT), worth(plan.loss.divergence, plan.tokens_per_s, context))


def largest_context(model: Model, machine: Machine, setting: LlamaSetting, gpu_layers: int | None) -> int | None:
    """The largest context that fits in this format, up to the model's own, in steps of 256; None when none does."""
    budget = machine_budget(machine)
    free = msgspec.structs.replace(setting, gpu_layers=gpu_layers, cpu_moe_layers=0)

    def holds(context: int) -> bool:
        return make_plan(model, _with(free, free.format, context), machine, budget).fits.verdict == "yes"

    low, high = 1, (model.context or 1 << 20) // _SMALLEST_CONTEXT
    if not holds(_SMALLEST_CONTEXT):
        return None
    if holds(high * _SMALLEST_CONTEXT):
        return high * _SMALLEST_CONTEXT
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle * _SMALLEST_CONTEXT) else (low, middle)
    return low * _SMALLEST_CONTEXT


def remedies(model: Model, machine: Machine, nearest: Plan) -> tuple[str, ...]:
    """What would make it fit: less memory wanted, or more memory there."""
    budget = machine_budget(machine)
    found = []
    smaller = msgspec.structs.replace(nearest.setting, gpu_layers=None, cpu_moe_layers=0)
    for format_ in (name for name in formats_of_grid(model) if name):
        plan = make_plan(model, msgspec.structs.replace(smaller, format=format_, context=4096), machine, budget)
        if plan.fits.verdict == "yes":
            found.append(f"--format {format_} --context 4k fits ({format_bytes(plan.footprint.total_bytes)})")
            break
    found += _cheaper_cache(model, machine, smaller, budget)
    missing = max(0, -nearest.fits.headroom_bytes)
    found.append(f"{format_bytes(missing)} more memory on {nearest.fits.device} (the nearest miss: {_words(nearest)})")
    return tuple(found)


def _cheaper_cache(model: Model, machine: Machine, setting: LlamaSetting, budget: Budget) -> list[str]:
    if setting.cache_k != "f16":
        return []
    quantized = msgspec.structs.replace(setting, cache_k="q8_0", cache_v="q8_0", flash_attention="on")
    plan = make_plan(model, quantized, machine, budget)
    return ["--kv q8_0 --flash-attention on fits"] if plan.fits.verdict == "yes" else []


def _words(plan: Plan) -> str:
    return f"{plan.format} at {format_tokens(plan.context)} takes {format_bytes(plan.footprint.total_bytes)}"
