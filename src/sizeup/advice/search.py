"""The search for picks: models of the catalogue, each in the best format that fits and is fast enough here.

Candidates are ranked by the lower end of their quality, so that evidence counts: a score beats a guess. A model enters
with the format that rough arithmetic finds worth most (quality against speed), is placed exactly, and when it doesn't
fit or is too slow comes back with a smaller one. What is reached first is the best that really runs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count

import msgspec

from sizeup.advice.formats import formats_for, loss_of
from sizeup.advice.needs import Needs, serves
from sizeup.advice.plans import Plan, make_plan
from sizeup.advice.quality import Quality, after_quantization, quality
from sizeup.advice.worth import worth
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.errors import SizeupError
from sizeup.machines.budget import Budget, machine_budget
from sizeup.machines.device import Machine
from sizeup.models.active import active_parameters
from sizeup.models.catalogue.entry import Entry, entries
from sizeup.models.from_config import model_from_config
from sizeup.models.model import Model

#: Plans placed exactly before the search gives up.
MOST_PLANS = 45
#: Plans after which it is known how much of the rough speed is reached here.
ENOUGH_TO_LEARN = 5
#: A later pick is this much faster than all before it.
FASTER = 1.1
#: Speed makes up for no less than this share of the best pick's quality.
USEFUL = 0.5
#: Rough arithmetic errs towards trying: bits per weight that are read may be this much lower than usual.
ROUGH = 0.95
#: The share of rough arithmetic's speed that plans usually reach: small models spend their time on starting kernels.
LIKELY = 0.65
#: Seconds that the kernels of a layer take to start on a GPU, at least.
LAUNCH = 15e-6
#: And the share of a memory's bandwidth that the fastest kernels reach.
REACHED = 0.95


class Pick(msgspec.Struct, frozen=True):
    """One recommendation: a model, how to run it, how good and fast it is, and why it is in the list.

    title: `best quality`, `fastest`, or empty. quality: after quantization.
    """

    model: str
    title: str
    quality: Quality
    plan: Plan
    parameters: int
    active_parameters: int
    licence: str | None
    released: str | None
    ollama_tag: str | None
    because: str


class Candidate(msgspec.Struct, frozen=True):
    """A model that could serve, and its quality before quantization."""

    entry: Entry
    model: Model
    quality: Quality


def candidates(needs: Needs) -> tuple[list[Candidate], dict[str, int]]:
    """The models that could serve the needs, and how many were left out for each reason."""
    found: list[Candidate] = []
    left_out: dict[str, int] = {}
    for entry in entries():
        reason = serves(entry, needs)
        if reason is None:
            candidate = _candidate(entry, needs)
            if isinstance(candidate, Candidate):
                found.append(candidate)
                continue
            reason = candidate
        left_out[reason] = left_out.get(reason, 0) + 1
    return found, left_out


def _candidate(entry: Entry, needs: Needs) -> Candidate | str:
    try:
        model = model_from_config(entry.config, name=entry.id, origin="catalogue")
    except SizeupError:
        return "its configuration can't be read"
    if needs.max_parameters is not None and model.parameters > needs.max_parameters:
        return f"it has more than {needs.max_parameters:,} parameters"
    found = quality(entry, model.parameters, model.active_parameters, needs.task)
    return Candidate(entry, model, found) if found.evidence != "none" else "no evidence of its quality"


def search(needs: Needs, machine: Machine, most: int) -> tuple[list[Pick], dict[str, int]]:
    """At most `most` picks, best quality first; those of the second half are each faster than all before.

    Also: how many models were left out, by reason.
    """
    found, left_out = candidates(needs)
    picks: list[Pick] = []
    shapes: set[tuple[str, int]] = set()
    always = max(1, most // 2)

    def adds(candidate: Candidate, tokens_per_s: float) -> bool:
        """Whether a plan of that speed would add to the picks so far."""
        if (candidate.model.family, candidate.model.parameters) in shapes:
            return False
        return len(picks) < always or tokens_per_s > FASTER * max(pick.plan.tokens_per_s for pick in picks)

    for candidate, plan, after in _best_first(found, needs, machine, adds):
        shapes.add((candidate.model.family, candidate.model.parameters))
        if picks and after.low < USEFUL * picks[0].quality.low:
            break
        picks.append(_pick(candidate, plan, after))
        if len(picks) == most:
            break
    return _titled(picks), left_out


def _best_first(
    found: list[Candidate], needs: Needs, machine: Machine, adds: Callable[[Candidate, float], bool]
) -> Iterator[tuple[Candidate, Plan, Quality]]:
    """Plans that fit, are fast enough and add something, in order of quality.

    A plan is placed exactly only when rough arithmetic leaves a chance that it is wanted; how much of the rough speed
    the plans on this machine reach at best is learnt on the way.
    """
    budget = machine_budget(machine)
    order = count()
    heap: list[tuple[float, int, int, Candidate, Quality]] = []

    def enter(candidate: Candidate, first: int) -> None:
        place = _best_possible(candidate.model, needs, machine, budget, first)
        if place is not None:
            loss = loss_of(candidate.model, formats_for(candidate.model)[place][0])
            after = after_quantization(candidate.quality, loss.divergence)
            heapq.heappush(heap, (-after.low, next(order), place, candidate, after))

    for candidate in found:
        enter(candidate, 0)
    reached: list[float] = []
    while heap and len(reached) < MOST_PLANS:
        _, _, place, candidate, after = heapq.heappop(heap)
        format_, bits = formats_for(candidate.model)[place]
        rough = _rough_speed(candidate.model, machine, budget, bits)
        hoped = rough * (min(1.0, 1.1 * max(reached)) if len(reached) >= ENOUGH_TO_LEARN else 1.0)
        if hoped < needs.min_speed or not adds(candidate, LIKELY * rough):
            enter(candidate, place + 1)
            continue
        plan = _plan(candidate.model, format_, needs, machine, budget)
        reached.append(plan.tokens_per_s / rough if plan else 0.0)
        if plan and plan.fits.verdict == "yes" and plan.tokens_per_s >= needs.min_speed:
            if adds(candidate, plan.tokens_per_s):
                yield candidate, plan, after
        else:
            enter(candidate, place + 1)


def _plan(model: Model, format_: str, needs: Needs, machine: Machine, budget: Budget) -> Plan | None:
    setting = LlamaSetting(
        format=format_, context=needs.context * needs.users, parallel=needs.users, unified=needs.users == 1
    )
    try:
        return make_plan(model, setting, machine, budget)
    except SizeupError:
        return None


def _best_possible(model: Model, needs: Needs, machine: Machine, budget: Budget, first: int) -> int | None:
    """The format from `first` on that is worth most of those that may fit and be fast enough, by rough arithmetic."""
    memory = budget.total_bytes()
    best: tuple[float, int] | None = None
    for place, (name, bits) in enumerate(formats_for(model)[first:], first):
        speed = _rough_speed(model, machine, budget, bits)
        if model.parameters * bits / 8 * 0.98 <= memory and speed >= needs.min_speed:
            value = worth(loss_of(model, name).divergence, speed, needs.context)
            best = max(best or (value, place), (value, place))
    return best[1] if best else None


def _rough_speed(model: Model, machine: Machine, budget: Budget, bits: float) -> float:
    """Tokens/s by rough arithmetic, rather too much than too little.

    What every token reads (all but routed experts and looked-up tables) goes to the GPUs first, then as many experts as
    they hold; each part is read at its memory's bandwidth. A device of unknown bandwidth counts as infinitely fast.
    """
    routed = sum(b.count * t.parameters for b in model.blocks for t in b.tensors if t.role == "routed_expert")
    used = sum(b.count * t.active_parameters for b in model.blocks for t in b.tensors if t.role == "routed_expert")
    always = active_parameters(model).multiplied - used
    bytes_each = bits / 8 * ROUGH
    room = sum(gpu.usable_bytes or 0 for gpu in budget.gpus) / bytes_each
    always_there = min(always, room)
    experts_there = min(1.0, (room - always_there) / routed) if routed else 0.0
    on_gpu = always_there + used * experts_there
    left = always - always_there + used * (1 - experts_there)
    gpu = min((device.bandwidth or 0 for device in machine.gpus), default=0)
    seconds = on_gpu * bytes_each / gpu + model.layers * LAUNCH if gpu else 0.0
    seconds += left * bytes_each / machine.cpu.bandwidth if machine.cpu.bandwidth else 0.0
    return REACHED / seconds if seconds else float("inf")


def _pick(candidate: Candidate, plan: Plan, after: Quality) -> Pick:
    entry = candidate.entry
    return Pick(
        model=entry.id,
        title="",
        quality=after,
        plan=plan,
        parameters=candidate.model.parameters,
        active_parameters=candidate.model.active_parameters,
        licence=entry.licence,
        released=entry.released,
        ollama_tag=entry.ollama_tag,
        because=after.because,
    )


def _titled(picks: list[Pick]) -> list[Pick]:
    """Name the best and the fastest."""
    if not picks:
        return picks
    fastest = max(range(len(picks)), key=lambda i: picks[i].plan.tokens_per_s)
    titles = {fastest: "fastest", 0: "best quality"}
    return [msgspec.structs.replace(pick, title=titles.get(i, "")) for i, pick in enumerate(picks)]
