"""A processor with fewer threads at work than it has cores."""

from __future__ import annotations

import msgspec

from sizeup.estimate.speed.ceilings import Ceilings

#: Bytes/s that one core reads at most: lines in flight · line / latency, about 50 · 64 B / 90 ns. Single-core STREAM
#: runs lie between 12 (Skylake-SP) and 40 GB/s (Zen 4), Apple's cores reach 100; decoding on one core of a Zen 4
#: server was as fast as 37 GB/s would allow.
CORE_BANDWIDTH = 35e9


def with_threads(ceilings: Ceilings, threads: int, cores: int) -> Ceilings:
    """What is left of a processor's ceilings when only some cores work.

    Computing: ceiling · threads / cores. Reading: min(bandwidth, threads · CORE_BANDWIDTH). As many threads as cores,
    or more, change nothing. Known error: a factor of two in reading with one or two threads, as cores differ.
    """
    if threads >= cores:
        return ceilings
    share = threads / cores
    return msgspec.structs.replace(
        ceilings,
        bandwidth=min(ceilings.bandwidth, threads * CORE_BANDWIDTH),
        vector=ceilings.vector * share,
        integer=ceilings.integer * share,
        packed_matrix=ceilings.packed_matrix * share,
        plain_matrix=ceilings.plain_matrix * share,
        attention=ceilings.attention * share,
    )
