"""What stands in a layer instead of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizeup.estimate.training.architectures.mamba2 import Mamba2, mamba2
from sizeup.estimate.training.tape import Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


def mixed(layer: Layer, x: Value, mixer: Mamba2) -> Value:
    """The mixer's output."""
    return mamba2(layer.build, x, layer.shape.hidden, mixer, padding=layer.run.padding)
