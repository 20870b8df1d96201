"""Operations on tensors that are more than rows: sums, slices, writing in place, triangular systems (torch 2.13).

Source: `tools/autograd/derivatives.yaml` and `torch/csrc/autograd/FunctionsManual.cpp` for what is kept and made.
Sizes: n elements of `item` bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import cast, copy, same_size
from sizeup.estimate.training.tape import Tape, Value


def turned(tape: Tape, x: Value, *, flips: bool = True) -> Value:
    """`transpose` of two dimensions: a view; what is given to it in order comes back out of order."""
    output = Value(x.n, x.item, x.storage, strided=x.strided != flips)

    def backward(g: Value) -> Sequence[Value | None]:
        return (Value(g.n, g.item, g.storage, strided=g.strided != flips),)

    tape.record((x,), (output,), backward)
    return output


def summed(tape: Tape, x: Value, rows: int) -> Value:
    """`sum` to `rows` elements: keeps nothing; its gradient is seen many times."""
    n = x.n

    def backward(g: Value) -> Sequence[Value | None]:
        return (Value(n, g.item, g.storage, view=True, strided=True),)

    return tape.result(rows, x.item, (x,), backward)


def subtract(tape: Tape, a: Value, b: Value, n: int = 0) -> Value:
    """A - b, broadcast to n elements: keeps nothing; the second gradient is a negative copy."""
    wants, n, item = (a.needs, b.needs), n or max(a.n, b.n), max(a.item, b.item)

    def backward(g: Value) -> Sequence[Value | None]:
        return g if wants[0] else None, tape.value(g.n, g.item) if wants[1] else None

    return tape.result(n, item, (a, b), backward)


def inverse_root(tape: Tape, x: Value) -> Value:
    """`rsqrt`: keeps its result; its gradient is -½ · g · y³, through the power and its multiple."""
    output = tape.value(x.n, x.item)
    tape.saved()
    n, item = x.n, x.item

    def backward(_g: Value, _kept: object = output.storage) -> Sequence[Value | None]:
        power, scaled = tape.value(n, item), tape.value(n, item)
        result = tape.value(n, item)
        del power, scaled
        return (result,)

    tape.record((x,), (output,), backward)
    return output


def masked_fill(tape: Tape, x: Value, mask: Value) -> Value:
    """Numbers put where the mask says; it keeps the mask."""
    tape.saved()
    return tape.result(x.n, x.item, (x,), same_size(tape, mask.storage))


def written(tape: Tape, whole: Value, part: Value) -> Value:
    """`whole[i] = part`: the tensor after it, in the same memory (`CopySlices`).

    The gradient of the whole is copied; the part's is a copy of its slice, which is then filled with zeros.
    """
    output = Value(whole.n, whole.item, whole.storage)
    n, small, item, overwritten = whole.n, part.n, whole.item, whole.needs

    def backward(_g: Value) -> Sequence[Value | None]:
        copied = tape.value(n, item)
        of_part = tape.value(small, item)
        if overwritten:
            tape.transient(small * item)
        return (copied if overwritten else None), of_part

    tape.record((whole, part), (output,), backward)
    return output


def solve_triangular(tape: Tape, system: Value, right: Value) -> Value:
    """`linalg.solve_triangular(A, B)` with ones on the diagonal: keeps A and the result X.

    The gradient of B is a system solved; that of A is -Gᵦ · Xᵀ below the diagonal: product, negative, triangle.
    """
    output = tape.value(right.n, right.item)
    tape.saved()
    wants, keep = (system.needs, right.needs), (system.storage, output.storage if system.needs else None)
    n, item, size = right.n, right.item, system.n

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        of_right = tape.value(n, item)
        of_system = tape.value(size, item) if wants[0] else None
        for _ in range(2 if wants[0] else 0):
            of_system = tape.value(size, item)
        return of_system, of_right if wants[1] else None

    tape.record((system, right), (output,), backward)
    return output


def matmul(tape: Tape, a: Value, b: Value, n: int, *, copies: tuple[bool, bool] = (False, False)) -> Value:
    """A · B of batches of matrices: keeps both (as autocast casts them); the second one's gradient comes first.

    copies: which of them must be copied to be seen as a batch of matrices.
    """
    if tape.autocast:
        a, b = cast(tape, a, tape.autocast), cast(tape, b, tape.autocast)
    a, b = copy(tape, a) if copies[0] else a, copy(tape, b) if copies[1] else b
    keep = (a.storage if b.needs else None, b.storage if a.needs else None)
    sizes, wants, item = (a.n, b.n), (a.needs, b.needs), max(a.item, b.item)
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        of_second = _product(tape, sizes[1], item) if wants[1] else None
        of_first = _product(tape, sizes[0], item) if wants[0] else None
        return of_first, of_second

    return tape.product(n, item, (a, b), backward)


def _product(tape: Tape, n: int, item: int) -> Value:
    """A gradient that reaches whoever waits for it as a view."""
    value = tape.value(n, item)
    value.view = True
    return value


def square_root(tape: Tape, x: Value) -> Value:
    """`sqrt`: keeps its result; its gradient is divided by twice that."""
    output = tape.value(x.n, x.item)
    tape.saved()
    n, item = x.n, x.item

    def backward(_g: Value, _kept: object = output.storage) -> Sequence[Value | None]:
        twice = tape.value(n, item)
        result = tape.value(n, item)
        del twice
        return (result,)

    tape.record((x,), (output,), backward)
    return output


def divide(tape: Tape, a: Value, b: Value) -> Value:
    """A / b: keeps both; the gradient of b is -g · (a / b) / b, summed."""
    keep = (a.storage if b.needs else None, b.storage)
    wants, n, item = (a.needs, b.needs), max(a.n, b.n), max(a.item, b.item)
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        of_a = tape.value(n, item) if wants[0] else None
        of_b = _of_divisor(tape, n, item) if wants[1] else None
        return of_a, of_b

    return tape.result(n, item, (a, b), backward)


def _of_divisor(tape: Tape, n: int, item: int) -> Value:
    negative = tape.value(n, item)
    ratio = tape.value(n, item)
    ratio = tape.value(n, item)
    result = tape.value(n, item)
    del negative, ratio
    return result


def chosen(tape: Tape, condition: Value, a: Value, b: Value) -> Value:
    """`where(condition, a, b)`: keeps the condition; each gradient is the other one's zeros."""
    n, item, wants = max(a.n, b.n), max(a.item, b.item), (a.needs, b.needs)
    tape.saved()

    def backward(g: Value, _keep: object = condition.storage) -> Sequence[Value | None]:
        return [tape.value(n, g.item) if want else None for want in wants]

    return tape.result(n, item, (a, b), backward)
