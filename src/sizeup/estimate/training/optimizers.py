"""Optimizers: the state they keep for each weight, and the temporaries of a step.

    adamw_fused      two tensors of the weight's type and a step counter on the device; no temporaries
    adamw_foreach    the same without the counter; a copy of everything that trains (√v of all weights at once)
    adamw_loop       the same; two copies of a weight, and one of the weight before
    adam8bit         a byte a weight, twice, and an fp32 scale for each 256; small weights and embeddings in fp32
    lion8bit         the same once
    paged_adamw      two fp32 tensors in managed memory, which pages to the host; below 100,000 elements on the device
    paged_adam8bit   adam8bit's bytes in managed memory; its scales stay on the device
    adafactor        a row and a column for each matrix in fp32, and a number; copies of the largest weight in fp32
    adafactor_torch  the same in the weight's type; two whole variances in it
    lion             one tensor; two copies of the largest weight
    muon             one tensor for a layer's matrix, and Newton-Schulz's products; fused AdamW for everything else
    galore           AdamW in 128 dimensions for linear modules, and the projection, in the weight's type; in fp32 the
                     whole matrix that the projection is a part of stays
    sgd, sgd_momentum   none, one tensor; no temporaries

Sources: torch 2.13 `optim/adamw.py`, `optim/sgd.py`, `optim/_muon.py`, `optim/_adafactor.py`; bitsandbytes 0.50
`optim/optimizer.py` (blocks of 256, weights of fewer than 4,096 elements in 32 bits) with the Trainer's embeddings in
32 bits; transformers 5.23 `optimization.py` (Adafactor); lion-pytorch 0.2.5; galore-torch 1.0, whose decomposition of a
gradient, once in 200 steps, isn't counted. All were run under the tracker (tests/training/test_methods_grid.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from sizeup.estimate.training.build import Weight
from sizeup.estimate.training.tape import rounded

BLOCK, SMALL = 256, 4096
PAGED_FROM = 100_000
GALORE_RANK = 128
#: A table of the 256 values that a byte of state stands for, in fp32.
TABLE = 1024

Counted = Iterable[tuple[Weight, int]]


class Optimizer(msgspec.Struct, frozen=True):
    """How an optimizer uses memory.

    state: allocations for one weight on the device. step: temporaries of a step over all weights. managed: allocations
    for one weight in memory that moves between host and device. tables: bytes that it has once.
    """

    name: str
    state: Callable[[Weight], tuple[int, ...]]
    step: Callable[[list[tuple[Weight, int]]], int]
    managed: Callable[[Weight], tuple[int, ...]] | None = None
    tables: int = 0

    @property
    def paged(self) -> bool:
        """Whether states lie where the host has them, too."""
        return self.managed is not None


def _none(_weight: Weight) -> tuple[int, ...]:
    return ()


def _one(weight: Weight) -> tuple[int, ...]:
    return (weight.n * weight.item,)


def _two(weight: Weight) -> tuple[int, ...]:
    return (weight.n * weight.item,) * 2


def _two_and_step(weight: Weight) -> tuple[int, ...]:
    return (weight.n * weight.item, weight.n * weight.item, 4)


def _wide(weight: Weight) -> bool:
    """Whether bitsandbytes keeps 32 bits for a weight."""
    return weight.n < SMALL or weight.kind == "embedding"


def _values(weight: Weight) -> int:
    """Bytes of one 8-bit state without its scales."""
    return 4 * weight.n if _wide(weight) else weight.n


def _scales(weight: Weight) -> tuple[int, ...]:
    return () if _wide(weight) else (4 * -(-weight.n // BLOCK),)


def _bytes(times: int) -> Callable[[Weight], tuple[int, ...]]:
    return lambda weight: (_values(weight), *_scales(weight)) * times


def _pages(weight: Weight) -> bool:
    return weight.n >= PAGED_FROM


def _rank_sums(item: int) -> Callable[[Weight], tuple[int, ...]]:
    """Rows and columns of a matrix (of each matrix of a stack), else the whole; item: bytes, 0: the weight's."""

    def state(weight: Weight) -> tuple[int, ...]:
        rows, columns = shape_of(weight)
        size = item or weight.item
        return (size * rows, size * columns) if columns else (size * weight.n,)

    return state


def shape_of(weight: Weight) -> tuple[int, int]:
    """Sums over the last and the last but one dimension of a weight; (n, 0) for a vector."""
    if weight.kind == "vector" or weight.rows <= 0 or weight.rows * weight.copies == weight.n:
        return weight.n, 0
    return weight.rows * weight.copies, weight.n // weight.rows // weight.copies * weight.copies


def _nothing(_weights: list[tuple[Weight, int]]) -> int:
    return 0


def _everything(weights: list[tuple[Weight, int]]) -> int:
    """A list of copies of all weights, as foreach makes for √v."""
    return sum(count * rounded(weight.n * weight.item) for weight, count in weights)


def _two_copies(weights: list[tuple[Weight, int]]) -> int:
    """Two tensors of the largest weight."""
    return max((2 * rounded(weight.n * weight.item) for weight, _ in weights), default=0)


def _denominators(weights: list[tuple[Weight, int]]) -> int:
    """√v and the denominator made of it, beside the denominator of the weight before, which has a name until then."""
    highest = before = 0
    for weight in in_turn(weights):
        whole = rounded(weight.n * weight.item)
        highest, before = max(highest, 2 * whole + before), whole
    return highest


_TURNS = {"embedding": 0, "vector": 2, "head": 3}


def in_turn(weights: list[tuple[Weight, int]]) -> list[Weight]:
    """The weights about as a model names them: tables, a layer's matrices, its norms, the head."""
    return sorted([weight for weight, _ in weights], key=lambda weight: _TURNS.get(weight.kind, 1))


def _adafactor_step(weights: list[tuple[Weight, int]]) -> int:
    """One weight after the other; a 16-bit weight and its gradient are copied to fp32.

    The squared gradient exists beside the same plus epsilon, then the update beside what it is computed from: two
    tensors of the weight's elements, and at first also the update of the weight before.
    """
    highest = before = 0
    for weight in in_turn(weights):
        whole = rounded(4 * weight.n)
        copies = 2 * whole if weight.item < 4 else 0
        highest = max(highest, copies + 2 * whole + before)
        before = whole
    return highest


def _adafactor_torch_step(weights: list[tuple[Weight, int]]) -> int:
    """The variance that rows and columns give, whole, and the update of the weight before, which has a name still."""
    highest = before = 0
    for weight in in_turn(weights):
        whole = rounded(weight.n * weight.item)
        sums = sum(map(rounded, _rank_sums(0)(weight)))
        highest = max(highest, before + whole + sums + rounded(weight.item * weight.copies))
        before = whole
    return highest


def _muon_step(weights: list[tuple[Weight, int]]) -> int:
    """Newton and Schulz's iteration of one matrix, in bf16: X ← a·X + (b·G + c·G²)·X with G = X·Xᵀ.

    The update that it began with (in the weight's type), X before and after, G and what it became.
    """
    highest = 0
    for weight, _ in weights:
        if _orthogonal(weight):
            rows, columns = shape_of(weight)
            squares = 2 * rounded(2 * min(rows, columns) ** 2)
            highest = max(highest, rounded(weight.n * weight.item) + 2 * rounded(2 * weight.n) + squares)
    return highest


def _orthogonal(weight: Weight) -> bool:
    """Whether Muon has the weight: matrices of layers, and no stacks of them."""
    return weight.kind in {"matrix", "transposed", "adapter"} and weight.copies == 1 and shape_of(weight)[1] > 0


def _muon(weight: Weight) -> tuple[int, ...]:
    return _one(weight) if _orthogonal(weight) else _two_and_step(weight)


def _projected(weight: Weight) -> int:
    """Elements of a weight's gradient after projection; 0 where it isn't that of an `nn.Linear`."""
    if weight.copies > 1 or weight.kind not in {"matrix", "head", "adapter"}:
        return 0
    rows, columns = shape_of(weight)
    return min(GALORE_RANK, rows, columns) * max(rows, columns) if columns else 0


def _galore(weight: Weight) -> tuple[int, ...]:
    low, item = _projected(weight), weight.item
    if not low:
        return _two(weight)
    short = min(shape_of(weight))
    return (low * item, low * item, short * (short if item == 4 else min(GALORE_RANK, short)) * item)


def _galore_step(weights: list[tuple[Weight, int]]) -> int:
    """Root and update of a weight beside those of the one before, which have names until their turn comes.

    Projected: gradient, root and update in few dimensions, and the update in all of them, twice while it is scaled.
    """
    highest = old_root = old_update = 0
    for weight in sorted(in_turn(weights), key=lambda weight: _projected(weight) > 0):
        low, whole = rounded(_projected(weight) * weight.item), rounded(weight.n * weight.item)
        root = low or whole
        rooted = low + old_root + root + old_update
        updated = low + root + root + old_update
        highest = max(highest, rooted, updated, 3 * low + 2 * whole if low else 0)
        old_root, old_update = root, whole
    return highest


OPTIMIZERS = {
    optimizer.name: optimizer
    for optimizer in (
        Optimizer("adamw_fused", _two_and_step, _nothing),
        Optimizer("adamw_foreach", _two, _everything),
        Optimizer("adamw_loop", _two, _denominators),
        Optimizer("adam8bit", _bytes(2), _nothing, tables=2 * TABLE),
        Optimizer(
            "paged_adamw",
            lambda weight: () if _pages(weight) else (4 * weight.n,) * 2,
            _nothing,
            managed=lambda weight: (4 * weight.n,) * 2 if _pages(weight) else (),
        ),
        Optimizer(
            "paged_adam8bit",
            lambda weight: _scales(weight) * 2 if _pages(weight) else _bytes(2)(weight),
            _nothing,
            managed=lambda weight: (_values(weight),) * 2 if _pages(weight) else (),
            tables=2 * TABLE,
        ),
        Optimizer("adafactor", lambda weight: (*_rank_sums(4)(weight), 4), _adafactor_step),
        Optimizer("adafactor_torch", _rank_sums(0), _adafactor_torch_step),
        Optimizer("lion", _one, _two_copies),
        Optimizer("lion8bit", _bytes(1), _nothing, tables=TABLE),
        Optimizer("sgd", _none, _nothing),
        Optimizer("sgd_momentum", _one, _nothing),
        Optimizer("muon", _muon, _muon_step),
        Optimizer("galore", _galore, _galore_step),
    )
}
