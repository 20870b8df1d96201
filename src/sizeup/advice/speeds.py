"""How fast a placed setting runs: decoding by depth, prompts by length, waiting, users at once, and what bounds it."""

from __future__ import annotations

from functools import partial

import msgspec

from sizeup.engines.llamacpp.footprint import assignment_of
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.traffic import stages
from sizeup.engines.llamacpp.weights import Assignment
from sizeup.estimate.speed import Stage, bound, ceiling_share, decode_speed, prompt_seconds, prompt_speed, step_seconds
from sizeup.estimate.speed.batching import request_seconds
from sizeup.machines.budget import Budget
from sizeup.machines.device import Machine
from sizeup.measure.calibration import measured_ceilings
from sizeup.models.model import Model
from sizeup.quantity import Interval

#: Prompt lengths, depths and users that are shown.
PROMPTS = (512, 2048, 8192, 32768)
DEPTHS = (0, 2048, 8192, 32768, 131072)
USERS = (1, 2, 4, 8, 16, 32)
#: A usual request: about three pages in, one out.
USUAL_PROMPT, USUAL_ANSWER = 2048, 512


class AtDepth(msgspec.Struct, frozen=True):
    """Decoded tokens/s with so many tokens in the cache."""

    depth: int
    tokens_per_s: Interval


class Prompt(msgspec.Struct, frozen=True):
    """Reading a prompt of so many tokens: tokens/s, and seconds until the first token."""

    tokens: int
    tokens_per_s: Interval
    first_token_seconds: float


class Concurrent(msgspec.Struct, frozen=True):
    """So many sequences decoded at once: tokens/s of all, and of each."""

    users: int
    tokens_per_s: float
    each_tokens_per_s: float


class Speed(msgspec.Struct, frozen=True):
    """How fast a plan runs; None with the reason when the machine doesn't tell enough.

    decode_tokens_per_s: of one sequence, with half of the context in the cache. prefill_tokens_per_s,
    first_token_seconds: of a usual prompt (or half of the context, when that is shorter); request_seconds: that prompt
    and a usual answer. bound: what most of a token's time goes to; ceiling_share: how near theoretical bandwidth it is.
    by_depth, by_prompt, by_users: filled where one plan is looked at closely (`details`).
    """

    decode_tokens_per_s: Interval | None
    because: str
    prefill_tokens_per_s: Interval | None = None
    first_token_seconds: float | None = None
    request_seconds: float | None = None
    bound: str = ""
    ceiling_share: float | None = None
    by_depth: tuple[AtDepth, ...] = ()
    by_prompt: tuple[Prompt, ...] = ()
    by_users: tuple[Concurrent, ...] = ()


def speed_of(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget) -> Speed:
    """Decode speed with half of the context filled, and what a usual request takes."""
    places = assignment_of(model, setting, machine, budget)
    measured = measured_ceilings(machine)
    passes = partial(stages, model, setting, machine, places, measured=measured)
    each = setting.context // setting.parallel
    try:
        found = passes(each // 2)
    except ValueError as unknown:
        return Speed(None, str(unknown))
    read = sum(stage.work.weight_bytes + stage.work.cache_bytes for stage in found)
    prompt = _prompt(model, setting, machine, places, min(USUAL_PROMPT, max(1, each // 2)))
    return Speed(
        decode_speed(found),
        f"{read / 1e9:.2f} GB read for each token at {each // 2:,} tokens",
        prompt.tokens_per_s,
        prompt.first_token_seconds,
        request_seconds(prompt.first_token_seconds, step_seconds(found), min(USUAL_ANSWER, max(1, each // 2))),
        bound(found),
        ceiling_share(found),
    )


def _prompt(model: Model, setting: LlamaSetting, machine: Machine, places: Assignment, tokens: int) -> Prompt:
    step = min(setting.ubatch_tokens, tokens)
    found = stages(
        model, setting, machine, places, (tokens - step) / 2, tokens=step, measured=measured_ceilings(machine)
    )
    passes, flash = tokens / step, setting.flash_attention != "off"
    return Prompt(tokens, prompt_speed(found, tokens, passes, flash=flash), prompt_seconds(found, passes, flash=flash))


def details(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget, speed: Speed) -> Speed:
    """The same speed with its course over depth, prompt length and users, as far as the context reaches."""
    if speed.decode_tokens_per_s is None:
        return speed
    places = assignment_of(model, setting, machine, budget)
    measured = measured_ceilings(machine)
    each = setting.context // setting.parallel

    def at(depth: float, sequences: int = 1) -> tuple[Stage, ...]:
        return stages(model, setting, machine, places, depth, sequences=sequences, measured=measured)

    return msgspec.structs.replace(
        speed,
        by_depth=tuple(AtDepth(depth, decode_speed(at(depth))) for depth in DEPTHS if depth < each),
        by_prompt=tuple(_prompt(model, setting, machine, places, tokens) for tokens in PROMPTS if tokens <= each),
        by_users=tuple(
            _concurrent(at(each / 2, users), users) for users in USERS if users <= setting.parallel or users == 1
        ),
    )


def _concurrent(found: tuple[Stage, ...], users: int) -> Concurrent:
    each = 1 / step_seconds(found)
    return Concurrent(users, users * each, each)
