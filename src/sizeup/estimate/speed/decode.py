"""Tokens a second: passes of the stages one after the other, and what engines add."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.estimate.speed.ceilings import Ceilings
from sizeup.estimate.speed.intervals import decode_interval, prompt_interval
from sizeup.estimate.speed.parameters import Engine, parameters
from sizeup.estimate.speed.passes import Seconds, pass_seconds, rates
from sizeup.estimate.speed.work import Work
from sizeup.quantity import Interval, Term, leaf, total


class Stage(msgspec.Struct, frozen=True):
    """What one device does in one pass. handover_seconds: of activations to the next device, see `links`."""

    device: str
    ceiling: Ceilings
    work: Work
    handover_seconds: float = 0.0

    @property
    def seconds(self) -> Seconds:
        """The parts of its pass."""
        return pass_seconds(self.work, rates(self.ceiling))

    @property
    def ceiling_seconds(self) -> float:
        """The least that the memory's theoretical bandwidth allows: bytes / bandwidth."""
        return (self.work.weight_bytes + self.work.cache_bytes) / self.ceiling.bandwidth


def engine_of(name: str) -> Engine:
    """What an engine adds; llama.cpp's for one that nobody has measured."""
    known = parameters().engines
    return known.get(name) or known["llama.cpp"]


def once(stages: Sequence[Stage], engine: str) -> float:
    """Seconds that the engine adds to a pass, whatever the model."""
    return engine_of(engine).once(stage.ceiling.stack for stage in stages)


def step_seconds(stages: Sequence[Stage], engine: str = "llama.cpp") -> float:
    """Seconds of one decoding step: Σ over stages of (pass + hand-over) · factor, + what the engine does once."""
    added = engine_of(engine)
    passes: float = sum((s.seconds.total + s.handover_seconds) * added.factor for s in stages)
    return passes + once(stages, engine)


def decode_speed(stages: Sequence[Stage], engine: str = "llama.cpp") -> Interval:
    """Decoded tokens/s of one sequence (of each, when the stages' work is of several), with a 90 % interval."""
    return decode_interval(1 / step_seconds(stages, engine), [stage.ceiling for stage in stages])


def prompt_seconds(stages: Sequence[Stage], passes: float, engine: str = "llama.cpp", *, flash: bool = True) -> float:
    """Seconds to read a prompt in so many passes, each as the stages describe it, the first token included.

    flash: whether attention is fused.
    """
    added = engine_of(engine)
    one: float = sum(stage.seconds.total + stage.handover_seconds for stage in stages)
    plain = 1.0 if flash else parameters().without_flash
    return passes * one * added.prompt_factor * plain + once(stages, engine)


def prompt_speed(
    stages: Sequence[Stage], tokens: int, passes: float, engine: str = "llama.cpp", *, flash: bool = True
) -> Interval:
    """Prompt tokens/s, with a 90 % interval."""
    seconds = prompt_seconds(stages, passes, engine, flash=flash)
    return prompt_interval(tokens / seconds, [stage.ceiling for stage in stages])


def bound(stages: Sequence[Stage], engine: str = "llama.cpp") -> str:
    """What most of a step's time goes to: bandwidth, unpacking, compute, attention, launch, link or engine."""
    times: dict[str, float] = {"engine": once(stages, engine)}
    for stage in stages:
        found = stage.seconds
        times[found.bound] = times.get(found.bound, 0.0) + found.total
        times["link"] = times.get("link", 0.0) + stage.handover_seconds
    return max(times, key=times.__getitem__)


def ceiling_share(stages: Sequence[Stage], engine: str = "llama.cpp") -> float:
    """How near the ceiling: time that the bytes need at theoretical bandwidth / predicted time."""
    return sum(stage.ceiling_seconds for stage in stages) / step_seconds(stages, engine)


def decode_term(stages: Sequence[Stage], engine: str = "llama.cpp") -> Term:
    """The seconds of a step as a tree: devices, and within them reading, unpacking, attention, launches."""
    parts = [_stage_term(stage) for stage in stages]
    parts.append(leaf("engine", once(stages, engine), f"{engine}: sampling, text, server; once a step", unit="seconds"))
    return total("seconds a token", parts)


def _stage_term(stage: Stage) -> Term:
    found, work = stage.seconds, stage.work
    both = f"√({found.reading * 1e3:.3g}² + {found.unpacking * 1e3:.3g}² + {found.computing * 1e3:.3g}²) ms: "
    parts = [
        leaf("weights", found.matrices, both + f"read {work.weight_bytes:,.0f} B, unpack, compute", unit="seconds"),
        leaf("activations", found.passing, f"{work.activations:,.0f} values in and out of matrices", unit="seconds"),
        leaf("attention", found.attention, f"{work.cache_bytes:,.0f} B of cache and states", unit="seconds"),
        leaf("launches", found.launching, f"{work.kernels:,.0f} kernels", unit="seconds"),
    ]
    if stage.handover_seconds:
        parts.append(leaf("hand-over", stage.handover_seconds, "activations over the link", unit="seconds"))
    known = stage.ceiling.evidence
    return total(f"{stage.device}, {known}" if known else stage.device, parts)
