"""Casts, sums, products, activations and dropout: what each keeps and what its gradient takes (torch 2.13).

Source: `tools/autograd/derivatives.yaml` for what is saved, `torch/csrc/autograd/functions/utils` for the rest.
Sizes: n elements of `item` bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.tape import Backward, Storage, Tape, Value


def same_size(tape: Tape, kept: Storage | None) -> Backward:
    """A gradient that is one new tensor of the incoming one's size, for which `kept` is held."""

    def backward(g: Value, _kept: Storage | None = kept) -> Sequence[Value | None]:
        return (tape.value(g.n, g.item),)

    return backward


def whole_size(tape: Tape, n: int, item: int, kept: Storage | None = None) -> Backward:
    """A gradient that is one new tensor of n elements, for which `kept` is held."""

    def backward(_g: Value, _kept: Storage | None = kept) -> Sequence[Value | None]:
        return (tape.value(n, item),)

    return backward


def cast(tape: Tape, x: Value, item: int) -> Value:
    """`x.to(dtype)`: a copy if the type differs; the gradient is cast back."""
    if x.item == item:
        return x
    output = tape.result(x.n, item, (x,), lambda g: (g,))
    output.strided, output.headed = x.strided, x.headed
    return output


def copy(tape: Tape, x: Value) -> Value:
    """`x.contiguous()` of a strided tensor: a copy; the gradient passes."""
    return tape.result(x.n, x.item, (x,), lambda g: (g,))


def laid_by_heads(tape: Tape, x: Value) -> Value:
    """Heads copied so that they lie head by head, which their gradient does as well."""

    def backward(g: Value) -> Sequence[Value | None]:
        g.strided = g.strided or g.headed
        return (g,)

    output = tape.result(x.n, x.item, (x,), backward)
    output.headed = True
    return output


def heads(tape: Tape, x: Value) -> Value:
    """The view of a projection as heads; a gradient that comes back strided is copied."""
    output = Value(x.n, x.item, x.storage)

    def backward(g: Value) -> Sequence[Value | None]:
        if not g.strided:
            return (g,)
        return (tape.value(g.n, g.item),)

    tape.record((x,), (output,), backward)
    return output


def add(tape: Tape, a: Value, b: Value) -> Value:
    """A + b: keeps nothing; the gradient of both is the same tensor."""
    item = max(a.item, b.item)
    return tape.result(larger(a.n, b.n), item, (a, b), lambda g: (g, g))


def larger(n: int, m: int) -> int:
    """The larger of two numbers of elements."""
    return n if n is m else max(n, m)


def scale(tape: Tape, x: Value) -> Value:
    """X times a number (or divided by one): keeps nothing; the gradient is a new tensor."""
    return tape.result(x.n, x.item, (x,), lambda g: (tape.value(g.n, g.item),))


def scale_in_place(tape: Tape, x: Value) -> Value:
    """X times a number, in its own memory; the gradient is a new tensor."""
    output = Value(x.n, x.item, x.storage)
    tape.record((x,), (output,), lambda g: (tape.value(g.n, g.item),))
    return output


def shift(tape: Tape, x: Value) -> Value:
    """X plus a number: keeps nothing; the gradient passes."""
    return tape.result(x.n, x.item, (x,), lambda g: (g,))


def multiply(tape: Tape, a: Value, b: Value, n: int = 0) -> Value:
    """A · b: keeps each factor that the other's gradient needs; a broadcast factor's gradient is summed afterwards.

    n: elements of the product, where both factors are broadcast.
    """
    n, item = n or larger(a.n, b.n), max(a.item, b.item)
    keep = (a.storage if b.needs else None, b.storage if a.needs else None)
    wanted = (a.needs, b.needs)
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return [tape.value(n, item) if want else None for want in wanted]

    return tape.result(n, item, (a, b), backward)


def pointwise(tape: Tape, x: Value, *, keeps_output: bool = False, keeps_input: bool = True) -> Value:
    """A function of each element with one kernel forward and one backward (SiLU, GELU, ReLU, tanh, sigmoid …).

    keeps_output: it remembers its result (ReLU, tanh, sigmoid, softmax) and not its argument.
    """
    if keeps_output:
        output = tape.value(x.n, x.item)
        tape.saved()
        tape.record((x,), (output,), same_size(tape, output.storage))
        return output
    tape.saved()
    return tape.result(x.n, x.item, (x,), same_size(tape, x.storage if keeps_input else None))


def dropout(tape: Tape, x: Value, p: float) -> Value:
    """`F.dropout` while training: the fused kernel keeps a mask of one byte an element; p = 0 passes."""
    if not p:
        return x
    output = tape.value(x.n, x.item)
    mask = tape.value(x.n, 1)
    tape.saved()
    tape.record((x,), (output,), same_size(tape, mask.storage))
    return output


def split(tape: Tape, x: Value, parts: Sequence[int]) -> list[Value]:
    """`x.split` or `chunk` along the last dimension: views; the gradients are joined into one new tensor."""
    outputs = [Value(n, x.item, x.storage) for n in parts]
    total, item = x.n, x.item

    def backward(grads: Sequence[Value | None]) -> Sequence[Value | None]:
        for n, grad in zip(parts, grads, strict=True):
            if grad is None:
                tape.value(n, item)
        return (tape.value(total, item),)

    tape.record((x,), outputs, backward)
    if outputs[0].node is not None:
        outputs[0].node.many = True
    return outputs


def join(tape: Tape, parts: Sequence[Value]) -> Value:
    """`torch.cat`: a new tensor; the gradients are views of the incoming one."""
    item = max(part.item for part in parts)
    sizes = [part.n for part in parts]

    def backward(g: Value) -> Sequence[Value | None]:
        return [_view_of(g, n) for n in sizes]

    return tape.result(sum(sizes), item, parts, backward)


def cut(tape: Tape, x: Value, n: int, *, strided: bool = False) -> Value:
    """A slice `x[..., a:b]`: a view; its gradient is a whole tensor of zeros with the slice filled in.

    strided: x is seen as heads, so that the gradient doesn't lie token by token.
    """
    output = Value(n, x.item, x.storage)
    total = x.n

    def backward(g: Value) -> Sequence[Value | None]:
        whole = tape.value(total, g.item)
        whole.strided = strided
        return (whole,)

    tape.record((x,), (output,), backward)
    return output


def gathered(tape: Tape, x: Value, n: int) -> Value:
    """`x[..., [a]]`: a copy of a part; its gradient is a whole tensor of zeros with the part added in."""
    return tape.result(n, x.item, (x,), whole_size(tape, x.n, x.item))


def spread(tape: Tape, x: Value, n: int) -> Value:
    """X broadcast to n elements and copied; its gradient is summed."""
    small = x.n
    return tape.result(n, x.item, (x,), lambda g: (tape.value(small, g.item),))


def _view_of(g: Value, n: int) -> Value:
    view = Value(n, g.item, g.storage)
    view.view = True
    view.strided = True
    return view
