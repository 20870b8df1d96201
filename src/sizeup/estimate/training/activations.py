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
    return multiply(tape, half, shift(tape, _tanh(tape, scale(tape, add(tape, x, scale(tape, _power(tape, x)))))))


def _fast_gelu(tape: Tape, x: Value) -> Value:
    """0.5 · x · (1 + tanh(x · c · (1 + 0.044715 · x · x))) (`gelu_fast`)."""
    half = scale(tape, x)
    return multiply(
        tape,
        half,
        shift(tape, _tanh(tape, multiply(tape, scale(tape, x), shift(tape, multiply(tape, scale(tape, x), x))))),
    )


def _erf_gelu(tape: Tape, x: Value) -> Value:
    """0.5 · x · (1 + erf(x / √2)) in Python (ESM)."""
    half = scale(tape, x)
    return multiply(tape, half, shift(tape, _erf(tape, scale(tape, x))))


def _erf(tape: Tape, x: Value) -> Value:
    """The error function; its gradient 2/√π · exp(-x²) · g is one expression, whose parts go when all of it is done."""
    tape.saved()
    keep, n = x.storage, x.n

    def backward(g: Value, _keep: object = keep) -> list[Value | None]:
        parts = [tape.value(n, g.item) for _ in range(4)]
        result: list[Value | None] = [tape.value(n, g.item)]
        parts.clear()
        return result

    return tape.result(n, x.item, (x,), backward)


def _quick_gelu(tape: Tape, x: Value) -> Value:
    """X · sigmoid(1.702 · x)."""
    return multiply(tape, x, pointwise(tape, scale(tape, x), keeps_output=True))


def _bloom_gelu(tape: Tape, x: Value) -> Value:
    """GELU as a function of its own, which keeps only its argument and has its gradient in Python (`BloomGelu`)."""
    tape.saved()
    keep, n = x.storage, x.n

    def backward(g: Value, _keep: object = keep) -> list[Value | None]:
        return [_bloom_gelu_gradient(tape, n, g.item)]

    half = tape.value(n, x.item)
    inner = _bloom_gelu_inner(tape, n, x.item)
    shifted = tape.value(n, x.item)
    del inner
    output = tape.result(n, x.item, (x,), backward)
    del half, shifted
    return output


def _bloom_gelu_inner(tape: Tape, n: int, item: int) -> Value:
    """tanh(c · x · (1 + 0.044715 · x · x)), one operation after the other."""
    scaled, cubed = tape.value(n, item), tape.value(n, item)
    cubed = tape.value(n, item)
    cubed = tape.value(n, item)
    angle = tape.value(n, item)
    del scaled, cubed
    tanh = tape.value(n, item)
    del angle
    return tanh


def _bloom_gelu_gradient(tape: Tape, n: int, item: int) -> Value:
    """(½ · x · (1 - tanh²) · (c + 0.107 · x · x) + ½ · (1 + tanh)) · g."""
    tanh = _bloom_gelu_inner(tape, n, item)
    half, slope = tape.value(n, item), tape.value(n, item)
    slope, power = tape.value(n, item), tape.value(n, item)
    power = tape.value(n, item)
    power = tape.value(n, item)
    inner = tape.value(n, item)
    del slope, power
    first = tape.value(n, item)
    del half, inner
    second = tape.value(n, item)
    second = tape.value(n, item)
    whole = tape.value(n, item)
    del first, second
    gradient = tape.value(n, item)
    del tanh, whole
    return gradient


def xielu(tape: Tape, x: Value, positive: Value, negative: Value) -> Value:
    """X > 0: α₊ · x² + β · x, else (expm1(min(x, ε)) - x) · α₋ + β · x, with trained α (`XIELUActivation` in Python).

    Autocast computes softplus and expm1 in fp32, and what they meet becomes fp32.
    """
    wide = 4 if tape.autocast else x.item
    alpha_p, alpha_n = (cast(tape, pointwise(tape, alpha), wide) for alpha in (positive, negative))
    where = tape.value(x.n, 1)
    rising = add(tape, multiply(tape, multiply(tape, alpha_p, x), x), scale(tape, x))
    curve = pointwise(tape, cast(tape, pointwise(tape, x), wide), keeps_output=True)
    falling = add(tape, multiply(tape, add(tape, curve, x), alpha_n), scale(tape, x))
    del curve
    tape.saved()
    keep, n = where.storage, x.n

    def backward(g: Value, _keep: object = keep) -> list[Value | None]:
        return [tape.value(n, g.item), tape.value(n, g.item)]

    return tape.result(x.n, max(rising.item, falling.item), (rising, falling), backward)


def _squared_relu(tape: Tape, x: Value) -> Value:
    """relu(x)²."""
    return _power(tape, pointwise(tape, x, keeps_output=True))


_WRITTEN = {
    "gelu_new": _new_gelu,
    "gelu_fast": _fast_gelu,
    "gelu_accurate": _new_gelu,
    "quick_gelu": _quick_gelu,
    "erf_gelu": _erf_gelu,
    "relu2": _squared_relu,
    "bloom_gelu": _bloom_gelu,
}
