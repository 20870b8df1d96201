"""The orders of layers that scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.basic import add, cast
from sizeup.estimate.training.tape import Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


class FeedForward(msgspec.Struct, frozen=True):
    """A feed-forward, or experts, as the only half of a layer."""

    def __call__(self, layer: Layer, x: Value) -> Value:
        """Its output."""
        return layer.fed(x)


def single(layer: Layer, x: Value) -> Value:
    """One half only: a norm in the weights' type, the mixer, and a residual that may be in fp32 (Mamba)."""
    tape, residual = layer.build.tape, x
    x = layer.norm("norm", cast(tape, x, layer.build.method.item))
    if layer.shape.residual_wide:
        residual = cast(tape, residual, 4)
    x = layer.attention(x)
    return add(tape, residual, x)
