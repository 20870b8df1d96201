"""Griffin's recurrent block (De et al. 2024) as transformers 5.23 trains it (`RecurrentGemmaRecurrentBlock`).

A convolution, then a gated linear recurrence of each channel, token by token in Python, in fp32; a second branch is
activated and multiplies the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures.causal_conv import convolution
from sizeup.estimate.training.attention import Heads, attend
from sizeup.estimate.training.basic import add, cast, copy, cut, heads, multiply, pointwise, same_size, scale, shift
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.linear import weight_copy
from sizeup.estimate.training.loops import repeat
from sizeup.estimate.training.positions import Rotary, rotate_part
from sizeup.estimate.training.tape import ATTENTION, RECOMPUTED, STATE_SPACE, Node, Parameter, Storage, Tape, Value
from sizeup.estimate.training.tensors import turned, written

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer

NAME = "temporal_block"


class GatedRecurrence(msgspec.Struct, frozen=True):
    """width: channels of the recurrence, in blocks for its gates. kernel: taps of the convolution."""

    width: int
    blocks: int
    kernel: int
    activation: str

    def __call__(self, layer: Layer, x: Value) -> Value:
        """The block's output."""
        build, tape, hidden, width = layer.build, layer.build.tape, layer.shape.hidden, self.width
        before, tape.label = tape.label, STATE_SPACE
        y_branch = build.linear(f"{NAME}.linear_y", x, hidden, width, bias=True)
        y_branch = activate(tape, y_branch, self.activation)
        x_branch = heads(tape, build.linear(f"{NAME}.linear_x", x, hidden, width, bias=True))
        x_branch = self.convolved(build, turned(tape, x_branch))
        x_branch, state = recurrence(build, x_branch, self)
        if before == RECOMPUTED and layer.made.kept is not None:
            keep_graph(layer.made.kept, state)
        del state
        y = multiply(tape, x_branch, y_branch)
        y = build.linear(f"{NAME}.linear_out", copy(tape, y), width, hidden, bias=True, apart=True)
        tape.label = before
        return y

    def convolved(self, build: Build, x: Value) -> Value:
        """The convolution's module, whose weights autocast's cache knows."""
        tape = build.tape
        weight = build.weight(f"{NAME}.conv_1d", self.width * self.kernel)
        bias = build.weight(f"{NAME}.conv_1d.bias", self.width)
        cached = weight_copy(tape, weight) if tape.autocast else weight
        longer = build.batch * self.width * (build.sequence + self.kernel - 1)
        return cut(tape, convolution(tape, x, cached, bias, longer), x.n)


class OwnTables(msgspec.Struct, frozen=True):
    """Attention whose tables of positions are made in every layer. share: of a head that turns."""

    share: float
    bias: bool

    @property
    def attends(self) -> bool:
        """It is given attention's mask."""
        return True

    def __call__(self, layer: Layer, x: Value) -> Value:
        """Projections, tables, rotation of a part, attention, output."""
        build, shape = layer.build, layer.shape
        tape, width, small = build.tape, shape.head_count * shape.head_dim, shape.kv_heads * shape.head_dim
        before, tape.label = tape.label, ATTENTION
        q, k, v = [
            heads(tape, build.linear(f"{NAME}.{name}_proj", x, shape.hidden, size, bias=self.bias))
            for name, size in (("q", width), ("k", small), ("v", small))
        ]
        part = int(shape.head_dim * self.share)
        tables = Rotary(tape, build.sequence, part, v.item)
        q, k = rotate_part(tape, q, tables, part, shape.head_dim), rotate_part(tape, k, tables, part, shape.head_dim)
        sizes = Heads(
            build.batch, build.sequence, build.sequence, shape.head_count, shape.kv_heads, shape.head_dim,
            shape.head_dim,
        )  # fmt: skip
        y = attend(tape, q, k, v, sizes, layer.way(), layer.mask)
        y = build.linear(f"{NAME}.o_proj", y, width, shape.hidden, bias=True)
        tape.label = before
        return y


def recurrence(build: Build, x: Value, r: GatedRecurrence) -> tuple[Value, Value]:
    """`RecurrentGemmaRglru.forward`, with the names that it has: the output, and the last state."""
    tape, item, places = build.tape, x.item, build.sequence
    reset = tape.value(places, 1)
    act = copy(tape, x) if build.batch > 1 else x
    res, input_gate = _gate(build, "input_gate", act, r)
    res, recurrent_gate = _gate(build, "recurrent_gate", act, r)
    fp32 = 4 if tape.autocast else item
    log_gate = scale(tape, recurrent_gate)
    rate = build.weight(f"{NAME}.rg_lru.recurrent_param", r.width)
    log_gate = multiply(tape, log_gate, pointwise(tape, cast(tape, rate, max(fp32, rate.item))))
    recurrent_gate = pointwise(tape, cast(tape, log_gate, fp32), keeps_output=True)
    a_square = pointwise(tape, cast(tape, scale(tape, log_gate), fp32), keeps_output=True)
    gated = multiply(tape, x, input_gate)
    multiplier = bounded_root(tape, _less(tape, a_square))
    multiplier = shift(tape, _masked(tape, multiplier, places))
    normalized = multiply(tape, gated, cast(tape, multiplier, item))
    found = _scan(build, normalized, _masked(tape, recurrent_gate, places), r)
    del act, res, reset
    return found


def _gate(build: Build, name: str, act: Value, r: GatedRecurrence) -> tuple[Value, Value]:
    """A product of each block's channels with its own matrix, and its sigmoid."""
    tape, n = build.tape, build.tokens * r.width
    bias = build.weight(f"{NAME}.rg_lru.{name}_bias", r.width)
    weight = build.weight(f"{NAME}.rg_lru.{name}_weight", r.width * (r.width // r.blocks), r.blocks, "experts")
    res = _added_product(tape, bias, act, weight, n)
    return res, pointwise(tape, copy(tape, res), keeps_output=True)


def _added_product(tape: Tape, bias: Value, a: Value, weight: Parameter, n: int) -> Value:
    """`baddbmm`: keeps both factors; gradients of the bias, the second and the first."""
    second: Value = weight
    if tape.autocast:
        bias, a, second = cast(tape, bias, tape.autocast), cast(tape, a, tape.autocast), weight_copy(tape, weight)
    keep = (a.storage if second.needs else None, second.storage if a.needs else None)
    sizes, wants, item = (a.n, second.n), (a.needs, second.needs), max(a.item, second.item)
    tape.saved()

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        of_first = tape.value(sizes[0], item) if wants[0] else None
        of_second = tape.value(sizes[1], item) if wants[1] else None
        return g, of_first, of_second

    return tape.result(n, item, (bias, a, second), backward)


def _less(tape: Tape, x: Value) -> Value:
    """1 - x: the gradient is a negative copy."""
    return tape.result(x.n, x.item, (x,), lambda g: (tape.value(g.n, g.item),))


def _masked(tape: Tape, x: Value, places: int) -> Value:
    """X times booleans of places, which are kept."""
    booleans = tape.value(places, 1).storage
    tape.saved()
    return tape.result(x.n, x.item, (x,), same_size(tape, booleans))


def bounded_root(tape: Tape, x: Value) -> Value:
    """A square root that keeps its argument; its gradient clips four times that and divides by its root."""
    tape.saved()
    keep: Storage | None = x.storage

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        clipped = tape.value(g.n, g.item)
        clipped = tape.value(g.n, g.item)
        root = tape.value(g.n, g.item)
        result = tape.value(g.n, g.item)
        del clipped, root
        return (result,)

    return tape.result(x.n, x.item, (x,), backward)


def _scan(build: Build, x: Value, gate: Value, r: GatedRecurrence) -> tuple[Value, Value]:
    """The recurrence, token by token: the state times the gate, and the input added."""
    tape, n = build.tape, build.batch * r.width
    state = tape.value(n, 4)
    output = tape.value(x.n, x.item)

    def step() -> None:
        nonlocal state, output
        state = multiply(tape, cast(tape, cut(tape, gate, n), 4), state)
        state = add(tape, state, cast(tape, cut(tape, x, n), 4))
        output = written(tape, output, cast(tape, state, x.item))

    repeat(tape, build.sequence, step)
    return output, state


def keep_graph(kept: list[object], value: Value) -> None:
    """Keep what the graph of a value holds: the module keeps its last state, and the graph that made it.

    A layer that runs again makes a graph of its own beside the one that runs backward, and that one is kept.
    """
    waiting = [] if value.node is None else [value.node]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            kept.append(node.backward)
            waiting.extend(edge[0] for edge in node.edges if edge is not None and isinstance(edge[0], Node))
