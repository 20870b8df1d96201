"""Measure this machine in about a minute: memory by threads, and llama.cpp on a small model in two formats.

What can't be measured (no llama.cpp, no GPU in its build) is left at its theoretical ceiling, and said.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from sizeup.engines.llamacpp.setting import ALL_LAYERS, LlamaSetting
from sizeup.engines.llamacpp.traffic import RuleKey, host_rule, placed_work
from sizeup.engines.llamacpp.weights import Assignment, assign
from sizeup.errors import SizeupError
from sizeup.estimate.speed.ceilings import Ceilings, ceilings
from sizeup.estimate.speed.parameters import parameters
from sizeup.estimate.speed.tighten import Observation, tightened
from sizeup.machines.device import Device, Machine
from sizeup.measure.calibration import Calibration, Fitted, machine_key
from sizeup.measure.speed_runs import SpeedRun, speed_run
from sizeup.models.load import load_model
from sizeup.models.model import Model
from sizeup.workers.host import run_worker

#: 0.27 · 10⁹ parameters: more bytes than processors' caches hold, few enough for a minute.
SHAPE = "layers=16,embedding=1024,heads=16,kv_heads=4,vocabulary=32000,ffn=4096"
FORMATS = ("Q8_0", "Q4_K_M", "F16")
BUFFER_BYTES = 256 * 2**20
PROMPT, DEPTHS = 128, (0, 1024)

Say = Callable[[str], None]


class MemoryRate(msgspec.Struct, frozen=True):
    """Bytes/s that so many threads read."""

    threads: int
    bytes_per_s: float


class FormatRate(msgspec.Struct, frozen=True):
    """What llama.cpp reached on the small model in one format: tokens/s of a prompt, and decoded at each depth."""

    device: str
    format: str
    prompt_tokens_per_s: float
    decode_tokens_per_s: dict[int, float]


class Measured(msgspec.Struct, frozen=True):
    """All that was measured, and the ceilings that follow."""

    memory: tuple[MemoryRate, ...]
    formats: tuple[FormatRate, ...]
    multiply: dict[str, float]
    calibration: Calibration
    notes: tuple[str, ...]


def calibrate(machine: Machine, *, threads: int | None = None, say: Say = print) -> Measured:
    """Measure the machine at hand; nothing is kept yet (`sizeup.measure.calibration.keep` does that)."""
    count = threads or machine.cpu.units or machine.cpu_threads or 1
    say("memory")
    memory, multiply = _memory(count)
    devices: dict[str, Fitted] = {}
    formats: list[FormatRate] = []
    notes: list[str] = []
    best = max(rate.bytes_per_s for rate in memory)
    if machine.cpu.bandwidth:
        share = parameters().stacks["cpu"].streaming  # a read is what is reached, a ceiling what could be
        start = msgspec.structs.replace(ceilings(machine.cpu), bandwidth=best / share)
        _device(machine, machine.cpu, start, count, say, devices, formats, notes)
    for gpu in machine.gpus[:1]:
        if gpu.bandwidth:
            _device(machine, gpu, ceilings(gpu), count, say, devices, formats, notes)
    if len(machine.gpus) > 1:
        notes.append("only the first GPU was measured")
    made = Calibration(machine_key(machine), datetime.now(UTC).isoformat(timespec="seconds"), devices)
    return Measured(memory, tuple(formats), multiply, made, tuple(notes))


def _memory(threads: int) -> tuple[tuple[MemoryRate, ...], dict[str, float]]:
    counts = sorted({1, 2, max(1, threads // 2), threads} & set(range(1, threads + 1)))
    job = {"threads": counts, "bytes": BUFFER_BYTES, "repeat": 5}
    results = run_worker("calibrate_memory.py", job, python=sys.executable, timeout=120)
    reads = tuple(MemoryRate(r["threads"], r["bytes_per_s"]) for r in results if r["part"] == "read")
    return reads, {r["type"]: r["flop_per_s"] for r in results if r["part"] == "multiply"}


def _device(
    machine: Machine, device: Device, start: Ceilings, threads: int, say: Say,
    devices: dict[str, Fitted], formats: list[FormatRate], notes: list[str],
) -> None:  # fmt: skip
    """Run the small model on a device in each format, and keep the ceilings that explain it."""
    on_gpu = device.kind != "cpu"
    model = load_model(shape=SHAPE)
    seen: list[Observation] = []
    rule_key = host_rule(LlamaSetting(), msgspec.structs.replace(machine, gpus=()))
    for name in FORMATS:
        say(f"llama.cpp, {name} on {device.name}")
        setting = LlamaSetting(format=name, gpu_layers=ALL_LAYERS if on_gpu else 0)
        try:
            run = speed_run(model, setting, depths=DEPTHS, prompt=PROMPT, threads=threads, repeat=2)
        except SizeupError as error:
            notes.append(f"llama.cpp wasn't measured on {device.name}: {error.message}")
            break
        if on_gpu and not run.offloads:
            notes.append(f"this llama.cpp was built without GPUs: {device.name} keeps its theoretical ceilings")
            return
        rate = run.prompt_tokens / run.prompt_seconds
        formats.append(FormatRate(device.name, name, rate, {d: 1 / s for d, s in run.decode.items()}))
        seen += observations(model, setting, run, () if on_gpu else rule_key, on_gpu=on_gpu)
    if seen or not on_gpu:
        devices[device.name] = _fitted(tightened(start, seen))


def observations(
    model: Model, setting: LlamaSetting, run: SpeedRun, rule_key: RuleKey, *, on_gpu: bool
) -> Sequence[Observation]:
    """A run as work and seconds, for one device that does everything."""
    places: Assignment = assign(model.layers, ALL_LAYERS if on_gpu else 0, (1.0,) if on_gpu else ())
    step = min(setting.ubatch, run.prompt_tokens)
    passes = run.prompt_tokens / step
    prompt = placed_work(model, setting, places, tokens=step, depth=(run.prompt_tokens - step) / 2, rule_key=rule_key)[
        0
    ].work
    found = [Observation(prompt, passes, run.prompt_seconds)]
    for depth, seconds in run.decode.items():
        found.append(
            Observation(placed_work(model, setting, places, depth=depth, rule_key=rule_key)[0].work, 1.0, seconds)
        )
    return found


def _fitted(ceiling: Ceilings) -> Fitted:
    return Fitted(**{name: getattr(ceiling, name) for name in Fitted.__struct_fields__})
