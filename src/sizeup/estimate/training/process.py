"""From the allocator's peak to what a process takes: context, workspaces, and what the allocator reserves beyond.

    process   = reserved + context (+ NCCL, with several devices)
    reserved  = peak + workspaces + k · √peak       (peak in GiB)

context     0.3 to 0.6 GiB: CUDA context and kernels of a torch process (driver 535 to 580, by literature)
workspaces  cuBLAS: 8.125 MiB for each thread that multiplies (Ampere, measured on A100 and RTX 4090): forward, backward
k           blocks that the caching allocator holds and hasn't handed out: 0.35 in the median of 213 replayed steps of
            fourteen models, 90 % of them between 0.08 and 1.19. The share falls as steps grow: 21 % of a peak of
            3 GiB, 6 % of one above 16 GiB. With each model held back, 90 % of its steps lie inside.

NCCL        0.2 to 1 GiB of buffers where devices talk: vLLM holds 0.14 GiB beside torch on one H100, 0.55 GiB on each
            of two (llm-d's planner); more links and communicators take more

A device that is nearly full gets its unused blocks back before an allocation fails (torch frees what it caches and
tries again), so a step fits as long as `low` does, only slower.
"""

from __future__ import annotations

import math

import msgspec

from sizeup.estimate.training.footprint import ProcessBytes
from sizeup.quantity.units import GIB, MIB

CONTEXT_LOW, CONTEXT, CONTEXT_HIGH = int(0.3 * GIB), int(0.45 * GIB), int(0.6 * GIB)
NCCL_LOW, NCCL, NCCL_HIGH = int(0.2 * GIB), int(0.4 * GIB), GIB
WORKSPACE = int(8.125 * MIB)
#: Reserve over the peak: 5th percentile, median and 95th percentile, in √GiB.
RESERVE_LOW, RESERVE, RESERVE_HIGH = 0.08, 0.35, 1.19


class Range(msgspec.Struct, frozen=True):
    """A 90 % interval and its middle, in bytes."""

    low: int
    expected: int
    high: int

    def holds(self, size: float) -> bool:
        """Whether a size lies inside."""
        return self.low <= size <= self.high


def reserved_bytes(peak: int) -> Range:
    """What the caching allocator reserves (`torch.cuda.max_memory_reserved`) for a step that peaks at `peak` bytes."""
    base = peak + 2 * WORKSPACE
    unit = GIB * math.sqrt(peak / GIB)
    low, expected, high = (base + int(share * unit) for share in (RESERVE_LOW, RESERVE, RESERVE_HIGH))
    return Range(low, expected, high)


def process_range(peak: int, reserved: int | None = None, devices: int = 1) -> Range:
    """What a driver shows for the process. reserved: where it is known, from a replay. devices: of the whole run."""
    held = reserved_bytes(peak) if reserved is None else Range(reserved, reserved, reserved)
    links = (NCCL_LOW, NCCL, NCCL_HIGH) if devices > 1 else (0, 0, 0)
    return Range(
        held.low + CONTEXT_LOW + links[0], held.expected + CONTEXT + links[1], held.high + CONTEXT_HIGH + links[2]
    )


def process_bytes(peak: int, reserved: int | None = None, devices: int = 1) -> ProcessBytes:
    """The process's range with its reasons."""
    found = process_range(peak, reserved, devices)
    if reserved is None:
        share = (reserved_bytes(peak).expected - peak) / peak
        over = f"a reserve of about {share:.0%} over the peak"
    else:
        over = f"a replayed reserve of {reserved / peak - 1:.0%} over the peak"
    links = ", 0.2 to 1 GiB of NCCL buffers" if devices > 1 else ""
    because = f"context of 0.3 to 0.6 GiB, cuBLAS workspaces, {over}{links}; 90 % of steps"
    return ProcessBytes(low=found.low, expected=found.expected, high=found.high, because=because)
