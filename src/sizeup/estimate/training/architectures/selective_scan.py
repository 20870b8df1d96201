"""Mamba's scan, token by token, as transformers writes it out in Python (5.23, `mamba_selective_scan`).

Decays and inputs of every state of every token are made at once: 3 · channels · n elements a token in fp32, of which
two are kept. Then each token makes a new state, in fp32 and once more in the stream's type, and all of them are kept.
The gradient of what one token reads is a whole tensor of zeros with its slice filled in.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.architectures.chunk_scan import exponential, softplus
from sizeup.estimate.training.architectures.reordered import batched, seen
from sizeup.estimate.training.basic import add, cast, cut, multiply, pointwise
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.loops import repeat
from sizeup.estimate.training.tape import Tape, Value


def selective_scan(
    build: Build, x: Value, dt: Value, a: Value, b: Value, c: Value, skip: Value, gate: Value, bias: Value
) -> Value:
    """The scan's output in fp32, gated. a: a decay for each channel and state; b, c: a number for each state.

    skip: what part of x passes by, for each channel; bias: of dt.
    """
    tape, tokens, item = build.tape, build.tokens, x.item
    channels, state = x.n // tokens, b.n // tokens
    dt = softplus(tape, add(tape, dt, cast(tape, bias, dt.item)))
    decays = exponential(tape, multiply(tape, a, seen(tape, dt), tokens * channels * state))
    inputs = multiply(tape, seen(tape, dt), cast(tape, b, 4), tokens * channels * state)
    fed = multiply(tape, inputs, cast(tape, seen(tape, x), 4))
    loop = _Loop(tape, build.batch, channels, state, item)
    results: list[Value] = []
    repeat(tape, build.sequence, lambda: results.append(loop.step(decays, fed, c)), results)
    output = stacked(tape, results, x.n)
    output = add(tape, output, multiply(tape, x, skip))
    return multiply(tape, output, pointwise(tape, gate))


class _Loop:
    """The names of the loop over tokens: the state, and one token's output before its slice is taken."""

    def __init__(self, tape: Tape, batch: int, channels: int, state: int, item: int) -> None:
        self.tape, self.item = tape, item
        self.rows, self.columns = batch * channels, batch * state
        self.elements = self.rows * state
        self.state = tape.value(self.elements, item)
        self.output: Value | None = None

    def step(self, decays: Value, fed: Value, c: Value) -> Value:
        """The next state, and what it gives."""
        tape, n = self.tape, self.elements
        self.state = add(tape, multiply(tape, cut(tape, decays, n), self.state), cut(tape, fed, n))
        read = seen(tape, cut(tape, c, self.columns))
        self.output = batched(tape, cast(tape, self.state, self.item), read, self.rows)
        return cut(tape, self.output, self.rows)


def stacked(tape: Tape, parts: list[Value], n: int) -> Value:
    """`torch.stack` to n elements: the gradients are views of the incoming one."""
    sizes = [part.n for part in parts]

    def backward(g: Value) -> Sequence[Value | None]:
        return [Value(size, g.item, g.storage, view=True) for size in sizes]

    return tape.result(n, parts[0].item, parts, backward)
