"""Scaling laws: the loss to expect, the tokens that suit a size, FLOPs, GPU-hours, energy and money of a training run.

Give parameters, tokens or FLOPs: what is missing is what the compute-optimal law says.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sizeup.errors import BadInput
from sizeup.estimate import scaling
from sizeup.estimate.cost import HOST_WATTS
from sizeup.estimate.speed.training import TrainingCeilings, TrainingStep, training_speed
from sizeup.estimate.speed.training_extras import UNKNOWN_LINK
from sizeup.machines.device import Device
from sizeup.machines.spec import load_machine
from sizeup.quantity import Interval
from sizeup.quantity.units import parse_count

_HOURS = 3600.0
#: The model that a size is taken to be: hidden units a layer, words; how a GPU is fed; when activations aren't kept.
_ASPECT, _VOCABULARY, _MICRO_TOKENS, _RECOMPUTED_FROM = 128, 128_000, 8192, 7e9


class ScaleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A training run, or part of what describes one."""

    parameters: Annotated[str, Meta(description="Parameters (8B); default: what suits the FLOPs or tokens.")] = ""
    tokens: Annotated[str, Meta(description="Training tokens (15T); default: what suits the parameters.")] = ""
    flops: Annotated[float | None, Meta(description="Training FLOPs (1e24), instead of one of the two.")] = None
    machine: Annotated[str, Meta(description="'8x H100 SXM': what it runs on; default: no time is given.")] = ""
    precision: Annotated[Literal["bf16", "fp8"], Meta(description="Number type of the matrices.")] = "bf16"
    sequence: Annotated[int, Meta(description="Tokens of a training sequence.", ge=1)] = 4096
    usd_per_gpu_hour: Annotated[float, Meta(description="Price of one GPU for an hour.", ge=0)] = 2.5
    usd_per_kwh: Annotated[float, Meta(description="Price of electricity.", ge=0)] = 0.15


class PredictedLoss(msgspec.Struct, frozen=True):
    """A law's loss in nats a token; holds: whether it was fitted on such sizes."""

    law: str
    loss: float
    holds: bool
    source: str


class Claim(msgspec.Struct, frozen=True):
    """A common claim, and what the formula says."""

    claim: str
    answer: str


class ScaleReport(msgspec.Struct, frozen=True):
    """The run. gpu_hours, energy_kwh, usd: None without a machine whose compute is known.

    tokens_per_parameter: 20 is Hoffmann's rule of thumb. mfu: 6 · parameters · tokens/s / peak, as the fitted model of
    training has it for a dense model of the size; assumed: what that model was told.
    """

    parameters: float
    tokens: float
    tokens_per_parameter: float
    flops: float
    losses: tuple[PredictedLoss, ...]
    optimal_parameters: float
    optimal_tokens: float
    machine: str = ""
    mfu: Interval | None = None
    assumed: str = ""
    gpu_hours: Interval | None = None
    days: Interval | None = None
    energy_kwh: Interval | None = None
    energy_usd: Interval | None = None
    usd: Interval | None = None
    claims: tuple[Claim, ...] = ()
    schema: str = "sizeup.scale/1"


def scale(request: ScaleRequest) -> ScaleReport:
    """Complete the run, ask the laws, and count the hours."""
    parameters, tokens = _completed(request)
    flops = scaling.training_flops(parameters, tokens)
    best = scaling.BESIROGLU
    report = ScaleReport(
        parameters, tokens, tokens / parameters, flops, _losses(parameters, tokens, flops),
        best.optimal_parameters(flops), best.optimal_tokens(flops), claims=_claims(),
    )  # fmt: skip
    return _timed(report, request) if request.machine else report


def _completed(request: ScaleRequest) -> tuple[float, float]:
    given = [bool(request.parameters), bool(request.tokens), request.flops is not None]
    if not any(given) or all(given):
        raise BadInput(
            "give one or two of parameters, tokens and flops", hint="for example --parameters 8B --tokens 15T"
        )
    if request.flops is not None and request.flops <= 0:
        raise BadInput(f"{request.flops} FLOPs", hint="a number above 0, such as 1e24")
    parameters = float(parse_count(request.parameters)) if request.parameters else 0.0
    tokens = float(parse_count(request.tokens)) if request.tokens else 0.0
    if request.flops is not None:
        work = request.flops / scaling.FLOPS_PER_PARAMETER_TOKEN
        if not parameters and not tokens:
            parameters = scaling.BESIROGLU.optimal_parameters(request.flops)
        parameters = parameters or work / tokens
        return parameters, work / parameters
    return parameters or tokens / scaling.TOKENS_PER_PARAMETER, tokens or parameters * scaling.TOKENS_PER_PARAMETER


def _losses(parameters: float, tokens: float, flops: float) -> tuple[PredictedLoss, ...]:
    parametric = [PredictedLoss(law.name, law.loss(parameters, tokens), law.holds_for(parameters), law.source)
                  for law in scaling.LAWS]  # fmt: skip
    kaplan = (
        ("Kaplan 2020, by parameters", scaling.kaplan_loss_of_parameters(parameters), parameters <= 1.5e9),
        ("Kaplan 2020, by tokens", scaling.kaplan_loss_of_tokens(tokens), tokens <= 2.3e10),
        ("Kaplan 2020, by compute", scaling.kaplan_loss_of_compute(flops), flops <= 10 * 8.64e19),
    )
    return (*parametric, *(PredictedLoss(*found, scaling.KAPLAN_SOURCE) for found in kaplan))


def _claims() -> tuple[Claim, ...]:
    low = scaling.growth_for_loss(1 - 1 / 1.1, scaling.KAPLAN_ALPHA_N)
    high = scaling.growth_for_loss(0.1, scaling.KAPLAN_ALPHA_N)
    compute = scaling.growth_for_loss(0.1, scaling.KAPLAN_ALPHA_C)
    return (
        Claim(
            "a 10 % better loss takes 10^(1/0.076) ≈ 1.4·10¹³ times the parameters",
            f"no: (1/0.9)^(1/0.076) = {high:.1f} times (with the loss divided by 1.1: {low:.1f})",
        ),
        Claim(
            "a 10 % better loss takes twice the compute",
            f"no: (1/0.9)^(1/0.05) = {compute:.1f} times, spent as well as can be",
        ),
        Claim(
            "20 tokens for each parameter is best",
            "for training compute alone; a model that is used much is trained longer",
        ),
    )


def _timed(report: ScaleReport, request: ScaleRequest) -> ScaleReport:
    machine = load_machine(request.machine)
    devices = machine.gpus or (machine.cpu,)
    top = _ceilings(devices[0], request.precision)
    if top is None:
        raise BadInput(
            f"nothing is known of what {machine.name} computes in {request.precision}",
            hint="describe its compute and bandwidth in a TOML file, or take another --precision",
        )
    step, assumed = _step(report.parameters, request.sequence, len(devices))
    each = training_speed(step, top, request.precision)
    took = report.tokens / _HOURS
    hours = Interval(took / each.value, took / each.high, took / each.low)
    seconds = hours.scaled(_HOURS / len(devices))
    watts = sum(float(d.power_w or 300) for d in devices) + HOST_WATTS * len(devices)
    energy = seconds.scaled(watts / 3.6e6)
    return msgspec.structs.replace(
        report, machine=machine.name, mfu=each.scaled(6 * report.parameters / top.matrix), assumed=assumed,
        gpu_hours=hours, days=seconds.scaled(1 / 86400), energy_kwh=energy,
        energy_usd=energy.scaled(request.usd_per_kwh), usd=hours.scaled(request.usd_per_gpu_hour),
    )  # fmt: skip


def _ceilings(device: Device, precision: str) -> TrainingCeilings | None:
    plain = device.compute.get("bf16") or device.compute.get("fp16") or device.compute.get("fp32")
    matrix = plain if precision == "bf16" else device.compute.get(precision)
    if not plain or not matrix or not device.bandwidth:
        return None
    link = device.peer_link or device.host_link
    return TrainingCeilings(
        float(matrix), float(plain), float(device.bandwidth), float(link.bytes_per_s if link else UNKNOWN_LINK)
    )


def _step(parameters: float, sequence: int, devices: int) -> tuple[TrainingStep, str]:
    """A dense model of that size: 12 · layers · hidden² parameters, hidden = 128 · layers (Kaplan 2020, figure 5)."""
    layers = max(1.0, (parameters / (12 * _ASPECT**2)) ** (1 / 3))
    hidden, micro = _ASPECT * layers, float(max(sequence, _MICRO_TOKENS))
    again = 1.0 if parameters >= _RECOMPUTED_FROM else 0.0
    words = (
        f"a dense model of {layers:.0f} layers and {hidden:,.0f} hidden units, {micro:,.0f} tokens a GPU and step "
        f"of {sequence:,} each, weights {'sharded' if devices > 1 else 'whole'}, activations "
        f"{'computed again' if again else 'kept'}; GPUs in one node"
    )
    step = TrainingStep(
        matrix_parameters=parameters, routed_parameters=0.0, all_parameters=parameters, attention_width=hidden,
        layers=layers, hidden=hidden, vocabulary=_VOCABULARY, sequence=sequence, recomputed=again, micro_tokens=micro,
        sharded=float(devices > 1), bubble=1.0,
    )  # fmt: skip
    return step, words
