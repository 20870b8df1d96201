"""How fast a placed setting runs: decoding by depth, prompts by length, waiting, users at once, and what bounds it.

Engines differ in what their devices do in a pass (`Runner.passes`); all the rest is the same for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sizeup.engines.llamacpp.footprint import assignment_of
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.traffic import stages
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


class Runner(msgspec.Struct, frozen=True):
    """A model on its devices under an engine.

    passes: (tokens, depth, sequences) → what each device does; raises ValueError when nothing is known of a device.
    context: tokens of each sequence. users: sequences at once. step: tokens of a prompt that are read at once. flash:
    whether attention is fused.
    """

    passes: Callable[[int, float, int], tuple[Stage, ...]]
    context: int
    engine: str = "llama.cpp"
    users: int = 1
    step: int = 512
    flash: bool = True

    def prompt(self, tokens: int) -> Prompt:
        """Reading a prompt of so many tokens."""
        step = min(self.step, tokens)
        found, passes = self.passes(step, (tokens - step) / 2, 1), tokens / step
        return Prompt(
            tokens,
            prompt_speed(found, tokens, passes, self.engine, flash=self.flash),
            prompt_seconds(found, passes, self.engine, flash=self.flash),
        )

    def decode(self, depth: float) -> AtDepth:
        """Decoding at a depth."""
        return AtDepth(int(depth), decode_speed(self.passes(1, depth, 1), self.engine))

    def concurrent(self, users: int) -> Concurrent:
        """So many sequences at once, each with half of its context filled."""
        each = 1 / step_seconds(self.passes(1, self.context / 2, users), self.engine)
        return Concurrent(users, users * each, each)


def speed_with(runner: Runner) -> Speed:
    """Decode speed with half of the context filled, and what a usual request takes."""
    depth = runner.context // 2
    try:
        found = runner.passes(1, depth, 1)
    except ValueError as unknown:
        return Speed(None, str(unknown))
    read = sum(stage.work.weight_bytes + stage.work.cache_bytes for stage in found)
    prompt = runner.prompt(min(USUAL_PROMPT, max(1, depth)))
    return Speed(
        decode_speed(found, runner.engine),
        because(found, f"{read / 1e9:.2f} GB read for each token at {depth:,} tokens"),
        prompt.tokens_per_s,
        prompt.first_token_seconds,
        request_seconds(
            prompt.first_token_seconds, step_seconds(found, runner.engine), min(USUAL_ANSWER, max(1, depth))
        ),
        bound(found, runner.engine),
        ceiling_share(found, runner.engine),
    )


def details_with(runner: Runner, speed: Speed) -> Speed:
    """The same speed with its course over depth, prompt length and users, as far as the context reaches."""
    if speed.decode_tokens_per_s is None:
        return speed
    return msgspec.structs.replace(
        speed,
        by_depth=tuple(runner.decode(depth) for depth in DEPTHS if depth < runner.context),
        by_prompt=tuple(runner.prompt(tokens) for tokens in PROMPTS if tokens <= runner.context),
        by_users=tuple(runner.concurrent(users) for users in USERS if users <= runner.users or users == 1),
    )


def llamacpp_runner(
    model: Model, setting: LlamaSetting, machine: Machine, budget: Budget, engine: str = "llama.cpp"
) -> Runner:
    """A model under llama.cpp, or under a server around it (`ollama`)."""
    places = assignment_of(model, setting, machine, budget)
    measured = measured_ceilings(machine)

    def passes(tokens: int, depth: float, sequences: int) -> tuple[Stage, ...]:
        return stages(
            model, setting, machine, places, depth, tokens=tokens, sequences=sequences, measured=measured
        )  # fmt: skip

    return Runner(
        passes, setting.context // setting.parallel, engine, setting.parallel, setting.ubatch_tokens,
        setting.flash_attention != "off",
    )  # fmt: skip


def speed_of(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget) -> Speed:
    """`speed_with` of a model under llama.cpp."""
    return speed_with(llamacpp_runner(model, setting, machine, budget))


def details(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget, speed: Speed) -> Speed:
    """`details_with` of a model under llama.cpp."""
    return details_with(llamacpp_runner(model, setting, machine, budget), speed)


def because(found: Sequence[Stage], reading: str) -> str:
    """Why: what is read, and what was measured on the devices."""
    known = [f"{stage.device} {stage.ceiling.evidence}" for stage in found if stage.ceiling.evidence]
    return "; ".join([reading, *known])
