"""What a CPU can compute, from its cores, clock and instruction sets."""

from __future__ import annotations

from collections.abc import Iterable

# fp32 FLOP per core and cycle: lanes × 2 (multiply and add) × units. `avx512` counts two 512-bit units as on servers
# and Zen 5; `avx512_double_pumped` is Zen 4.
_FP32_PER_CYCLE = (
    ("avx512_double_pumped", 32), ("avx512", 64), ("avx2", 32), ("asimd_x4", 32), ("neon", 16), ("avx", 16),
)  # fmt: skip
# One core keeps some 25 lines of 64 bytes in flight for about 65 ns, so that two cores of a large server, as virtual
# machines have them, can't use its twelve channels.
CORE_BANDWIDTH = 25_000_000_000
_SSE_PER_CYCLE = 8
_AMX_BF16_PER_CYCLE = 2048
_AMX_INT8_PER_CYCLE = 4096


def cpu_compute(cores: int, clock_hz: int, features: Iterable[str]) -> dict[str, int]:
    """Peak FLOP/s by number type: cores × clock × FLOP per cycle of the widest instruction set.

    An upper bound: clocks fall under wide vectors, and memory usually bounds first. int8 and bf16 are given only where
    there are instructions for them (VNNI or dot products: 4 × fp32; bf16 dot products: 2 ×; AMX tiles).
    """
    known = frozenset(features)
    per_cycle = next((flop for name, flop in _FP32_PER_CYCLE if name in known), _SSE_PER_CYCLE)
    fp32 = cores * clock_hz * per_cycle
    compute = {"fp32": fp32}
    if "amx" in known:
        compute["bf16"] = cores * clock_hz * _AMX_BF16_PER_CYCLE
        compute["int8"] = cores * clock_hz * _AMX_INT8_PER_CYCLE
        return compute
    if known & {"avx512_bf16", "bf16"}:
        compute["bf16"] = 2 * fp32
    if known & {"avx512_vnni", "avx_vnni", "dotprod", "i8mm"}:
        compute["int8"] = 4 * fp32
    return compute
