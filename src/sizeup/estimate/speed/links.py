"""What crosses the links between devices in one pass: activations between stages, sums of tensor parallel devices."""

from __future__ import annotations

from sizeup.estimate.speed.parameters import parameters
from sizeup.machines.device import Device

#: One copy or synchronisation across a bus, started by the host: driver call and completion.
TRANSFER_SECONDS = 15e-6
#: Share of a link's theoretical rate that copies of megabytes reach.
LINK_SHARE = 0.8
#: PCIe 3.0 with four lanes: taken where the link is unknown.
_UNKNOWN_LINK = 3.9e9
_ACTIVATION_BYTES = 4


def handover_seconds(hidden: int, tokens: int, device: Device, crossings: int = 1) -> float:
    """Seconds to hand activations on: crossings · (latency + hidden · tokens · 4 B / (link · share)).

    0 for a device on the host's own memory, which copies nothing over a bus but still synchronises.
    """
    if device.kind == "unified":
        return crossings * TRANSFER_SECONDS
    rate = (device.host_link.bytes_per_s if device.host_link else _UNKNOWN_LINK) * LINK_SHARE
    return crossings * (TRANSFER_SECONDS + hidden * tokens * _ACTIVATION_BYTES / rate)


def all_reduce_seconds(hidden: int, tokens: int, layers: int, devices: int, device: Device) -> float:
    """Seconds of tensor parallel's sums in a pass: 2 a layer, each 2 (n-1)/n · hidden · tokens · 2 B over the link."""
    if devices < 2:
        return 0.0
    link = device.peer_link or device.host_link
    rate = (link.bytes_per_s if link else _UNKNOWN_LINK) * LINK_SHARE
    moved = 2 * (devices - 1) / devices * hidden * tokens * 2 / rate
    return 2 * layers * (parameters().all_reduce_seconds + moved)


def weights_seconds(weight_bytes: float, device: Device) -> float:
    """Seconds to copy weights from the host to a device: bytes / (link · share); 0 where both share one memory."""
    if device.kind == "unified":
        return 0.0
    link = device.host_link.bytes_per_s if device.host_link else _UNKNOWN_LINK
    return weight_bytes / (link * LINK_SHARE)
