"""How fast a token is decoded: a roofline of the bytes that are really read for it, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.quantity import Interval, Term, leaf, total


class Stage(msgspec.Struct, frozen=True):
    """What one device does for one token.

    weight_bytes: weights read (of the active experts only; one row of an embedding table, not the table).
    cache_bytes: keys, values and state read and written at the depth asked about.
    flops: multiply-adds × 2 of the matrices, and of attention at that depth.
    layers: layers it computes, each some kernels to launch.
    bandwidth, compute: the device's ceilings, bytes/s and FLOP/s.
    backend: `cuda`, `metal`, `cpu` …: decides how near the ceilings its kernels come.
    """

    device: str
    backend: str
    weight_bytes: int
    cache_bytes: int
    flops: int
    layers: int
    bandwidth: int
    compute: int | None = None


class Backend(msgspec.Struct, frozen=True):
    """How near a backend comes to a device's ceilings when one token at a time is decoded.

    streaming: share of the memory's theoretical bandwidth that its matrix-vector kernels reach on long rows.
    layer_seconds: launch and synchronisation of one layer's kernels. token_seconds: sampling and the rest, once.
    """

    streaming: float
    layer_seconds: float
    token_seconds: float


#: Seen on discrete cards, Apple chips and desktop processors with llama.cpp builds of 2025 and 2026.
BACKENDS = {
    "cuda": Backend(0.75, 22e-6, 150e-6),
    "rocm": Backend(0.62, 35e-6, 250e-6),
    "vulkan": Backend(0.60, 40e-6, 250e-6),
    "metal": Backend(0.80, 30e-6, 300e-6),
    "sycl": Backend(0.50, 60e-6, 300e-6),
    "cpu": Backend(0.72, 15e-6, 100e-6),
}
#: Half-width of the 90 % interval, as a factor: on unseen hardware two runs of one setting differ by this much.
SPREAD = 1.45


def decode_term(stages: Sequence[Stage]) -> Term:
    """Seconds for one token: Σ over stages of bytes / (bandwidth · streaming) + layers · launch, + once a token.

    Stages run one after the other (layer split). Known error: see SPREAD.
    """
    parts = [_stage_term(stage) for stage in stages if stage.layers or stage.weight_bytes]
    slowest = max((BACKENDS[stage.backend].token_seconds for stage in stages), default=0.0)
    parts.append(leaf("sampling and hand-over", slowest, "once a token", unit="seconds"))
    return total("seconds a token", parts)


def decode_speed(stages: Sequence[Stage]) -> Interval:
    """Decoded tokens/s of one sequence, with a 90 % interval."""
    value = 1 / decode_term(stages).value
    return Interval(value, value / SPREAD, value * SPREAD)


def _stage_term(stage: Stage) -> Term:
    backend = BACKENDS[stage.backend]
    rate = stage.bandwidth * backend.streaming
    compute = stage.flops / (stage.compute * 0.5) if stage.compute else 0.0
    read = (stage.weight_bytes + stage.cache_bytes) / rate
    bound = leaf(
        "reading weights and cache" if read >= compute else "computing",
        max(read, compute),
        f"({stage.weight_bytes:,} + {stage.cache_bytes:,} bytes) / ({backend.streaming:.0%} of {stage.bandwidth / 1e9:,.0f} GB/s)",
        unit="seconds",
    )
    launch = leaf("launching kernels", stage.layers * backend.layer_seconds, f"{stage.layers} layers", unit="seconds")
    return total(stage.device, [bound, launch])
