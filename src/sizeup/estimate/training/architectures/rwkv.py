"""RWKV-4 (Peng et al. 2023) as transformers 5.23 trains it where its CUDA kernel isn't built.

Both halves mix each token with the one before. The first runs a recurrence token by token in Python, in fp32: a
numerator, a denominator and the largest exponent so far (`rwkv_linear_attention_cpu`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.architectures.sums import padded
from sizeup.estimate.training.basic import add, cast, cut, multiply, pointwise, scale
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.loops import repeat
from sizeup.estimate.training.tape import MLP, STATE_SPACE, Tape, Value
from sizeup.estimate.training.tensors import divide, subtract, written

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


class TimeMix(msgspec.Struct, frozen=True):
    """width: channels of the recurrence."""

    width: int

    def __call__(self, layer: Layer, x: Value) -> Value:
        """The first half's output."""
        build, tape, hidden = layer.build, layer.build.tape, layer.shape.hidden
        before, tape.label = tape.label, STATE_SPACE
        shifted = padded(tape, x, x.n)
        key = _blended(build, "attention.time_mix_key", x, shifted)
        value = _blended(build, "attention.time_mix_value", x, shifted)
        receptance = _blended(build, "attention.time_mix_receptance", x, shifted)
        key = build.linear("attention.key", key, hidden, self.width)
        value = build.linear("attention.value", value, hidden, self.width)
        receptance = build.linear("attention.receptance", receptance, hidden, self.width)
        receptance = pointwise(tape, receptance, keeps_output=True)
        del shifted
        y = multiply(tape, receptance, recurrence(build, key, value, self.width))
        y = build.linear("attention.output", y, self.width, hidden)
        tape.label = before
        return y


def channel_mix(build: Build, x: Value, hidden: int, inner: int) -> Value:
    """The second half: relu² of a wide projection, weighed by a sigmoid (`RwkvFeedForward`)."""
    tape = build.tape
    before, tape.label = tape.label, MLP
    shifted = padded(tape, x, x.n)
    key = _blended(build, "feed_forward.time_mix_key", x, shifted)
    receptance = _blended(build, "feed_forward.time_mix_receptance", x, shifted)
    key = pointwise(tape, build.linear("feed_forward.key", key, hidden, inner), keeps_output=True)
    key = _square(tape, cast(tape, key, 4) if tape.autocast else key)
    value = build.linear("feed_forward.value", key, inner, hidden)
    receptance = build.linear("feed_forward.receptance", receptance, hidden, hidden)
    receptance = pointwise(tape, receptance, keeps_output=True)
    y = multiply(tape, receptance, value)
    del shifted, key
    tape.label = before
    return y


def _square(tape: Tape, x: Value) -> Value:
    """x²: through the power, its multiple and their product."""
    tape.saved()
    n, keep = x.n, x.storage

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        power, scaled = tape.value(n, g.item), tape.value(n, g.item)
        result = tape.value(n, g.item)
        del power, scaled
        return (result,)

    return tape.result(n, x.item, (x,), backward)


def _blended(build: Build, name: str, x: Value, shifted: Value) -> Value:
    """X times a weight, and the token before times the rest."""
    tape = build.tape
    mix = build.weight(name, x.n // build.tokens)
    own = multiply(tape, x, mix)
    return add(tape, own, multiply(tape, shifted, _rest(tape, mix)))


def _rest(tape: Tape, x: Value) -> Value:
    """1 - x: the gradient is a negative copy."""
    return tape.result(x.n, x.item, (x,), lambda g: (tape.value(g.n, g.item),))


def recurrence(build: Build, key: Value, value: Value, width: int) -> Value:
    """Σ of all values so far, each weighed by its key and its age; with the names of the loop."""
    tape = build.tape
    loop = Loop(build, key, value, width)
    repeat(tape, build.sequence, loop.step)
    return loop.end()


class Loop:
    """The recurrence over tokens: numerator, denominator and largest exponent, and the names of the loop."""

    def __init__(self, build: Build, key: Value, value: Value, width: int) -> None:
        tape = self.tape = build.tape
        self.key, self.value, self.n = key, value, build.batch * width
        self.output: Value | None = tape.value(key.n, key.item)
        self.numerator, self.denominator, self.largest = (tape.value(self.n, 4) for _ in range(3))
        self.first = build.weight("attention.time_first", width)
        decay: Value = build.weight("attention.time_decay", width)
        decay = cast(tape, decay, 4) if tape.autocast else decay
        self.decay = scale(tape, pointwise(tape, decay, keeps_output=True))
        self.names: dict[str, Value] = {}
        self.read = 0

    def step(self) -> None:
        """One token: what it gives, and the next state."""
        tape, names, largest, output = self.tape, self.names, self.largest, self.output
        if output is None:
            return
        names["key"] = key = cast(tape, cut(tape, self.key, self.n), 4)
        names["value"] = value = cut(tape, self.value, self.n)
        names["most"] = most = maximum(tape, largest, add(tape, key, self.first))
        names["e1"] = e1 = _exponential(tape, largest, most)
        names["e2"] = e2 = _exponential(tape, add(tape, key, self.first), most)
        names["up"] = add(tape, multiply(tape, e1, self.numerator), multiply(tape, e2, value))
        names["down"] = add(tape, multiply(tape, e1, self.denominator), e2)
        part = cast(tape, divide(tape, names["up"], names["down"]), output.item)
        self.output = written(tape, output, part)
        del part
        self.read = len(tape.nodes)
        most = maximum(tape, add(tape, largest, self.decay), key)
        names["e1"] = e1 = _exponential(tape, add(tape, largest, self.decay), most)
        names["e2"] = e2 = _exponential(tape, key, most)
        self.numerator = add(tape, multiply(tape, e1, self.numerator), multiply(tape, e2, value))
        self.denominator = add(tape, multiply(tape, e1, self.denominator), e2)
        self.largest = most

    def end(self) -> Value:
        """The output; nobody reads the last state."""
        del self.tape.nodes[self.read :]
        output, self.output = self.output, None
        if output is None:
            raise ValueError("the loop has given its output away")
        return output


def _exponential(tape: Tape, a: Value, b: Value) -> Value:
    """exp(a - b)."""
    return pointwise(tape, subtract(tape, a, b), keeps_output=True)


def maximum(tape: Tape, a: Value, b: Value) -> Value:
    """The larger of two: keeps both; where they are equal each gets half of the gradient."""
    keep, wants, n, item = (a.storage, b.storage), (a.needs, b.needs), max(a.n, b.n), max(a.item, b.item)
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return [tape.value(n, item) if want else None for want in wants]

    return tape.result(n, item, (a, b), backward)
