"""What a real run of llama.cpp reported: its buffers, and what its process held after each step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import Buffer, context_parameters, load_parameters
from sizeup.errors import SizeupError

#: How a row of the ledger names what this module reads; raised when a change alters its numbers.
METHOD = "llama.cpp run/1"


class Step(msgspec.Struct, frozen=True):
    """The process after one step, in bytes; None where the system doesn't say.

    step: start, loaded, ready (context made), prefilled, decoded. seconds: since the step before.
    anonymous: memory of its own. mapped: pages of the model's file. resident: all, libraries too. peak: so far.
    """

    step: str
    seconds: float
    anonymous: int | None
    mapped: int
    resident: int | None
    peak: int | None


class MeasuredRun(msgspec.Struct, frozen=True):
    """One real load: prefill and decode in tokens, the engine's buffers, and the process at each step."""

    setting: LlamaSetting
    engine: str
    version: str
    system: str
    prefill: int
    decode: int
    threads: int
    buffers: tuple[Buffer, ...]
    output: int | None
    steps: tuple[Step, ...]

    def step(self, name: str) -> Step:
        """The process after that step."""
        return next(step for step in self.steps if step.step == name)

    def seconds(self, name: str) -> float:
        """How long that step took."""
        return self.step(name).seconds

    @property
    def mapped(self) -> int:
        """Pages of the model's file, at the step where it held most."""
        return max(step.mapped for step in self.steps)

    @property
    def grown(self) -> int | None:
        """What the load added to the process: anonymous + mapped, at the step where both were most."""
        held = [step.mapped + step.anonymous for step in self.steps if step.anonymous is not None]
        return max(held) - held[0] if held else None

    @property
    def resident(self) -> int | None:
        """All that the process held, the program and its libraries too, at the step where that was most."""
        return max((step.resident for step in self.steps if step.resident is not None), default=None)


def job(path: str, setting: LlamaSetting, *, prefill: int, decode: int, threads: int) -> dict[str, Any]:
    """The measuring worker's job."""
    return {
        "gguf": path,
        "model": load_parameters(setting),
        "mmap": setting.mmap,
        "context": context_parameters(setting) | {"n_threads": threads, "n_threads_batch": threads},
        "prefill": prefill,
        "decode": decode,
    }


def read_run(answers: Iterable[dict[str, Any]], setting: LlamaSetting, *, prefill: int, decode: int) -> MeasuredRun:
    """The worker's results as one run. Raises SizeupError for a run cut short."""
    found: dict[str, Any] = {}
    steps: list[Step] = []
    for answer in answers:
        match answer["part"]:
            case "engine" | "buffers":
                found |= answer
            case "step":
                steps.append(msgspec.convert({k: v for k, v in answer.items() if k not in {"event", "part"}}, Step))
    if not steps or steps[-1].step != "decoded":
        last = steps[-1].step if steps else "before it started"
        raise SizeupError(f"the llama.cpp run ended early: {last}", hint="look at free memory, or use less context")
    return MeasuredRun(
        setting=setting,
        engine=found["engine"],
        version=found["version"],
        system=found["system"],
        prefill=prefill,
        decode=decode,
        threads=found["threads"],
        buffers=msgspec.convert(found["buffers"], tuple[Buffer, ...]),
        output=found.get("output"),
        steps=tuple(steps),
    )
