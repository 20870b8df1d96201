"""Runs of llama.cpp on a processor, kept so that the model of processors can be fitted and judged again anywhere."""

from __future__ import annotations

import msgspec

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.traffic import host_rule
from sizeup.estimate.speed.ceilings import Ceilings, ceilings
from sizeup.estimate.speed.decode import Stage, prompt_seconds, step_seconds
from sizeup.estimate.speed.tighten import Observation, tightened
from sizeup.machines.device import Device, Machine
from sizeup.measure.calibrate import observations, streamed
from sizeup.measure.speed_runs import SpeedRun
from sizeup.models.load import load_model


class ProcessorRun(msgspec.Struct, frozen=True):
    """One run. model: a name, or a shape. prompts: tokens → seconds; decode: depth → seconds a token."""

    model: str
    format: str
    prompts: dict[int, float]
    decode: dict[int, float]

    @property
    def name(self) -> str:
        """Model and format."""
        return f"{self.model} {self.format}"


class ProcessorRuns(msgspec.Struct, frozen=True):
    """What was run on a processor. memory: bytes/s that its threads read. threads: that computed."""

    cpu: Device
    threads: int
    memory: float
    version: str
    date: str
    probes: tuple[ProcessorRun, ...]
    models: tuple[ProcessorRun, ...]


def seen(runs: ProcessorRuns, run: ProcessorRun) -> list[Observation]:
    """A run as work and seconds: its prompts, then its decoding."""
    model = load_model(shape=run.model) if "=" in run.model else load_model(run.model, network=False)
    setting = LlamaSetting(format=run.format, gpu_layers=0)
    rule = host_rule(LlamaSetting(), Machine(name=runs.cpu.name, cpu=runs.cpu))
    return list(
        observations(model, setting, SpeedRun(runs.version, False, run.prompts, run.decode), rule, on_gpu=False)
    )


def calibrated(runs: ProcessorRuns) -> Ceilings:
    """The processor after `machine calibrate`: the probes and the memory's rate, nothing else."""
    return tightened(streamed(ceilings(runs.cpu), runs.memory), [one for run in runs.probes for one in seen(runs, run)])


def errors(runs: ProcessorRuns, top: Ceilings) -> dict[str, list[tuple[str, float]]]:
    """Predicted / measured speed of the models, by `decode` and `prompt`."""
    found: dict[str, list[tuple[str, float]]] = {"decode": [], "prompt": []}
    for run in runs.models:
        places = [*(("prompt", n) for n in run.prompts), *(("decode", depth) for depth in run.decode)]
        for (part, place), one in zip(places, seen(runs, run), strict=True):
            stages = [Stage(runs.cpu.name, top, one.work)]
            took = prompt_seconds(stages, one.passes) if part == "prompt" else step_seconds(stages)
            found[part].append((f"{run.name} {place}", one.seconds / took))
    return found
