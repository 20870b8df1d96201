"""What an encoder of speech reads: mel features, two convolutions along time, and the embeddings of their positions."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.basic import add, cast
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.linear import weight_copy
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import Value

KERNEL = 3


class Audio(msgspec.Struct, frozen=True):
    """bins: mel bins of a frame. positions: frames that the layers see; the features have twice as many."""

    bins: int
    positions: int


def audio_embeddings(build: Build, audio: Audio, hidden: int, run: Run) -> Value:
    """gelu(conv(gelu(conv(features)))), the second with a stride of two, plus a table of sines that doesn't train."""
    tape, frames = build.tape, 2 * audio.positions
    features = Value(build.batch * audio.bins * frames, build.method.item, None)
    x = convolution(build, "conv1", features, audio.bins, hidden, frames)
    if run.input_gradients and not x.needs:
        x = wants_gradient(build, x)
    x = activate(tape, x, "gelu")
    x = activate(tape, convolution(build, "conv2", x, hidden, hidden, audio.positions), "gelu")
    build.frozen("embed_positions", audio.positions * hidden)
    return add(tape, x, tape.value(audio.positions * hidden, build.method.item))


def convolution(build: Build, name: str, x: Value, inputs: int, outputs: int, frames: int) -> Value:
    """`nn.Conv1d` of three frames with a bias: where anything wants a gradient, it keeps its input and its weight."""
    tape = build.tape
    weight = build.weight(name, outputs * inputs * KERNEL, outputs, "filter")
    bias = build.weight(f"{name}.bias", outputs)
    matrix: Value = weight
    offset: Value = bias
    if tape.autocast:
        x = cast(tape, x, tape.autocast)
        matrix, offset = weight_copy(tape, weight), weight_copy(tape, bias)
    tape.saved()
    keep = (x.storage, matrix.storage)
    sizes = (x.n, weight.n, bias.n)
    wants = (x.needs, matrix.needs, offset.needs)
    item = x.item

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return [tape.value(n, item) if want else None for n, want in zip(sizes, wants, strict=True)]

    return tape.result(build.batch * outputs * frames, item, (x, matrix, offset), backward)
