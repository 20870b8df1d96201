"""What a training step takes beside its own products: the optimizer, packed weights, roads to the host and to others.

Each is bytes over a road, at the rate of `training.TrainingRates.links` for roads between GPUs and at full rate for the
others: lower bounds but for the first. None was fitted, for none was published apart.
"""

from __future__ import annotations

import msgspec

#: fp32 tensors of a weight's size that an update written in plain operations makes and reads again; fused ones none.
_UNFUSED = {"adamw_foreach": 1, "adamw_loop": 2, "lion": 2, "adafactor": 4, "adafactor_torch": 4, "galore": 2}
#: Muon's Newton-Schulz: five times three products of 2 · n · d FLOP (Jordan et al. 2024).
_MUON_FLOPS = 5 * 6
#: DDR of a host whose own isn't known, and PCIe 3.0 with sixteen lanes: bytes/s.
HOST_BANDWIDTH, UNKNOWN_LINK = 50e9, 12.5e9


class Roads(msgspec.Struct, frozen=True):
    """Bytes/s: of the device's memory, to the host, to the other devices, of the host's memory; FLOP/s of products."""

    memory: float
    host: float
    peers: float
    host_memory: float
    flops: float


def optimizer_seconds(name: str, trained: int, item: int, states: int, roads: Roads, *, width: int = 0) -> float:
    """Seconds of an optimizer step: the bytes that it moves, over the memory's bandwidth.

    bytes = trained · (3 · item + 8 · unfused) + 2 · states     weight and gradient read, weight written; states both
    trained: weights of this device. item: bytes of one and of its gradient. states: bytes of all states. width: the
    smaller side of the matrices, for Muon's products.
    """
    moved = trained * (3 * item + 8 * _UNFUSED.get(name, 0)) + 2 * states
    products = trained * width * _MUON_FLOPS / roads.flops if name == "muon" else 0.0
    return moved / roads.memory + products


def offloaded_optimizer_seconds(trained: int, item: int, roads: Roads) -> float:
    """Seconds when the host steps: gradients there and weights back, 28 bytes a weight through the host's memory.

    28: weight, gradient and two moments read in fp32, weight and moments written (DeepSpeed's CPU Adam).
    """
    return 2 * trained * item / roads.host + 28 * trained / roads.host_memory


def weights_seconds(stored_bytes: int, uses: float, summed_bytes: int, roads: Roads) -> float:
    """Seconds of reading all weights at each use, and of adding gradients to those of an earlier pass.

    However few tokens there are: what a small micro-batch loses.
    """
    return (uses * stored_bytes + 3 * summed_bytes) / roads.memory


def unpacking_seconds(packed: int, uses: float, roads: Roads) -> float:
    """Seconds of making 16-bit weights from 4-bit ones: half a byte read and two written, at each use, at full rate."""
    return uses * packed * 2.5 / roads.memory


def reduced_seconds(trained_bytes: int, devices: int, roads: Roads, slowed: float) -> float:
    """Seconds of an all-reduce of gradients: 2 (n - 1) / n of them over the link; slowed: the fit's factor on links."""
    return 2 * (devices - 1) / devices * trained_bytes / roads.peers * slowed


def split_seconds(stream_bytes: int, layers: int, passes: float, devices: int, roads: Roads, slowed: float) -> float:
    """Seconds of tensor parallelism's all-reduces: two a layer and pass, each of the stream (Shoeybi et al. 2019).

    passes: forward, backward, and the forward pass again where it runs again.
    """
    return 2 * layers * passes * reduced_seconds(stream_bytes, devices, roads, slowed)


def exchanged_seconds(
    stream_bytes: int, chosen: int, layers: int, passes: float, devices: int, roads: Roads, slowed: float
) -> float:
    """Seconds of expert parallelism: tokens go to their experts and come back, but for those that are here."""
    return 2 * layers * passes * stream_bytes * chosen * (devices - 1) / devices / roads.peers * slowed


def streamed_seconds(amount: int, roads: Roads) -> float:
    """Seconds of bytes that cross the host's link."""
    return amount / roads.host
