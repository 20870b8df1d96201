"""Norms as transformers writes them, operation by operation.

RMS norm (`LlamaRMSNorm`): x to fp32; x² and its mean; rsqrt; x · rsqrt; back to the stream's type; times the weight.
Kept: x in fp32 (a copy when the stream is 16-bit), 1/rms (4 bytes a row), and x̂ in the stream's type if the weight
trains. Layer norm is one kernel: it keeps x, the mean and 1/σ (4 bytes a row each).
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import cast, multiply
from sizeup.estimate.training.tape import NORM, Parameter, Tape, Value, rounded


def rms_norm(
    tape: Tape,
    x: Value,
    weight: Value | None,
    width: int,
    *,
    weight_in_fp32: bool = False,
    offset: bool = False,
    power: bool = False,
) -> Value:
    """The norm over rows of `width`.

    weight_in_fp32: the weight multiplies before the product is cast back (Gemma, Olmo2), instead of after.
    offset: the factor is 1 + weight in fp32 (Gemma). weight None: a norm without one. power: 1/rms is written as a
    power, which keeps the mean as well (Gemma 4).
    """
    before, tape.label = tape.label, NORM
    wide = cast(tape, x, 4)
    normed = multiply(tape, wide, inverse_rms(tape, wide, width, power=power))
    if weight is None:
        output = cast(tape, normed, x.item)
    elif weight_in_fp32:
        factor = _offset(tape, weight) if offset else weight
        output = cast(tape, multiply(tape, normed, factor), x.item)
    else:
        output = multiply(tape, weight, cast(tape, normed, x.item))
    tape.label = before
    output.strided = x.strided
    return output


def _offset(tape: Tape, weight: Value) -> Value:
    """1 + weight in fp32."""
    wide = cast(tape, weight, 4)
    return tape.result(wide.n, 4, (wide,), lambda g: (g,))


def inverse_rms(tape: Tape, wide: Value, width: int, *, power: bool = False) -> Value:
    """rsqrt(mean(x²) + ε) of each row. Its gradient passes four tensors of x's size, of which one remains."""
    n, rows, label = wide.n, wide.n // width, tape.label
    square, row = rounded(4 * n) + label, rounded(4 * rows) + label
    twice = label + label
    tape.saved()
    tape.log.extend((square, row, twice - square, row))
    output = tape.value(rows, 4)
    tape.log.extend((twice - row, twice - row))
    keep = (wide.storage, tape.value(rows, 4).storage if power else output.storage)

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        now = tape.label
        tape.transient(4 * rows, 4 * rows, 4 * rows)
        large = rounded(4 * n) + now
        tape.log.extend((large, large, large))
        result = tape.value(n, 4)
        tape.log.extend((now + now - large,) * 3)
        result.strided = g.strided
        return (result,)

    tape.saved()
    tape.record((wide,), (output,), backward)
    return output


def layer_norm(tape: Tape, x: Value, weight: Parameter | None, bias: Parameter | None, width: int) -> Value:
    """`F.layer_norm`: autocast runs it in fp32 (the input is cast, the result stays fp32)."""
    before, tape.label = tape.label, NORM
    if tape.autocast:
        x = cast(tape, x, 4)
        weight_value = _in_fp32(tape, weight)
        bias_value = _in_fp32(tape, bias)
    else:
        weight_value, bias_value = weight, bias
    n, item, rows = x.n, x.item, x.n // width
    tape.saved()
    output = tape.value(n, item)
    mean, deviation = tape.value(rows, 4), tape.value(rows, 4)
    keep = (x.storage, mean.storage, deviation.storage)
    wants = x.needs, weight is not None and weight.needs, bias is not None and bias.needs

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        sizes = (n, width, width)
        return [tape.value(size, item) if want else None for size, want in zip(sizes, wants, strict=True)]

    tape.saved()
    tape.record((x, weight_value, bias_value), (output,), backward)
    tape.label = before
    return output


def _in_fp32(tape: Tape, weight: Parameter | None) -> Value | None:
    return None if weight is None else cast(tape, weight, 4)


def fp32_layer_norm(tape: Tape, x: Value, weight: Parameter, width: int) -> Value:
    """`CohereLayerNorm`: the layer norm written out in fp32; two centred copies of x, of which both are kept."""
    before, tape.label = tape.label, NORM
    item = x.item
    wide = cast(tape, x, 4)
    mean = _mean(tape, wide, width)
    spread = inverse_rms(tape, _centred(tape, wide, mean), width)
    normed = multiply(tape, _centred(tape, wide, mean), spread)
    del wide, mean, spread
    output = cast(tape, multiply(tape, cast(tape, weight, 4), normed), item)
    tape.label = before
    output.strided = x.strided
    return output


def _mean(tape: Tape, x: Value, width: int) -> Value:
    n = x.n
    return tape.result(x.n // width, 4, (x,), lambda _g: (tape.value(n, 4),))


def _centred(tape: Tape, x: Value, mean: Value) -> Value:
    """X - mean: the mean's gradient is a negated copy, summed."""
    n = x.n

    def backward(g: Value) -> Sequence[Value | None]:
        return g, tape.value(n, 4)

    return tape.result(n, 4, (x, mean), backward)
