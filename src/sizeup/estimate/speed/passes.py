"""Seconds of one pass on one device: what is read, what is computed, what is started. The heart of every prediction.

    reading    √( (bytes / (bandwidth · streaming))² + (Σ values · unpack / integer rate)² )
    computing  matrix FLOPs · ( 1 / (matrix rate · share) + scaling · rescale / vector rate )
    attention  cache bytes / (bandwidth · cache streaming)  and  attention FLOPs / (matrix rate · share), as √(a² + b²)
    launching  kernels · kernel seconds
    pass       √(reading² + computing²) + attention + launching

Reading and unpacking overlap but hinder each other, hence the root of squares instead of a maximum. The formulas take
numbers, or arrays of them (the fit does). Known error: see `sizeup.estimate.speed.intervals`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sizeup.estimate.speed.ceilings import Ceilings
from sizeup.estimate.speed.parameters import Parameters
from sizeup.estimate.speed.work import PACKINGS, Work

_PLAIN = PACKINGS.index("plain")
#: Keeps shares of nothing defined.
_ONE = 1.0


class Rates(msgspec.Struct, frozen=True):
    """What a device reaches with a set of kernels: ceilings times fitted shares.

    streaming, caching: bytes/s. unpacking: seconds a value, by packing. matrix_flop, plain_flop,
    attention_flop: seconds a FLOP; scaling_flop: of a product's scaling, by packing. expert_reading, expert_computing:
    factors for routed experts. kernel: seconds.
    """

    streaming: float
    caching: float
    unpacking: Sequence[float]
    matrix_flop: float
    scaling_flop: Sequence[float]
    plain_flop: float
    attention_flop: float
    kernel: float
    expert_reading: float
    expert_computing: float


def rates(ceiling: Ceilings, fitted: Parameters) -> Rates:
    """The rates of a device. A backend that nobody has measured takes Vulkan's shares, the most portable."""
    stack = fitted.stacks.get(ceiling.stack) or fitted.stacks["vulkan"]
    streaming = 1.0 if ceiling.source == "measured" else fitted.generations.get(ceiling.generation, 1.0)
    prompt = 1.0 if ceiling.source == "measured" else fitted.prompt_generations.get(ceiling.generation, 1.0)
    return Rates(
        streaming=ceiling.bandwidth * stack.streaming * streaming,
        caching=ceiling.bandwidth * stack.cache_streaming,
        unpacking=[stack.unpack.get(name, fitted.unpack[name]) / ceiling.integer for name in PACKINGS],
        matrix_flop=1 / (ceiling.packed_matrix * stack.matrix * prompt),
        scaling_flop=[
            stack.rescale.get(name, fitted.rescale[name]) * stack.scaling / (ceiling.vector * prompt)
            for name in PACKINGS
        ],
        plain_flop=1 / (ceiling.plain_matrix * stack.plain_matrix * prompt),
        attention_flop=1 / (ceiling.attention * stack.attention),
        kernel=stack.kernel_seconds,
        expert_reading=stack.expert_reading or fitted.expert_reading,
        expert_computing=stack.expert_computing or fitted.expert_computing,
    )


class Seconds(msgspec.Struct, frozen=True):
    """The parts of a pass; `total` combines them as they overlap."""

    reading: float
    unpacking: float
    computing: float
    attention: float
    launching: float

    @property
    def matrices(self) -> float:
        """√(reading² + unpacking² + computing²)."""
        total: Any = (self.reading**2 + self.unpacking**2 + self.computing**2) ** 0.5
        return total  # type: ignore[no-any-return]

    @property
    def total(self) -> float:
        """All of it."""
        return self.matrices + self.attention + self.launching

    @property
    def bound(self) -> str:
        """What most of the time goes to: `bandwidth`, `unpacking`, `compute`, `attention` or `launch`."""
        parts = {
            "bandwidth": self.reading, "unpacking": self.unpacking, "compute": self.computing,
            "attention": self.attention, "launch": self.launching,
        }  # fmt: skip
        return max(parts, key=parts.__getitem__)


def pass_seconds(work: Work, rate: Rates) -> Seconds:
    """The parts of one pass on one device."""
    routed = work.expert_bytes / (work.weight_bytes + _ONE)
    every = sum(work.values) + _ONE
    plain = work.values[_PLAIN] / every
    scaling = sum(count * each for count, each in zip(work.values, rate.scaling_flop, strict=True)) / every
    flop = plain * rate.plain_flop + (1 - plain) * rate.matrix_flop + scaling
    cache, scores = work.cache_bytes / rate.caching, work.attention_flops * rate.attention_flop
    return Seconds(
        reading=work.weight_bytes * (1 + (rate.expert_reading - 1) * routed) / rate.streaming,
        unpacking=sum(count * each for count, each in zip(work.values, rate.unpacking, strict=True)),
        computing=work.matrix_flops * flop * (1 + (rate.expert_computing - 1) * routed * (1 - 1 / work.tokens)),
        attention=(cache**2 + scores**2) ** 0.5,
        launching=work.kernels * rate.kernel,
    )
