"""Tensors whose elements lie in another order, and products of them: what einsum and reshape copy (torch 2.13).

A reshape that can't be a view copies, forward or, of the gradient, backward. `aten/src/ATen/native/Linear.cpp`
(`sumproduct_pair`): an einsum of two tensors reorders both, reshapes them to a batch of matrices, and multiplies.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import cast, copy
from sizeup.estimate.training.tape import Tape, Value


def seen(tape: Tape, x: Value, *, copied_back: bool = False) -> Value:
    """Another view of x; its gradient is a view, too. copied_back: it lies in an order that must be copied first."""
    output = Value(x.n, x.item, x.storage)

    def backward(g: Value) -> Sequence[Value | None]:
        storage = tape.value(g.n, g.item).storage if copied_back else g.storage
        return (Value(g.n, g.item, storage, view=True),)

    tape.record((x,), (output,), backward)
    return output


def contracted(
    tape: Tape, a: Value, b: Value, n: int, *, copies: tuple[bool, bool], gradient_copied: bool = False
) -> Value:
    """An einsum of two tensors with n results. copies: which of them must be copied to be matrices.

    gradient_copied: whether the gradient must be, too. Autocast casts both first.
    """
    if tape.autocast:
        a, b = cast(tape, a, tape.autocast), cast(tape, b, tape.autocast)
    left = copy(tape, seen(tape, a)) if copies[0] else seen(tape, a)
    right = copy(tape, seen(tape, b)) if copies[1] else seen(tape, b)
    output = batched(tape, left, right, n)
    del left, right
    return seen(tape, output, copied_back=gradient_copied)


def batched(tape: Tape, a: Value, b: Value, n: int) -> Value:
    """`bmm`: keeps both; the second one's gradient comes first."""
    if tape.autocast:
        a, b = cast(tape, a, tape.autocast), cast(tape, b, tape.autocast)
    keep = (a.storage if b.needs else None, b.storage if a.needs else None)
    sizes, wants, item = (a.n, b.n), (a.needs, b.needs), max(a.item, b.item)
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        of_second = tape.value(sizes[1], item) if wants[1] else None
        of_first = tape.value(sizes[0], item) if wants[0] else None
        return of_first, of_second

    return tape.product(n, item, (a, b), backward)
