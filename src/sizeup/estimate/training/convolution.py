"""Convolutions whose steps are as long as their kernels: products of each patch with a weight (torch 2.13).

A convolution keeps its input and its weight if anything of it wants a gradient (`ConvolutionBackward0`).
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import cast
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.linear import weight_copy
from sizeup.estimate.training.tape import Value


def strided_convolution(build: Build, name: str, x: Value, inputs: int, outputs: int, *, bias: bool = True) -> Value:
    """A convolution of that name. inputs: elements of a patch of all channels; outputs: channels of the result."""
    tape = build.tape
    weight = build.weight(name, inputs * outputs, outputs, "filter")
    offset = build.weight(f"{name}.bias", outputs) if bias else None
    matrix: Value = weight
    added: Value | None = offset
    if tape.autocast:
        x, matrix = cast(tape, x, tape.autocast), weight_copy(tape, weight)
        added = None if offset is None else weight_copy(tape, offset)
    tape.saved()
    keep, item = (x.storage, matrix.storage), x.item
    sizes = (x.n, weight.n, outputs)
    wants = (x.needs, matrix.needs, added is not None and added.needs)

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return [tape.value(n, item) if want else None for n, want in zip(sizes, wants, strict=True)]

    return tape.result(x.n // inputs * outputs, item, (x, matrix, added), backward)
