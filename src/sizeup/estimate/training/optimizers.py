"""Optimizers: the state they keep for each weight, and the temporaries of a step.

    adamw_fused     two tensors of the weight's type and a step counter on the device; no temporaries
    adamw_foreach   the same without the counter; a copy of everything that trains (√v of all weights at once)
    adamw_loop      the same; two copies of the largest weight
    adam8bit        a byte a weight, twice, and an fp32 scale for each 256; small weights and embeddings in fp32
    adafactor       a row and a column for each matrix in fp32; copies of the largest weight in fp32
    lion, muon      one tensor; sgd_momentum one; sgd none

Sources: torch 2.13 `optim/adamw.py`, `optim/sgd.py`; bitsandbytes 0.49 `optim/optimizer.py` (blocks of 256, weights of
fewer than 4,096 elements and embeddings in 32 bits); transformers 5.23 `optimization.py` (Adafactor); Chen et al. 2023
(Lion); Jordan et al. 2024 (Muon); Zhao et al. 2024 (GaLore).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from sizeup.estimate.training.build import Weight
from sizeup.estimate.training.tape import rounded

BLOCK, SMALL = 256, 4096
GALORE_RANK = 128
NEWTON_SCHULZ_COPIES = 4

Counted = Iterable[tuple[Weight, int]]


class Optimizer(msgspec.Struct, frozen=True):
    """How an optimizer uses memory.

    state: allocations for one weight. step: temporaries of a step over all weights. paged: states lie on the host and
    move as needed.
    """

    name: str
    state: Callable[[Weight], tuple[int, ...]]
    step: Callable[[list[tuple[Weight, int]]], int]
    paged: bool = False


def _none(_weight: Weight) -> tuple[int, ...]:
    return ()


def _one(weight: Weight) -> tuple[int, ...]:
    return (weight.n * weight.item,)


def _two(weight: Weight) -> tuple[int, ...]:
    return (weight.n * weight.item,) * 2


def _two_and_step(weight: Weight) -> tuple[int, ...]:
    return (weight.n * weight.item, weight.n * weight.item, 4)


def _bytes(weight: Weight, times: int) -> tuple[int, ...]:
    if weight.n < SMALL or weight.kind == "embedding":
        return (4 * weight.n,) * times
    return (weight.n, 4 * -(-weight.n // BLOCK)) * times


def _factored(weight: Weight) -> tuple[int, ...]:
    """Rows and columns of a matrix (of each matrix of a stack), else the whole, in fp32."""
    rows, columns = shape_of(weight)
    return (4 * rows, 4 * columns) if columns else (4 * weight.n,)


def shape_of(weight: Weight) -> tuple[int, int]:
    """Sums over the last and the last but one dimension of a weight; (n, 0) for a vector."""
    if weight.kind == "vector" or weight.rows <= 0:
        return weight.n, 0
    return weight.rows * weight.copies, weight.n // weight.rows // weight.copies * weight.copies


def _nothing(_weights: list[tuple[Weight, int]]) -> int:
    return 0


def _everything(weights: list[tuple[Weight, int]]) -> int:
    """A list of copies of all weights, as foreach makes for √v."""
    return sum(count * rounded(weight.n * weight.item) for weight, count in weights)


def _largest(copies: int, item: int = 0) -> Callable[[list[tuple[Weight, int]]], int]:
    def step(weights: list[tuple[Weight, int]]) -> int:
        return max((copies * rounded(weight.n * (item or weight.item)) for weight, _ in weights), default=0)

    return step


def _adafactor_step(weights: list[tuple[Weight, int]]) -> int:
    """One weight after the other; a 16-bit weight and its gradient are copied to fp32.

    The squared gradient exists beside the same plus epsilon, then the update beside what it is computed from: two
    tensors of the weight's elements, and at first also the update of the weight before.
    """
    highest = before = 0
    for weight, _ in weights:
        whole = rounded(4 * weight.n)
        copies = 2 * whole if weight.item < 4 else 0
        highest = max(highest, copies + 2 * whole + before)
        before = whole
    return highest


def _galore(weight: Weight) -> tuple[int, ...]:
    rows, columns = shape_of(weight)
    if not columns or min(rows, columns) <= GALORE_RANK:
        return _two(weight)
    low = GALORE_RANK * max(rows, columns)
    return (low * weight.item, low * weight.item, GALORE_RANK * min(rows, columns) * weight.item)


def _muon(weight: Weight) -> tuple[int, ...]:
    return _two(weight) if weight.kind in {"vector", "embedding", "head"} else _one(weight)


OPTIMIZERS = {
    optimizer.name: optimizer
    for optimizer in (
        Optimizer("adamw_fused", _two_and_step, _nothing),
        Optimizer("adamw_foreach", _two, _everything),
        Optimizer("adamw_loop", _two, _largest(2)),
        Optimizer("adam8bit", lambda weight: _bytes(weight, 2), _nothing),
        Optimizer("paged_adamw", _two, _nothing, paged=True),
        Optimizer("paged_adam8bit", lambda weight: _bytes(weight, 2), _nothing, paged=True),
        Optimizer("adafactor", _factored, _adafactor_step),
        Optimizer("lion", _one, _largest(2)),
        Optimizer("lion8bit", lambda weight: _bytes(weight, 1), _nothing),
        Optimizer("sgd", _none, _nothing),
        Optimizer("sgd_momentum", _one, _nothing),
        Optimizer("muon", _muon, _largest(NEWTON_SCHULZ_COPIES, 2)),
        Optimizer("galore", _galore, _largest(2)),
    )
}
