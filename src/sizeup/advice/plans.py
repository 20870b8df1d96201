"""A plan: one way to run a model on a machine, with its footprint, whether it fits, how fast it is, and its command."""

from __future__ import annotations

import msgspec

from sizeup.advice.fitting import Fits, fits
from sizeup.advice.formats import FormatLoss, loss_of
from sizeup.advice.speeds import Speed, speed_of
from sizeup.engines.llamacpp.command import server_command
from sizeup.engines.llamacpp.placement import place
from sizeup.engines.llamacpp.setting import ALL_LAYERS, VERSION, LlamaSetting
from sizeup.estimate.footprint import Footprint
from sizeup.machines.budget import Budget, machine_budget
from sizeup.machines.device import Machine
from sizeup.models.model import Model


class Plan(msgspec.Struct, frozen=True):
    """One way to run a model on a machine.

    placement: where the layers are, in words. setting: all that the engine is told. command: how to start it.
    loss: what the format costs in quality, and how that is known.
    """

    engine: str
    engine_version: str
    format: str
    context: int
    cache_type: str
    placement: str
    fits: Fits
    footprint: Footprint
    speed: Speed
    setting: LlamaSetting
    command: str
    loss: FormatLoss

    @property
    def tokens_per_s(self) -> float:
        """The expected speed, 0 when unknown: for ranking."""
        interval = self.speed.decode_tokens_per_s
        return interval.value if interval else 0.0


def make_plan(model: Model, setting: LlamaSetting, machine: Machine, budget: Budget | None = None) -> Plan:
    """Place the setting on the machine, and say what comes of it."""
    budget = budget or machine_budget(machine)
    placed = place(model, setting, machine, budget)
    shared = {
        device.device: device.total_bytes
        for device, gpu in zip(placed.footprint.devices, budget.gpus, strict=False)
        if gpu.shared_bytes
    }
    chosen = placed.setting
    return Plan(
        engine="llama.cpp",
        engine_version=VERSION,
        format=chosen.format or (model.scheme or model.dtype),
        context=chosen.context,
        cache_type=chosen.cache_k if chosen.cache_k == chosen.cache_v else f"{chosen.cache_k}/{chosen.cache_v}",
        placement=describe_placement(model, chosen, machine),
        fits=fits(placed.footprint, shared, model.uncertainty),
        footprint=placed.footprint,
        speed=speed_of(model, chosen, machine, budget),
        setting=chosen,
        command=" ".join(server_command(chosen, f"{model.name.rpartition('/')[2]}-{chosen.format or 'model'}.gguf")),
        loss=loss_of(model, chosen.format or model.scheme or ""),
    )


def describe_placement(model: Model, setting: LlamaSetting, machine: Machine) -> str:
    """Where the layers are: `GPU`, `2 GPUs`, `20 of 48 layers on GPU`, `GPU, 12 layers' experts on CPU`, `CPU`."""
    if not machine.gpus or setting.gpu_layers == 0:
        return "CPU"
    gpus = "GPU" if len(machine.gpus) == 1 else f"{len(machine.gpus)} GPUs"
    if setting.gpu_layers not in {None, ALL_LAYERS} and (setting.gpu_layers or 0) <= model.layers:
        return f"{setting.gpu_layers} of {model.layers + 1} layers on {gpus}"
    return f"{gpus}, {setting.cpu_moe_layers} layers' experts on CPU" if setting.cpu_moe_layers else gpus
