"""Running sums and what is masked in them: `cumsum`, `masked_fill`, `pad`, and Mamba 2's `segment_sum`.

Source: torch 2.13, `tools/autograd/FunctionsManual.cpp`; transformers 5.23, `models/mamba2/modeling_mamba2.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.architectures.reordered import seen
from sizeup.estimate.training.basic import whole_size
from sizeup.estimate.training.tape import Tape, Value


def running_sum(tape: Tape, x: Value) -> Value:
    """`cumsum`: keeps nothing; its gradient is turned round, summed, and turned round again."""

    def backward(g: Value) -> Sequence[Value | None]:
        turned = tape.value(g.n, g.item)
        summed = tape.value(g.n, g.item)
        result = tape.value(g.n, g.item)
        del turned, summed
        return (result,)

    return tape.result(x.n, x.item, (x,), backward)


def triangle(tape: Tape, n: int) -> Value:
    """Booleans of a lower triangle of n elements: `tril(ones)`."""
    ones = tape.value(n, 1)
    lower = tape.value(n, 1)
    del ones
    return lower


def masked(tape: Tape, x: Value, n: int, mask: Value) -> Value:
    """`masked_fill` of x (seen as n elements) where the mask isn't set: the opposite of the mask is kept."""
    opposite = tape.value(mask.n, 1)
    tape.saved()

    def backward(g: Value, _kept: object = opposite.storage) -> Sequence[Value | None]:
        return (tape.value(n, g.item),)

    return tape.result(n, x.item, (x,), backward)


def padded(tape: Tape, x: Value, n: int) -> Value:
    """`pad` to n elements: a copy even if nothing is added; the gradient is cut, and copied likewise."""
    return tape.result(n, x.item, (x,), whole_size(tape, x.n, x.item))


def segment_sum(tape: Tape, x: Value, length: int) -> Value:
    """Sums of every stretch that ends at a later place: rows of `length` become squares, the upper half masked."""
    square = x.n * length
    x = seen(tape, x)
    mask = triangle(tape, length * length)
    x = masked(tape, x, square, mask)
    sums = running_sum(tape, x)
    mask = triangle(tape, length * length)
    return masked(tape, sums, square, mask)
