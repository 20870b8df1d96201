"""How a processor multiplies: many tokens at once where a kernel exists for it, else row by row, unpacking each time.

Sources: ggml/src/ggml-cpu of llama.cpp 0.5.0 (0c1e570): `llamafile/sgemm.cpp` (F16, BF16, F32, Q8_0, Q4_0, Q5_0, from
two tokens on), `tiled/tiled.cpp` (K and IQ types, from eight tokens on, of routed experts for each apart), `repack.cpp`
(rearranged types: four tokens at once in dense layers; `forward_mul_mat_id` multiplies experts row by row), `ops.cpp`
(fused attention in tiles from 64 tokens on).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizeup.estimate.speed.work import PACKINGS, Work

if TYPE_CHECKING:
    from sizeup.estimate.speed.passes import Rates

#: Tokens of a sequence from which attention is computed in tiles.
ATTENTION_TILE = 64
_SGEMM, _REPACKED, _TILED = 2, 4, 8
_TILED_TYPES = frozenset({"q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4", "codebook"})
_NEVER = float("inf")


def _least_rows(packing: str) -> float:
    if packing in _TILED_TYPES:
        return _TILED
    return _REPACKED if packing.startswith("r_") else _SGEMM


#: Tokens from which each packing is multiplied many at once: in dense layers, and by each expert.
DENSE_ROWS = tuple(_least_rows(name) for name in PACKINGS)
EXPERT_ROWS = tuple(_TILED if name in _TILED_TYPES else _NEVER for name in PACKINGS)


def products(work: Work, rate: Rates) -> tuple[float, float]:
    """Seconds of products row by row (FLOPs / 2 · unpacking), and of those with many tokens at once (FLOPs · flop)."""
    single = many = 0.0
    for place, (flops, experts) in enumerate(zip(work.flops, work.expert_flops, strict=True)):
        if flops:
            if work.tokens < DENSE_ROWS[place]:
                single += flops / 2 * rate.unpacking[place]
            else:
                many += flops * rate.flop[place]
        if experts:
            if work.expert_rows < EXPERT_ROWS[place]:
                single += experts / 2 * rate.unpacking[place]
            else:
                many += experts * rate.flop[place]
    return single, many
