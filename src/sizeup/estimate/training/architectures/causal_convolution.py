"""A causal convolution of each channel with a few taps, as transformers 5.23 writes it (`causal_conv1d_fn`).

`F.conv1d` of all channels as groups, padded on both sides: kernel - 1 places more than the sequence, which are cut off.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.activations import activate
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
    weight: Value = build.weight(name, channels * kernel)
    offset: Value | None = build.weight(f"{name}.bias", channels) if bias else None
    y = convolution(build, cast(tape, x, weight.item), weight, offset, channels, build.sequence + kernel - 1)
    y = cut(tape, y, x.n)
    if activation:
        y = activate(tape, y, activation)
    return cast(tape, y, item)


def convolution(build: Build, x: Value, weight: Value, offset: Value | None, channels: int, length: int) -> Value:
    """`F.conv1d`: keeps its input and weight; gradients of input, weight and bias in this order."""
    tape = build.tape
    if tape.autocast:
        x, weight = cast(tape, x, tape.autocast), cast(tape, weight, tape.autocast)
        offset = None if offset is None else cast(tape, offset, tape.autocast)
    parts, item = (x, weight, offset), x.item
    wants = [(part.n, part is not None and part.needs) for part in parts if part is not None]
    keep = (x.storage if weight.needs else None, weight.storage if x.needs else None)
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return [tape.value(n, item) if want else None for n, want in wants]

    return tape.result(build.batch * channels * length, item, [part for part in parts if part is not None], backward)
