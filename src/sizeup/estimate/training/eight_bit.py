"""A linear layer whose products are computed in one byte: torchao's `Float8Linear`, tensorwise, written out in Python.

What is kept is what a plain layer keeps: the input and the weight as they are; both are cast anew in the backward pass.
A cast holds 9 bytes an element for a moment: the scaled value and its clamped copy in fp32, and the result.

    forward    x and W cast, their product
    backward   dy and W cast, W laid out by columns, dx; dy cast again, x cast, both laid out anew, dW

Compiled, the casts become one kernel each and their temporaries go. Source: torchao 0.18, `float8/float8_linear.py`,
`float8_training_tensor.py`, `float8_ops.py`; checked by running it on fake tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import add
from sizeup.estimate.training.tape import WEIGHT_COPIES, Parameter, Tape, Value


def eight_bit(tape: Tape, x: Value, weight: Parameter, bias: Parameter | None = None) -> Value:
    """X · Wᵀ (+ b) in one byte."""
    outputs = weight.rows
    rows = x.n // (weight.n // outputs)
    item = x.item
    keep, sizes = (x.storage, weight.storage), (x.n, weight.n)
    wants = (x.needs, weight.needs)
    tape.saved()

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return _gradients(tape, g, sizes, item, wants)

    lowered, matrix = _lowered(tape, x.n, item), _lowered_weight(tape, weight.n, weight.item)
    output = tape.product(rows * outputs, item, (x, weight), backward)
    del lowered, matrix
    return output if bias is None else add(tape, output, bias)


def _gradients(
    tape: Tape, g: Value, sizes: tuple[int, int], item: int, wants: tuple[bool, bool]
) -> Sequence[Value | None]:
    """Both gradients are computed whether or not they are wanted."""
    of_output, matrix = _lowered(tape, g.n, g.item), _lowered_weight(tape, sizes[1], item)
    by_columns = tape.value(sizes[1], 1)
    of_input = _view(tape, sizes[0], item)
    del by_columns
    again, lowered = _lowered(tape, g.n, g.item), _lowered(tape, sizes[0], item)
    by_rows, by_columns = tape.value(g.n, 1), tape.value(sizes[0], 1)
    of_weight = _view(tape, sizes[1], item)
    del of_output, matrix, again, lowered, by_rows, by_columns
    return of_input if wants[0] else None, of_weight if wants[1] else None


def _lowered(tape: Tape, n: int, item: int) -> Value:
    """N elements in one byte, by way of fp32."""
    tape.transient(n * item)
    wide = tape.value(n, 4) if item != 4 else None
    scaled = tape.value(n, 4)
    del wide
    clamped = tape.value(n, 4)
    result = tape.value(n, 1)
    del scaled, clamped
    return result


def _lowered_weight(tape: Tape, n: int, item: int) -> Value:
    before, tape.label = tape.label, WEIGHT_COPIES
    result = _lowered(tape, n, item)
    tape.label = before
    return result


def _view(tape: Tape, n: int, item: int) -> Value:
    value = tape.value(n, item)
    value.view = True
    return value
