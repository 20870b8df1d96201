"""What is expected of a bench's cell: the speeds estimated at its depth, and the ceiling above them."""

from __future__ import annotations

from functools import partial

from sizeup.advice.speeds import because
from sizeup.engines.llamacpp.footprint import assignment_of
from sizeup.engines.llamacpp.traffic import stages
from sizeup.estimate.speed import decode_speed, prompt_speed
from sizeup.estimate.speed.ceilings import Ceilings, ceilings
from sizeup.estimate.speed.threads import with_threads
from sizeup.machines.budget import machine_budget
from sizeup.machines.device import Machine
from sizeup.measure.bench.cells import Cell
from sizeup.measure.bench.results import Prediction
from sizeup.measure.calibration import measured_ceilings
from sizeup.operations.serving import TRANSFORMERS, Served, cores


def predict(served: Served, cell: Cell, threads: int | None = None, *, engine: str = "llama.cpp") -> Prediction:
    """Decode of each sequence, half of what it generates being behind it; prefill of one that reads alone.

    threads: at work on the processor; None, one for each core. engine: of another than llama.cpp the ceiling is said
    and no speed, which nobody has measured.
    ceiling: 1 / Σ over devices of bytes read / theoretical bandwidth, all cores reading.
    """
    model, setting, machine = served.model, served.plan.setting, served.machine
    places = assignment_of(model, setting, machine, machine_budget(machine))
    depth = cell.depth + cell.prompt + cell.generate / 2
    try:
        passes = partial(stages, model, setting, machine, places, measured=_ceilings(machine, threads))
        decoding = passes(depth, sequences=cell.concurrency)
        full = passes(depth, sequences=cell.concurrency, measured=measured_ceilings(machine))
    except ValueError as unknown:
        return Prediction(because=str(unknown))
    step = min(setting.ubatch_tokens, cell.prompt)
    reading = passes(cell.depth + (cell.prompt - step) / 2, tokens=step)
    least = sum(stage.ceiling_seconds for stage in full)
    read = sum(stage.work.weight_bytes + stage.work.cache_bytes for stage in decoding)
    if engine == TRANSFORMERS:
        return Prediction(ceiling=1 / least if least else None, because=f"no speeds are known of {engine}")
    return Prediction(
        decode=decode_speed(decoding),
        prefill=prompt_speed(reading, cell.prompt, cell.prompt / step) if cell.concurrency == 1 else None,
        ceiling=1 / least if least else None,
        because=because(decoding, f"{read / 1e9:.3g} GB read for each step at {depth:,.0f} tokens"),
    )


def _ceilings(machine: Machine, threads: int | None) -> dict[str, Ceilings]:
    """Measured ceilings, the processor's cut to the threads that work. Raises ValueError for an unknown bandwidth."""
    measured, all_cores = measured_ceilings(machine), cores(machine)
    if threads is None or all_cores is None or threads >= all_cores:
        return measured
    processor = measured.get(machine.cpu.name) or ceilings(machine.cpu)
    return {**measured, machine.cpu.name: with_threads(processor, threads, all_cores)}
