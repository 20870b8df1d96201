"""LFM2's operator (transformers 5.23, `Lfm2ShortConv`): a gated short convolution instead of attention.

One projection makes three streams, B, C and x; C · conv(B · x) goes through the output projection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.architectures.causal_convolution import causal_convolution, without_padding
from sizeup.estimate.training.basic import heads, multiply, split
from sizeup.estimate.training.tape import STATE_SPACE, Value
from sizeup.estimate.training.tensors import turned

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


class ShortConvolution(msgspec.Struct, frozen=True):
    """kernel: taps of each channel. bias: of the projections and the convolution."""

    kernel: int
    bias: bool = False

    def __call__(self, layer: Layer, x: Value) -> Value:
        """The operator's output."""
        build, tape, hidden = layer.build, layer.build.tape, layer.shape.hidden
        before, tape.label = tape.label, STATE_SPACE
        x = without_padding(tape, x, padding=layer.run.padding)
        all_three = heads(tape, build.linear("conv.in_proj", x, hidden, 3 * hidden, bias=self.bias))
        n = build.tokens * hidden
        inner, outer, x = split(tape, turned(tape, all_three), (n, n, n))
        y = multiply(tape, inner, x)
        y = causal_convolution(build, "conv.conv", y, hidden, self.kernel, bias=self.bias)
        y = turned(tape, multiply(tape, outer, y))
        y = build.linear("conv.out_proj", y, hidden, hidden, bias=self.bias)
        tape.label = before
        return y
