"""Measure this machine in about a minute: memory by threads, and llama.cpp on small models in many formats.

What can't be measured (no llama.cpp, no GPU in its build) stays as theory has it, and is said.
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
from sizeup.estimate.speed.work import Work
from sizeup.machines.device import Device, Machine
from sizeup.measure.calibration import Calibration, Fitted, machine_key
from sizeup.measure.speed_runs import SpeedRun, speed_run
from sizeup.models.load import load_model
from sizeup.models.model import Model
from sizeup.workers.host import run_worker

#: More bytes than processors' caches hold, few enough for a second each: 140 · 10⁶ values.
SHAPE = "layers=4,embedding=1536,heads=24,kv_heads=8,vocabulary=4096,ffn=6144"
#: Narrow matrices, as the smallest models have: activations weigh.
NARROW = "layers=20,embedding=512,heads=8,kv_heads=2,vocabulary=4096,ffn=1536"
#: Keys and values that no cache holds: 2,048 tokens of them are 67 MB.
DEEP = "layers=8,embedding=1024,heads=8,kv_heads=8,vocabulary=4096,ffn=1024"
#: Next to no bytes: what remains is the start of kernels.
EMPTY = "layers=48,embedding=64,heads=2,kv_heads=1,vocabulary=256,ffn=64"
#: Experts, which processors multiply row by row in many formats.
MIXTURE = (
    "layers=3,embedding=1024,heads=16,kv_heads=4,vocabulary=4096,ffn=512,experts=16,active_experts=2,expert_ffn=1024"
)


class Probe(msgspec.Struct, frozen=True):
    """One small run: a shape in a format, the prompts that it reads, the depths at which it decodes."""

    shape: str
    format: str
    prompts: tuple[int, ...] = (128,)
    depths: tuple[int, ...] = (0,)


#: What matters differs by device: a processor has a kernel for each type, GPUs share most of theirs.
PROCESSOR_PROBES = (
    Probe(SHAPE, "Q8_0", (128, 1024), (0, 2048)),
    Probe(DEEP, "Q8_0", (128, 1024), (0, 2048)),
    Probe(NARROW, "Q8_0", (128,), (0, 2048)),
    Probe(NARROW, "Q4_K_S", (128,)),
    Probe(EMPTY, "Q8_0", ()),
    *(Probe(SHAPE, name) for name in ("Q4_0", "Q4_K_S", "Q6_K", "Q5_K_S", "Q3_K_S", "Q2_K", "IQ4_XS", "IQ4_NL",
                                      "IQ3_XXS", "Q5_0", "F16", "BF16")),
    *(Probe(MIXTURE, name, (128,), ()) for name in ("Q8_0", "Q4_K_S", "F16")),
)  # fmt: skip
#: 0.27 · 10⁹ values: a GPU's caches hold tens of megabytes.
_GPU_SHAPE = "layers=16,embedding=1024,heads=16,kv_heads=4,vocabulary=32000,ffn=4096"
GPU_PROBES = (
    Probe(_GPU_SHAPE, "Q8_0", (512, 2048), (0, 4096)),
    Probe(EMPTY, "Q8_0", ()),
    *(Probe(_GPU_SHAPE, name, (512,)) for name in ("Q4_0", "Q4_K_S", "Q6_K", "IQ4_XS", "F16")),
)
BUFFER_BYTES = 256 * 2**20
REPEAT, DECODED = 5, 4
#: All probes are run so often, and the best of each counts: what disturbs one round spares another.
ROUNDS = 2

Say = Callable[[str], None]


class MemoryRate(msgspec.Struct, frozen=True):
    """Bytes/s that so many threads read."""

    threads: int
    bytes_per_s: float


class FormatRate(msgspec.Struct, frozen=True):
    """What llama.cpp reached on a small model in one format: tokens/s by length of prompt, and by depth."""

    device: str
    shape: str
    format: str
    prompt_tokens_per_s: dict[int, float]
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
        start = streamed(ceilings(machine.cpu), best)
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


def streamed(theory: Ceilings, read: float) -> Ceilings:
    """A processor whose memory is read at that rate: plain reading is what kernels can come near."""
    share = parameters().stacks["cpu"].streaming
    return msgspec.structs.replace(theory, corrections=(("streaming", theory.bandwidth * share / read),))


def _device(
    machine: Machine, device: Device, start: Ceilings, threads: int, say: Say,
    devices: dict[str, Fitted], formats: list[FormatRate], notes: list[str],
) -> None:  # fmt: skip
    """Run the small models on a device, and keep the corrections that explain what they took."""
    on_gpu = device.kind != "cpu"
    rule_key = () if on_gpu else host_rule(LlamaSetting(), msgspec.structs.replace(machine, gpus=()))
    best: dict[Probe, SpeedRun] = {}
    for number in range(ROUNDS):
        for probe in GPU_PROBES if on_gpu else PROCESSOR_PROBES:
            say(f"llama.cpp, {probe.format} on {device.name}, round {number + 1} of {ROUNDS}")
            try:
                run = _run(probe, threads, on_gpu=on_gpu)
            except SizeupError as error:
                notes.append(f"llama.cpp wasn't measured on {device.name}: {error.message}")
                if not on_gpu:
                    devices[device.name] = Fitted(dict(start.corrections))
                return
            if on_gpu and not run.offloads:
                notes.append(f"this llama.cpp was built without GPUs: {device.name} stays as theory has it")
                return
            best[probe] = run.best_with(best[probe]) if probe in best else run
    formats += [_rate(device, probe, run) for probe, run in best.items()]
    seen = [
        one for probe, run in best.items()
        for one in observations(load_model(shape=probe.shape), _setting(probe, on_gpu), run, rule_key, on_gpu=on_gpu)
    ]  # fmt: skip
    devices[device.name] = Fitted(dict(tightened(start, seen).corrections))


def _setting(probe: Probe, on_gpu: bool) -> LlamaSetting:
    return LlamaSetting(format=probe.format, gpu_layers=ALL_LAYERS if on_gpu else 0)


def _run(probe: Probe, threads: int, *, on_gpu: bool) -> SpeedRun:
    return speed_run(
        load_model(shape=probe.shape), _setting(probe, on_gpu), depths=probe.depths, prompts=probe.prompts,
        threads=threads, repeat=REPEAT, decoded=DECODED,
    )  # fmt: skip


def _rate(device: Device, probe: Probe, run: SpeedRun) -> FormatRate:
    return FormatRate(
        device.name, probe.shape, probe.format,
        {tokens: tokens / seconds for tokens, seconds in run.prompts.items()},
        {depth: 1 / seconds for depth, seconds in run.decode.items()},
    )  # fmt: skip


def observations(
    model: Model, setting: LlamaSetting, run: SpeedRun, rule_key: RuleKey, *, on_gpu: bool
) -> Sequence[Observation]:
    """A run as work and seconds, for one device that does everything."""
    places: Assignment = assign(model.layers, ALL_LAYERS if on_gpu else 0, (1.0,) if on_gpu else ())

    def work(tokens: int, depth: float) -> Work:
        return placed_work(model, setting, places, tokens=tokens, depth=depth, rule_key=rule_key)[0].work

    found = []
    for tokens, seconds in run.prompts.items():
        step = min(setting.ubatch_tokens, tokens)
        found.append(Observation(work(step, (tokens - step) / 2), tokens / step, seconds))
    return [*found, *(Observation(work(1, depth), 1.0, seconds) for depth, seconds in run.decode.items())]
