"""What stands in a layer instead of attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sizeup.estimate.training.architectures.mamba import Mamba, mamba
from sizeup.estimate.training.architectures.mamba2 import Mamba2, mamba2
from sizeup.estimate.training.tape import Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer

#: Sizes of a Mamba, or what is given the layer and its input (gated delta nets, short convolutions …).
Mixer = Mamba | Mamba2 | Callable[[Any, Value], Value]


def mixed(layer: Layer, x: Value, mixer: Mixer) -> Value:
    """The mixer's output."""
    build, hidden, padding = layer.build, layer.shape.hidden, layer.run.padding
    if isinstance(mixer, Mamba):
        return mamba(build, x, hidden, mixer, padding=padding)
    if isinstance(mixer, Mamba2):
        return mamba2(build, x, hidden, mixer, padding=padding)
    return mixer(layer, x)
