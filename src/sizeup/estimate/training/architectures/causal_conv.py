"""The short convolution before a scan: each channel with its own kernel, padded, cut to the sequence, then SiLU.

Kept: the input, and the convolution's whole output (tokens and kernel - 1 more of each sequence).
Source: transformers 5.23, `causal_conv1d_fn`; torch 2.13, `ConvolutionBackward0`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.basic import cast, cut
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.linear import weight_copy
from sizeup.estimate.training.tape import Parameter, Tape, Value


def causal_conv(build: Build, x: Value, channels: int, kernel: int, *, bias: bool, activation: str = "silu") -> Value:
    """The activated convolution in the type of x."""
    tape = build.tape
    weight = build.weight("conv1d", channels * kernel, channels)
    offset = build.weight("conv1d.bias", channels) if bias else None
    longer = build.batch * channels * (build.sequence + kernel - 1)
    y = convolution(tape, cast(tape, x, weight.item), weight, offset, longer)
    y = cut(tape, y, x.n)
    return cast(tape, activate(tape, y, activation), x.item)


def convolution(tape: Tape, x: Value, weight: Value, bias: Parameter | None, n: int) -> Value:
    """`conv1d` with n results; autocast casts all three, the weight anew each time since only a view of it is given."""
    offset: Value | None = bias
    if tape.autocast:
        x, weight = cast(tape, x, tape.autocast), cast(tape, weight, tape.autocast)
        offset = None if bias is None else weight_copy(tape, bias)
    inputs = (x, weight, offset)
    keep = (x.storage, weight.storage)
    sizes = tuple(value.n if value is not None and value.needs else 0 for value in inputs)
    item = x.item
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return [tape.value(size, item) if size else None for size in sizes]

    return tape.product(n, item, inputs, backward)
