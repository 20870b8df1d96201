"""Activation functions by their name in a configuration: one kernel, or several operations written in Python.

Source: transformers 5.23, `activations.py`.
"""

from __future__ import annotations

from sizeup.estimate.training.basic import add, cast, multiply, pointwise, scale, shift
from sizeup.estimate.training.tape import Tape, Value

_KEEPS_OUTPUT = frozenset({"relu", "tanh", "sigmoid"})


def activate(tape: Tape, x: Value, name: str) -> Value:
    """The activation of that name; unknown ones count as one kernel that keeps its argument, as most do."""
    written = _WRITTEN.get(name)
    if written is not None:
        return written(tape, x)
    return pointwise(tape, x, keeps_output=name in _KEEPS_OUTPUT)


def _tanh(tape: Tape, x: Value) -> Value:
    return pointwise(tape, x, keeps_output=True)


def _power(tape: Tape, x: Value) -> Value:
    """xᵏ; its gradient is k · xᵏ⁻¹ · g: three kernels, one result. Autocast computes it in fp32."""
    if tape.autocast:
        x = cast(tape, x, 4)
    tape.saved()
    keep, n = x.storage, x.n

    def backward(g: Value, _keep: object = keep) -> list[Value | None]:
        power = tape.value(n, g.item)
        scaled = tape.value(n, g.item)
        result: list[Value | None] = [tape.value(n, g.item)]
        del power, scaled
        return result

    return tape.result(x.n, x.item, (x,), backward)


def _new_gelu(tape: Tape, x: Value) -> Value:
    """0.5 · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))) in Python (`gelu_new`)."""
    half = scale(tape, x)
    cubed = scale(tape, _power(tape, x))
    inner = scale(tape, add(tape, x, cubed))
    del cubed
    return multiply(tape, half, shift(tape, _tanh(tape, inner)))


def _fast_gelu(tape: Tape, x: Value) -> Value:
    """0.5 · x · (1 + tanh(x · c · (1 + 0.044715 · x · x))) (`gelu_fast`)."""
    half = scale(tape, x)
    factor = shift(tape, multiply(tape, scale(tape, x), x))
    inner = multiply(tape, scale(tape, x), factor)
    return multiply(tape, half, shift(tape, _tanh(tape, inner)))


def _quick_gelu(tape: Tape, x: Value) -> Value:
    """X · sigmoid(1.702 · x)."""
    return multiply(tape, x, pointwise(tape, scale(tape, x), keeps_output=True))


def _squared_relu(tape: Tape, x: Value) -> Value:
    """relu(x)²."""
    return _power(tape, pointwise(tape, x, keeps_output=True))


_WRITTEN = {
    "gelu_new": _new_gelu,
    "gelu_fast": _fast_gelu,
    "gelu_accurate": _new_gelu,
    "quick_gelu": _quick_gelu,
    "relu2": _squared_relu,
}
