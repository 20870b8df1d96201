"""From the allocator's peak to what a process takes: context, workspaces, and what the allocator reserves beyond.

context     0.3 to 0.6 GiB: CUDA context and kernels of a torch process (driver 535 to 580, by literature)
workspace   cuBLAS: 8.125 MiB a thread that multiplies (Ampere, measured on A100 and RTX 4090), forward and backward
reserve     blocks the caching allocator holds but hasn't handed out: replaying 213 steps, median 8 %, 95 % of them
below 26 % of the peak
"""

from __future__ import annotations

from sizeup.estimate.training.footprint import ProcessBytes
from sizeup.quantity.units import GIB, MIB

CONTEXT_LOW, CONTEXT, CONTEXT_HIGH = int(0.3 * GIB), int(0.45 * GIB), int(0.6 * GIB)
WORKSPACE = int(8.125 * MIB)
RESERVE, RESERVE_HIGH = 0.08, 0.26


def process_bytes(peak: int) -> ProcessBytes:
    """The range of what a driver shows for a process whose allocator peaks at `peak` bytes."""
    base = peak + 2 * WORKSPACE
    return ProcessBytes(
        low=base + CONTEXT_LOW,
        expected=int(base * (1 + RESERVE)) + CONTEXT,
        high=int(base * (1 + RESERVE_HIGH)) + CONTEXT_HIGH,
        because="context 0.3 to 0.6 GiB, two cuBLAS workspaces, reserve of 0 to 26 % (median 8 %) over the peak",
    )
