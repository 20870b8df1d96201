"""Seconds of one pass on one device: what is read, what is computed, what is started. The heart of every prediction.

    reading     weight bytes / (bandwidth · streaming)
    unpacking   Σ values · unpack / integer rate
    computing   Σ matrix FLOPs · ( 1 / (matrix rate · share) + scaling · rescale / vector rate )
    passing     activations · 4 B / (bandwidth · passing): what goes into matrices and comes out of them
    attention   √( (cache bytes / (bandwidth · cache streaming))² + (attention FLOPs / (matrix rate · share))² )
                + far reads · scatter / vector rate, on processors
    launching   kernels · kernel seconds
    pass        √(reading² + unpacking² + computing²) + passing + attention + launching

Reading and unpacking overlap but hinder each other, hence the root of squares instead of a maximum. On a processor some
products go row by row and unpack every weight anew for each token (`sizeup.estimate.speed.processor`). The formulas
take numbers, or arrays of them (the fit does). Known error: see `sizeup.estimate.speed.intervals`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from sizeup.estimate.speed import processor
from sizeup.estimate.speed.ceilings import Ceilings
from sizeup.estimate.speed.parameters import parameters
from sizeup.estimate.speed.work import PACKINGS, Work, family

#: Packings whose products need no scaling of blocks.
PLAIN = frozenset({"plain", "bf16", "f32"})
_ACTIVATION_BYTES = 4
#: Keeps shares of nothing defined.
_ONE = 1.0


class Rates(msgspec.Struct, frozen=True):
    """What a device reaches with a set of kernels: ceilings times fitted shares.

    streaming, caching: bytes/s. unpacking: seconds a value, flop: seconds a FLOP, by packing. attention_flop: seconds a
    FLOP of a prompt, attention_one: of a single token. activation: seconds a value. expert_reading, expert_computing:
    factors for routed experts. kernel: seconds. scatter: seconds of a far read. processor: whether products may go row
    by row.
    """

    streaming: Any
    caching: Any
    unpacking: Sequence[Any]
    flop: Sequence[Any]
    attention_flop: Any
    attention_one: Any
    activation: Any
    kernel: Any
    expert_reading: Any
    expert_computing: Any
    scatter: float = 0.0
    processor: bool = False


@lru_cache(maxsize=256)
def rates(ceiling: Ceilings) -> Rates:
    """The rates of a device. A backend that nobody has measured takes Vulkan's shares, the most portable."""
    return uncached_rates(ceiling)


def uncached_rates(ceiling: Ceilings) -> Rates:
    """The same, for corrections that are only tried."""
    fitted = parameters()
    stack = fitted.stacks.get(ceiling.stack) or fitted.stacks["vulkan"]
    streaming = fitted.generations.get(ceiling.generation, 1.0)
    prompt = fitted.prompt_generations.get(ceiling.generation, 1.0)
    seen = dict(ceiling.corrections)

    def corrected(name: str) -> float:
        return seen.get(name, 1.0)

    unpacking, flop = [], []
    for name in PACKINGS:
        like = family(name)
        values = stack.unpack.get(name) or stack.unpack.get(like) or fitted.unpack[like]
        unpacking.append(values / ceiling.integer * corrected("unpack") * corrected(f"unpack.{name}"))
        if name in PLAIN:
            one = 1 / (ceiling.plain_matrix * stack.plain_matrix * prompt)
        else:
            scaled = stack.rescale.get(name) or stack.rescale.get(like) or fitted.rescale[like]
            one = 1 / (ceiling.packed_matrix * stack.matrix) + scaled * stack.scaling / ceiling.vector
            one /= prompt
        one *= stack.product.get(name, 1.0)
        flop.append(one * corrected("flop") * corrected(f"flop.{name}"))
    scores = 1 / (ceiling.attention * stack.attention)
    return Rates(
        streaming=ceiling.bandwidth * stack.streaming * streaming / corrected("streaming"),
        caching=ceiling.bandwidth * stack.cache_streaming / corrected("caching"),
        unpacking=unpacking,
        flop=flop,
        attention_flop=scores * corrected("attention"),
        attention_one=scores * stack.attention_one * corrected("attention_one"),
        activation=_ACTIVATION_BYTES / (ceiling.bandwidth * stack.passing) * corrected("activation"),
        kernel=stack.kernel_seconds * corrected("kernel"),
        expert_reading=stack.expert_reading or fitted.expert_reading,
        expert_computing=stack.expert_computing or fitted.expert_computing,
        scatter=stack.scatter / ceiling.vector * corrected("scatter"),
        processor=ceiling.stack == "cpu",
    )


class Seconds(msgspec.Struct, frozen=True):
    """The parts of a pass; `total` combines them as they overlap."""

    reading: Any
    unpacking: Any
    computing: Any
    passing: Any
    attention: Any
    launching: Any

    @property
    def matrices(self) -> Any:
        """√(reading² + unpacking² + computing²)."""
        return (self.reading**2 + self.unpacking**2 + self.computing**2) ** 0.5

    @property
    def total(self) -> Any:
        """All of it."""
        return self.matrices + self.passing + self.attention + self.launching

    @property
    def bound(self) -> str:
        """What most of the time goes to: `bandwidth`, `unpacking`, `compute`, `attention` or `launch`."""
        parts = {
            "bandwidth": self.reading, "unpacking": self.unpacking, "compute": self.computing + self.passing,
            "attention": self.attention, "launch": self.launching,
        }  # fmt: skip
        return max(parts, key=parts.__getitem__)


def pass_seconds(work: Work, rate: Rates) -> Seconds:
    """The parts of one pass on one device."""
    routed = work.expert_bytes / (work.weight_bytes + _ONE)
    unpacking, computing = processor.products(work, rate) if rate.processor else _products(work, rate)
    one = rate.attention_one if rate.processor and work.queries < processor.ATTENTION_TILE else rate.attention_flop
    cache, scores = work.cache_bytes / rate.caching, work.attention_flops * one
    far = work.scattered * rate.scatter if rate.processor and work.queries < processor.ATTENTION_TILE else 0.0
    return Seconds(
        reading=work.weight_bytes * (1 + (rate.expert_reading - 1) * routed) / rate.streaming,
        unpacking=unpacking,
        computing=computing,
        passing=work.activations * rate.activation,
        attention=(cache**2 + scores**2) ** 0.5 + far,
        launching=work.kernels * rate.kernel,
    )


def _products(work: Work, rate: Rates) -> tuple[Any, Any]:
    """Seconds of unpacking each weight once, and of the products; those of routed experts are small and gathered."""
    unpacking = computing = routed = 0.0
    for values, flops, experts, unpack, flop in zip(
        work.values, work.flops, work.expert_flops, rate.unpacking, rate.flop, strict=True
    ):
        unpacking += values * unpack
        computing += flops * flop
        routed += experts * flop
    slower = 1 + (rate.expert_computing - 1) * (1 - 1 / work.tokens)
    return unpacking, computing + routed * slower
