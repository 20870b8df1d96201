"""A mixture of experts as transformers 5.23 computes it: routing, tokens sorted by expert, grouped products.

`integrations/moe.py`: the experts of a layer are one stacked weight. In bf16 on a device of compute capability 8.0 or
newer the products are `grouped_mm`; otherwise a loop over the experts with the same sizes in all.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.basic import add, cast, multiply, pointwise, split
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.tape import EXPERTS, Parameter, Tape, Value


class Mixture(msgspec.Struct, frozen=True, kw_only=True):
    """experts, of which each token uses `chosen`, each of inner width `width`.

    shared: inner width of what every token uses (0: nothing). shared_gate: whether that is weighed by a gate.
    scoring: `softmax` or `sigmoid` (with a correction bias that doesn't train). normalised: whether the chosen weights
    are divided by their sum.
    """

    experts: int
    chosen: int
    width: int
    shared: int = 0
    shared_gate: bool = False
    scoring: str = "softmax"
    normalised: bool = True
    gated: bool = True
    bias: bool = False


def mixture(build: Build, x: Value, hidden: int, m: Mixture, activation: str) -> Value:
    """The routed experts' weighted sum, and the shared expert beside it."""
    tape = build.tape
    before, tape.label = tape.label, EXPERTS
    weights, order = route(build, x, hidden, m)
    y = _routed(build, x, weights, order, hidden, m, activation)
    del weights, order
    if m.shared:
        y = add(tape, y, _shared(build, x, hidden, m, activation))
    tape.label = before
    return y


def route(build: Build, x: Value, hidden: int, m: Mixture) -> tuple[Value, Value]:
    """The weights of the chosen experts, and their numbers."""
    tape, tokens = build.tape, build.tokens
    logits = linear(tape, x, build.weight("mlp.gate", hidden * m.experts, m.experts, "matrix"))
    wide = cast(tape, logits, 4)
    scores = pointwise(tape, wide, keeps_output=True)
    del wide
    numbers = tape.value(tokens * m.chosen, 8)
    top = _picked(tape, scores, tokens * m.chosen, numbers)
    if m.normalised:
        top = _normalised(tape, top, tokens)
    return cast(tape, top, logits.item), numbers


def _picked(tape: Tape, scores: Value, n: int, numbers: Value) -> Value:
    """The largest scores of each token: the gradient is a whole matrix of zeros with theirs put in."""
    whole, item, keep = scores.n, scores.item, numbers.storage
    return tape.result(n, item, (scores,), lambda g, _keep=keep: (tape.value(whole, item),))


def _normalised(tape: Tape, top: Value, tokens: int) -> Value:
    """top / Σ top."""
    total = tape.result(tokens, top.item, (top,), lambda g: (g,))
    keep, n, item = (top.storage, total.storage), top.n, top.item

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return tape.value(n, item), tape.value(n, item)

    return tape.result(n, item, (top, total), backward)


def _routed(build: Build, x: Value, weights: Value, numbers: Value, hidden: int, m: Mixture, activation: str) -> Value:
    tape, pairs = build.tape, build.tokens * m.chosen
    sorted_numbers, order = tape.value(pairs, 8), tape.value(pairs, 8)
    picked = _gathered(tape, x, pairs * hidden, tape.value(pairs, 8))
    weight = _gathered(tape, weights, pairs, order)
    sides = 2 if m.gated else 1
    inner = build.weight("mlp.experts.gate_up_proj", m.experts * hidden * sides * m.width, sides * m.width, "experts", m.experts)
    y = _grouped(tape, picked, inner, pairs * sides * m.width)
    del picked
    if m.gated:
        gate, up = split(tape, y, (y.n // 2, y.n // 2))
        y = multiply(tape, activate(tape, gate, activation), up)
        del gate, up
    else:
        y = activate(tape, y, activation)
    outer = build.weight("mlp.experts.down_proj", m.experts * hidden * m.width, hidden, "experts", m.experts)
    y = _grouped(tape, y, outer, pairs * hidden)
    y = multiply(tape, y, weight)
    inverse = tape.value(pairs, 8)
    y = _gathered(tape, y, pairs * hidden, inverse)
    del sorted_numbers, order, weight, inverse, numbers
    output = tape.result(build.tokens * hidden, y.item, (y,), lambda g: (_spread(g, pairs * hidden),))
    return cast(tape, output, x.item)


def _spread(g: Value, n: int) -> Value:
    """The gradient of a sum: the same values seen n times."""
    view = Value(n, g.item, g.storage)
    view.view = view.strided = True
    return view


def _gathered(tape: Tape, x: Value, n: int, index: Value) -> Value:
    """x[index]: the gradient is zeros with the rows added in."""
    whole, item, keep = x.n, x.item, index.storage
    return tape.result(n, item, (x,), lambda g, _keep=keep: (tape.value(whole, item),))


def _grouped(tape: Tape, x: Value, weight: Parameter, n: int) -> Value:
    """A product of each expert's rows with its own matrix."""
    x = cast(tape, x, weight.item)
    keep, sizes, item = (x.storage if weight.needs else None,), (x.n, weight.n), weight.item
    wants = (x.needs, weight.needs)
    tape.saved()

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        of_weight = tape.value(sizes[1], item) if wants[1] else None
        of_input = tape.value(sizes[0], item) if wants[0] else None
        return of_input, of_weight

    return tape.result(n, item, (x, weight), backward)


def _shared(build: Build, x: Value, hidden: int, m: Mixture, activation: str) -> Value:
    tape = build.tape
    gate = build.linear("mlp.shared_experts.gate_proj", x, hidden, m.shared)
    up = build.linear("mlp.shared_experts.up_proj", x, hidden, m.shared)
    y = build.linear("mlp.shared_experts.down_proj", multiply(tape, activate(tape, gate, activation), up), m.shared, hidden)
    del gate, up
    if m.shared_gate:
        weight = build.linear("mlp.shared_expert_gate", x, hidden, 1)
        y = multiply(tape, pointwise(tape, weight, keeps_output=True), y)
    return y
