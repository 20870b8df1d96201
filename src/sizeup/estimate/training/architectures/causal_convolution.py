"""A causal convolution of each channel with a few taps, as transformers 5.23 writes it (`causal_conv1d_fn`).

`F.conv1d` of all channels as groups, padded on both sides: kernel - 1 places more than the sequence, which are cut off.
"""

from __future__ import annotations

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures.causal_conv import convolution
from sizeup.estimate.training.basic import cast, cut, same_size
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.tape import Tape, Value


def without_padding(tape: Tape, x: Value, *, padding: bool) -> Value:
    """X times the mask of what isn't padding, which is among the step's inputs (`apply_mask_to_padding_states`)."""
    return tape.result(x.n, x.item, (x,), same_size(tape, None)) if padding else x


def causal_convolution(
    build: Build, name: str, x: Value, channels: int, kernel: int, *, bias: bool = False, activation: str = ""
) -> Value:
    """The convolution of the sequence, its activation, and the cast back to the type of x."""
    tape, item = build.tape, x.item
    weight = build.weight(name, channels * kernel)
    offset = build.weight(f"{name}.bias", channels) if bias else None
    longer = build.batch * channels * (build.sequence + kernel - 1)
    y = convolution(tape, cast(tape, x, weight.item), weight, offset, longer)
    y = cut(tape, y, x.n)
    if activation:
        y = activate(tape, y, activation)
    return cast(tape, y, item)
