"""Training speed: tokens/s of one GPU from what a step computes, moves through memory and sends over links.

matrices     (4 + 2 w + 2 r) · N / (peak · share)  N: parameters a token is multiplied with; w: the share of them that
                                                   gets a gradient; r: the share of the forward pass that runs again
attention    6 · layers · heads · head_dim · sequence · (1 + r/3) / (bf16 peak · share)     causal: half of the square
elementwise  (1 + m/3) · (layers · hidden · A + vocabulary · B) / bandwidth         norms, activations, logits, bytes;
                                                   m: the share of them that runs again
experts      the routed share of the matrices costs a factor more: grouped products, dispatch, imbalance
links        N_all · (4 + 2 w) B / tokens of a micro-step / link, where shards are gathered; overlapped but for a share
bubble       · (1 + (stages - 1) / micro-batches / virtual stages)

w was not fitted: NVIDIA's LoRA runs (w = 0) are 1.6 times as fast a GPU as its full ones, where 6/4 is 1.5.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from sizeup.quantity import Interval

_FILE = Path(__file__).with_name("training.json")


class TrainingStep(msgspec.Struct, frozen=True):
    """One token's share of a step on one GPU, as quantities of the module's formulas.

    recomputed, redone_elementwise: share of the forward pass's products, and of what moves through memory, that runs
    again. sharded: whether weights are gathered over GPUs (FSDP, ZeRO-3). weight_gradients: share of the matrices that
    train.
    """

    matrix_parameters: Any
    routed_parameters: Any
    all_parameters: Any
    attention_width: Any
    layers: Any
    hidden: Any
    vocabulary: Any
    sequence: Any
    recomputed: Any
    micro_tokens: Any
    sharded: Any
    bubble: Any
    redone_elementwise: Any = None
    weight_gradients: Any = 1.0


class TrainingRates(msgspec.Struct, frozen=True):
    """Fitted shares. Bytes a token: layer_bytes for each layer and hidden unit, logit_bytes for each word."""

    bf16: Any
    fp8: Any
    fp4: Any
    attention: Any
    layer_bytes: Any
    logit_bytes: Any
    experts: Any
    links: Any
    low: float = -0.3
    high: float = 0.3


class TrainingCeilings(msgspec.Struct, frozen=True):
    """What a GPU could do: FLOP/s at the matrices' precision and in bf16, bytes/s of memory and link."""

    matrix: Any
    bf16: Any
    bandwidth: Any
    link: Any


@lru_cache(maxsize=1)
def training_rates() -> TrainingRates:
    """The fitted shares of this version (scripts/fit_training_speed.py)."""
    return msgspec.json.decode(_FILE.read_bytes(), type=TrainingRates)


def token_seconds(step: TrainingStep, top: TrainingCeilings, share: Any, rates: TrainingRates) -> Any:
    """Seconds of one token on one GPU. share: of the matrix peak, for the step's precision."""
    again = 1 + step.recomputed / 3
    matrices = (4 + 2 * step.weight_gradients + 2 * step.recomputed) / (top.matrix * share)
    routed = step.routed_parameters * (rates.experts - 1)
    compute = (step.matrix_parameters + routed) * matrices
    attention = 6 * again * step.layers * step.attention_width * step.sequence / (top.bf16 * rates.attention)
    moved = step.layers * step.hidden * rates.layer_bytes + step.vocabulary * rates.logit_bytes
    moves = again if step.redone_elementwise is None else 1 + step.redone_elementwise / 3
    sent = step.sharded * step.all_parameters * (4 + 2 * step.weight_gradients)
    gathered = sent / step.micro_tokens / top.link * rates.links
    return (compute + attention + moves * moved / top.bandwidth + gathered) * step.bubble


def training_speed(step: TrainingStep, top: TrainingCeilings, precision: str) -> Interval:
    """Tokens/s of one GPU, with a 90 % interval."""
    rates = training_rates()
    value = 1 / token_seconds(step, top, getattr(rates, precision), rates)
    return Interval(value, value * math.exp(-rates.high), value * math.exp(-rates.low))


def ranged_seconds(seconds: float) -> Interval:
    """Seconds of a step with the fit's 90 % interval (systems that the fit hadn't seen)."""
    rates = training_rates()
    return Interval(seconds, seconds * math.exp(rates.low), seconds * math.exp(rates.high))


def utilisation(tokens_per_s: float, step: TrainingStep, peak: float) -> float:
    """MFU: (6 N + 6 · layers · width · sequence) · tokens/s / peak; what is computed again doesn't count."""
    flops = 6 * step.matrix_parameters + 6 * step.layers * step.attention_width * step.sequence
    return float(flops * tokens_per_s / peak)
