"""How long a training step takes: the fitted speed of its products, and what its setting adds."""

from __future__ import annotations

import msgspec

from sizeup.estimate.speed import training_extras as extras
from sizeup.estimate.speed.training import TrainingCeilings, TrainingStep, token_seconds, training_rates
from sizeup.estimate.speed.training_extras import Roads
from sizeup.estimate.training.architectures.programs import Shape
from sizeup.estimate.training.build import Weight
from sizeup.estimate.training.estimate import recorded
from sizeup.estimate.training.optimizers import OPTIMIZERS
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.step import state_bytes
from sizeup.machines.device import Device


class Weights(msgspec.Struct, frozen=True):
    """A model's parameters as time sees them.

    multiplied: those a token is multiplied with, `routed` of them in experts. stored: all. trained: all that train.
    trained_item: bytes of one of these. states: bytes of the optimizer's. narrow: the largest matrix's smaller side.
    """

    multiplied: int
    routed: int
    stored: int
    trained: int
    trained_item: int
    states: int
    narrow: int
    experts_chosen: int = 0


class Rig(msgspec.Struct, frozen=True):
    """The device that a step is timed on."""

    name: str
    ceilings: TrainingCeilings
    roads: Roads
    precision: str


def rig_of(device: Device, setting: TrainSetting, host_bandwidth: int | None = None) -> Rig | None:
    """The device's ceilings for that precision; None when its compute or bandwidth isn't known."""
    compute = device.compute
    plain = compute.get("bf16") or compute.get("fp16") or compute.get("fp32")
    number = "fp8" if setting.precision == "fp8" else "fp32" if setting.precision == "fp32" else "bf16"
    matrix = compute.get(number) or (plain if number == "bf16" else None)
    if not plain or not matrix or not device.bandwidth:
        return None
    host = float(device.host_link.bytes_per_s if device.host_link else extras.UNKNOWN_LINK)
    peers = float(device.peer_link.bytes_per_s) if device.peer_link else host
    roads = Roads(float(device.bandwidth), host, peers, float(host_bandwidth or extras.HOST_BANDWIDTH), float(plain))
    ceilings = TrainingCeilings(float(matrix), float(plain), float(device.bandwidth), peers)
    return Rig(device.name, ceilings, roads, "fp8" if number == "fp8" else "bf16")


def step_seconds(
    shape: Shape, setting: TrainSetting, rig: Rig, passes: int = 1, weights: Weights | None = None
) -> float:
    """Seconds from one optimizer step to the next. passes: forward and backward passes between them.

    weights: of the method, where they are at hand. Not counted: launches of small kernels, which slow small models and
    batches; ring attention's exchange; loading data.
    """
    weights = weights or weights_of(shape, setting)
    tokens = setting.sequences * setting.sequence
    split = setting.tensor_parallel * setting.context_parallel * setting.pipeline_parallel
    step = _step(shape, setting, weights, tokens)
    rates = training_rates()
    each = token_seconds(step, rig.ceilings, getattr(rates, rig.precision), rates) * tokens / split
    once = _once(setting, weights, rig.roads, rates.links)
    return float(passes * (each + _each_pass(shape, setting, weights, rig.roads, rates.links, tokens)) + once)


def weights_of(shape: Shape, setting: TrainSetting) -> Weights:
    """Parameters of the whole model by what a step does with them."""
    alone = msgspec.structs.replace(
        setting, batch=1, sequence=128, data_parallel=1, sharding="none", tensor_parallel=1, pipeline_parallel=1,
        expert_parallel=1, context_parallel=1, sequence_parallel=False, loss_parallel=False, objective="causal",
    )  # fmt: skip
    counted = recorded(shape, alone).weights
    mixture = getattr(shape, "mixture", None)
    share = mixture.chosen / mixture.experts if mixture is not None else 1.0
    routed = round(sum(weight.n * count for weight, count in counted if weight.kind == "experts") * share)
    dense = sum(weight.n * count for weight, count in counted if weight.kind in {"matrix", "head"})
    tied = 0 if any(weight.kind == "head" for weight, _ in counted) else getattr(shape, "vocabulary", 0) * shape.hidden
    trained = [(weight, count) for weight, count in counted if weight.trains]
    return Weights(
        multiplied=dense + tied + routed,
        routed=routed,
        stored=sum(weight.n * count for weight, count in counted),
        trained=sum(weight.n * count for weight, count in trained),
        trained_item=max((weight.item for weight, _ in trained), default=setting.weight_item),
        states=state_bytes(trained, OPTIMIZERS[setting.optimizer]),
        narrow=max((_narrow(weight) for weight, _ in trained), default=0),
        experts_chosen=mixture.chosen if mixture is not None else 0,
    )


def _narrow(weight: Weight) -> int:
    return min(weight.rows, weight.n // weight.rows) if weight.kind == "matrix" and weight.rows else 0


def _recomputed(setting: TrainSetting) -> tuple[float, float]:
    """Share of the products, and of what moves through memory, that runs again."""
    if setting.checkpointing == "none":
        return 0.0, 0.0
    if setting.checkpointing == "selective":
        return 0.0, 1.0
    every = int(setting.checkpointing) if setting.checkpointing.isdecimal() else 1
    return 1 / every, 1 / every


def _step(shape: Shape, setting: TrainSetting, weights: Weights, tokens: int) -> TrainingStep:
    again, moved = _recomputed(setting)
    heads, width = getattr(shape, "head_count", 0), getattr(shape, "head_dim", 0)
    virtual = 2 if setting.schedule == "interleaved" else 1
    return TrainingStep(
        matrix_parameters=weights.multiplied,
        routed_parameters=weights.routed,
        all_parameters=weights.stored,
        attention_width=heads * width or shape.hidden,
        layers=shape.layers,
        hidden=shape.hidden,
        vocabulary=getattr(shape, "vocabulary", 0),
        sequence=setting.sequence,
        recomputed=again,
        redone_elementwise=moved,
        micro_tokens=tokens,
        sharded=float(setting.gathers),
        bubble=1 + (setting.pipeline_parallel - 1) / setting.micro_batches / virtual,
        weight_gradients=0.0 if setting.adapters else 1.0,
    )


def _once(setting: TrainSetting, weights: Weights, roads: Roads, slowed: float) -> float:
    """Seconds after the last backward pass: gradients are summed, the optimizer steps."""
    owners = setting.data_parallel if setting.gathers or setting.sharding.startswith("zero") else 1
    trained = weights.trained // (owners * setting.tensor_parallel * setting.pipeline_parallel)
    item = weights.trained_item
    summed = 0.0
    if setting.data_parallel > 1 and not setting.gathers:
        summed = extras.reduced_seconds(trained * owners * item, setting.data_parallel, roads, slowed)
    if setting.offload_optimizer:
        return summed + extras.offloaded_optimizer_seconds(trained, item, roads)
    states = round(weights.states * trained / max(1, weights.trained))
    return summed + extras.optimizer_seconds(setting.optimizer, trained, item, states, roads, width=weights.narrow)


def _each_pass(
    shape: Shape, setting: TrainSetting, weights: Weights, roads: Roads, slowed: float, tokens: int
) -> float:
    """Seconds that a pass takes however few its tokens, and what splitting and the host's link add to it."""
    again = _recomputed(setting)[0]
    stream = tokens * shape.hidden * 2
    split = setting.tensor_parallel * setting.pipeline_parallel * setting.expert_parallel
    summed = weights.trained * weights.trained_item // split if setting.accumulating else 0
    seconds = extras.weights_seconds(weights.stored * 2 // split, 2 + again, summed, roads)
    if setting.method == "qlora":
        seconds += extras.unpacking_seconds(weights.stored, 2 + again, roads)
    if setting.tensor_parallel > 1:
        seconds += extras.split_seconds(stream, shape.layers, 2 + again, setting.tensor_parallel, roads, slowed)
    if setting.expert_parallel > 1:
        chosen, devices = weights.experts_chosen, setting.expert_parallel
        seconds += extras.exchanged_seconds(stream, chosen, shape.layers, 2 + again, devices, roads, slowed)
    if setting.offload_weights:
        seconds += extras.streamed_seconds(round((2 + again) * weights.stored * setting.weight_item), roads)
    if setting.offload_activations:
        seconds += extras.streamed_seconds(2 * stream * shape.layers, roads)
    return seconds
