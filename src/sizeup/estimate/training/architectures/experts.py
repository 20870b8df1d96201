"""A mixture of experts as transformers 5.23 computes it: routing, tokens sorted by expert, grouped products.

`integrations/moe.py`: the experts of a layer are one stacked weight. In bf16 on a device of compute capability 8.0 or
newer the products are `grouped_mm`; otherwise a loop over the experts with the same sizes in all.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.basic import add, cast, cut, multiply, pointwise, scale, shift, split, spread, whole_size
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.tape import ADAPTER, EXPERTS, Tape, Value

#: Names that peft reads as those of stacked experts, and then no longer as modules (dense layers, shared experts).
STACKED_NAMES = frozenset({"gate_proj", "up_proj", "down_proj"})


class Mixture(msgspec.Struct, frozen=True, kw_only=True):
    """experts, of which each token uses `chosen`, each of inner width `width`.

    shared: inner width of what every token uses (0: nothing). shared_gate: whether that is weighed by a gate. scoring:
    `softmax`, `sigmoid` (the product in fp32, a correction bias that doesn't train), `sigmoid after` (the product in
    the stream's type), `softmax wide` (all in fp32), `softmax in fp32`, `sigmoid in fp32` (so, with a weight kept in
    fp32 and no autocast), `softmax kept` (in fp32 to the end), `low sigmoid` (all in the stream's type), `softmax
    after` (over the chosen ones only; `softmax after, low` in the stream's type; `softmax after, cast` chosen in that
    type), `sigmoid last` (of the chosen ones; `sigmoid last, wide` with the product in fp32), `sigmoid of the chosen`
    (every expert computes every token). normalised: the chosen weights are divided by their sum. wide_sum: routed and
    shared are added in fp32. latent: width of the space that the routed ones work in. apart: autocast is off where
    experts are chosen. mean: their sum is halved. last_norm: and normed. passing: experts that only pass a token on.
    bias: router and experts have biases. clamped: gate and up are clamped, and their product is written out (GPT-OSS),
    as `halves` of a matrix that the shared expert has as well (MiniMax-M3). shared_fused: the shared expert's gate and
    up are one matrix. adapted: peft adapts the stacked weights.
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
    shared_first: bool = False
    shared_fused: bool = False
    clamped: bool = False
    halves: bool = False
    wide_sum: bool = False
    mean: bool = False
    apart: bool = False
    passing: int = 0
    last_norm: bool = False
    latent: int = 0
    adapted: bool = False


def mixture(build: Build, x: Value, hidden: int, m: Mixture, activation: str) -> Value:
    """The routed experts' weighted sum, and the shared expert beside it."""
    tape = build.tape
    before, tape.label = tape.label, EXPERTS
    if m.scoring == "sigmoid of the chosen":
        y = _by_all(build, x, hidden, m, activation)
        tape.label = before
        return y
    beside = _shared(build, x, hidden, m, activation) if m.shared and m.shared_first else None
    weights, order = route(build, x, hidden, m)
    y = _narrowed(build, x, weights, order, hidden, m, activation)
    del weights, order
    if m.shared:
        if beside is None:
            beside = _shared(build, x, hidden, m, activation)
        elif m.shared_gate:
            beside = _weighed(build, x, beside, hidden)
        if m.wide_sum:
            y, beside = cast(tape, y, 4), cast(tape, beside, 4)
        y = cast(tape, add(tape, y, beside), x.item)
    if m.mean:
        y = scale(tape, y)
    if m.last_norm:
        y = build.rms("mlp.post_mlp_layernorm", y, hidden)
    tape.label = before
    return y


def _narrowed(
    build: Build, x: Value, weights: Value, numbers: Value, hidden: int, m: Mixture, activation: str
) -> Value:
    """The routed experts, between projections into a narrower space where there are any (Nemotron-H)."""
    if not m.latent:
        return routed(build, x, weights, numbers, hidden, m, activation)
    x = build.linear("mlp.fc1_latent_proj", x, hidden, m.latent)
    y = routed(build, x, weights, numbers, m.latent, m, activation)
    return build.linear("mlp.fc2_latent_proj", y, m.latent, hidden)


def _by_all(build: Build, x: Value, hidden: int, m: Mixture, activation: str) -> Value:
    """Every expert computes every token, weighed by the sigmoid of its score, which is 0 where it isn't chosen."""
    tape, tokens = build.tape, build.tokens
    gate = build.weight("mlp.gate", hidden * m.experts, m.experts, "matrix")
    logits = linear(tape, x, gate)
    scores = cast(tape, pointwise(tape, cast(tape, scale(tape, logits), 4), keeps_output=True), logits.item)
    whole = spread(tape, x, tokens * m.experts * hidden)
    y = routed = multiply(tape, whole, spread(tape, scores, scores.n))
    del whole
    inner: Value = build.weight(
        "mlp.experts.gate_up_proj", 2 * m.experts * hidden * m.width, 2 * m.width, "experts", m.experts
    )
    outer: Value = build.weight("mlp.experts.down_proj", m.experts * hidden * m.width, hidden, "experts", m.experts)
    if tape.autocast:
        y, inner, outer = (cast(tape, value, tape.autocast) for value in (y, inner, outer))
    y = _by_expert(tape, y, inner, tokens * m.experts * 2 * m.width)
    one, other = split(tape, y, (y.n // 2, y.n // 2))
    y = multiply(tape, other, activate(tape, one, activation))
    y = _by_expert(tape, y, outer, tokens * m.experts * hidden)
    beside = _shared(build, x, hidden, m, activation)
    total = _sum_of_all(tape, y, tokens * hidden)
    del routed, y
    output = Value(beside.n, beside.item, beside.storage)
    tape.record((beside, total), (output,), lambda g: (g, g))
    return output


def _sum_of_all(tape: Tape, y: Value, n: int) -> Value:
    """The sum over experts, which autocast makes in fp32; the gradient is copied for each."""
    return tape.result(n, 4 if tape.autocast else y.item, (y,), whole_size(tape, y.n, y.item))


def route(build: Build, x: Value, hidden: int, m: Mixture) -> tuple[Value, Value]:
    """The weights of the chosen experts, and their numbers."""
    tape, tokens, stream = build.tape, build.tokens, x.item
    item = 4 if m.scoring.endswith("in fp32") else 0
    routes = m.experts + m.passing
    gate: Value = build.weight("mlp.gate", hidden * routes, routes, "matrix", item=item)
    if _adapts(build, m):
        gate = _changed(tape, gate, *_factors(build, "mlp.gate", gate, hidden, 1, 1))
    if m.scoring in {"sigmoid", "softmax wide", "softmax in fp32", "sigmoid in fp32", "sigmoid last, wide"}:
        x, gate = cast(tape, x, 4), cast(tape, gate, 4)
    offset = build.weight("mlp.router.bias", m.experts) if m.bias else None
    autocast, tape.autocast = tape.autocast, 0 if m.apart else tape.autocast
    logits = linear(tape, x, gate, offset, outputs=routes)
    tape.autocast = autocast
    last = m.scoring.startswith(("softmax after", "sigmoid last"))
    low = m.scoring == "low sigmoid" or (last and m.scoring != "softmax after")
    wide = logits if low else cast(tape, logits, 4)
    scores = wide if last else pointwise(tape, wide, keeps_output=True)
    del wide
    numbers = tape.value(tokens * m.chosen, 8)
    top = picked(tape, scores, tokens * m.chosen, numbers)
    if last:
        top = pointwise(tape, cast(tape, top, 4) if m.scoring == "softmax after, cast" else top, keeps_output=True)
    if m.normalised:
        top = _normalised(tape, top, tokens)
    if m.scoring in {"softmax after, cast", "sigmoid last", "softmax wide"}:
        return cast(tape, top, stream), numbers
    kept = m.scoring.startswith("sigmoid") or m.scoring == "softmax kept"
    return (top if kept else cast(tape, top, logits.item)), numbers


def picked(tape: Tape, scores: Value, n: int, numbers: Value) -> Value:
    """The largest scores of each token: the gradient is a whole matrix of zeros with theirs put in."""
    return tape.result(n, scores.item, (scores,), whole_size(tape, scores.n, scores.item, numbers.storage))


def _normalised(tape: Tape, top: Value, tokens: int) -> Value:
    """Top / Σ top."""
    total = tape.result(tokens, top.item, (top,), lambda g: (g,))
    keep, n, item = (top.storage, total.storage), top.n, top.item

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return tape.value(n, item), tape.value(n, item)

    return tape.result(n, item, (top, total), backward)


def routed(build: Build, x: Value, weights: Value, numbers: Value, hidden: int, m: Mixture, activation: str) -> Value:
    """The chosen experts' weighted sum for each token."""
    tape, pairs = build.tape, build.tokens * m.chosen
    sorted_numbers, order = tape.value(pairs, 8), tape.value(pairs, 8)
    picked = _gathered(tape, x, pairs * hidden, tape.value(pairs, 8))
    weight = _gathered(tape, weights, pairs, order)
    sides, every = 2 if m.gated else 1, m.experts + m.passing
    inner: Value = build.weight(
        "mlp.experts.gate_up_proj", every * hidden * sides * m.width, sides * m.width, "experts", every
    )
    outer: Value = build.weight("mlp.experts.down_proj", m.experts * hidden * m.width, hidden, "experts", m.experts)
    factors = None
    if _adapts(build, m):
        factors = (
            _factors(build, "mlp.experts.down_proj", outer, m.width, m.experts, 1),
            _factors(build, "mlp.experts.gate_up_proj", inner, hidden, m.experts, sides),
        )
        inner = _changed(tape, inner, *factors[1])
    across = sides * m.width
    biases = _biases(build, m, "mlp.experts.gate_up_proj_bias", across, pairs, sorted_numbers)
    y = _offset(tape, _grouped(tape, picked, inner, pairs * across), biases)
    if m.clamped:
        y = clamped_gate(tape, y, halves=m.halves)
    elif m.gated:
        gate, up = split(tape, y, (y.n // 2, y.n // 2))
        y = multiply(tape, activate(tape, gate, activation), up)
        del gate, up
    else:
        y = activate(tape, y, activation)
    if factors is not None:
        outer = _changed(tape, outer, *factors[0])
    biases = _biases(build, m, "mlp.experts.down_proj_bias", hidden, pairs, sorted_numbers)
    y = _grouped(tape, y, outer, pairs * hidden)
    y = _offset(tape, y, biases)
    y = multiply(tape, y, weight)
    inverse = tape.value(pairs, 8)
    y = _gathered(tape, y, pairs * hidden, inverse)
    del sorted_numbers, order, weight, inverse, numbers, picked
    output = tape.result(build.tokens * hidden, y.item, (y,), lambda g: (tape.value(pairs * hidden, g.item),))
    return cast(tape, output, x.item)


def _biases(build: Build, m: Mixture, name: str, across: int, pairs: int, numbers: Value) -> Value | None:
    """The biases of each pair's expert, picked before the product and kept under a name."""
    if not m.bias:
        return None
    n = m.experts * across
    return _gathered(build.tape, build.weight(name, n, n, "matrix"), pairs * across, numbers)


def _offset(tape: Tape, y: Value, biases: Value | None) -> Value:
    """The biases added in place."""
    if biases is None:
        return y
    output = Value(y.n, y.item, y.storage)
    tape.record((y, biases), (output,), lambda g: (g, g))
    return output


def clamped_gate(tape: Tape, y: Value, *, halves: bool) -> Value:
    """(up + 1) · gate · sigmoid(α · gate) of clamped halves; without `halves` they lie in turns."""
    n = y.n // 2
    first, second = split(tape, y, (n, n)) if halves else (cut(tape, y, n), cut(tape, y, n))
    gate, up = pointwise(tape, first), pointwise(tape, second)
    glu = multiply(tape, gate, pointwise(tape, scale(tape, gate), keeps_output=True))
    return multiply(tape, shift(tape, up), glu)


def _gathered(tape: Tape, x: Value, n: int, index: Value) -> Value:
    """x[index]: the gradient is zeros with the rows added in."""
    tape.saved()
    return tape.result(n, x.item, (x,), whole_size(tape, x.n, x.item, index.storage))


def _grouped(tape: Tape, x: Value, weight: Value, n: int) -> Value:
    """A product of each expert's rows with its own matrix.

    In fp32 it is a loop behind one operation (`grouped_mm_fallback`), which keeps both factors and makes both gradients
    even where a factor is frozen; torch's own loop for devices of capability 8.0 (from 2.10) keeps what it needs.
    """
    x = cast(tape, x, weight.item)
    return _by_expert(tape, x, weight, n, whole=weight.item == 4 and x.needs)


def _by_expert(tape: Tape, x: Value, weight: Value, n: int, *, whole: bool = False) -> Value:
    """The product. whole: both factors are kept and get a gradient, whether anything wants it or not."""
    wants = (x.needs or whole, weight.needs or whole)
    keep = (x.storage if wants[1] else None, weight.storage if wants[0] else None)
    sizes, item = (x.n, weight.n), weight.item
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        of_weight = tape.value(sizes[1], item) if wants[1] else None
        of_input = tape.value(sizes[0], item) if wants[0] else None
        return of_input, of_weight

    return tape.product(n, item, (x, weight), backward)


def _adapts(build: Build, m: Mixture) -> bool:
    """Whether peft adapts the stacked experts: for all linear modules, in the families it knows."""
    return m.adapted and build.method.rank > 0 and not build.method.targets


def _shared(build: Build, x: Value, hidden: int, m: Mixture, activation: str) -> Value:
    tape = build.tape
    if m.shared_fused:
        both = build.linear("shared_mlp.input_linear", x, hidden, 2 * m.shared)
        gate, up = split(tape, both, (both.n // 2, both.n // 2))
        y = multiply(tape, activate(tape, gate, activation), up)
        return build.linear("shared_mlp.output_linear", y, m.shared, hidden)
    if not m.gated:
        y = activate(tape, build.linear("mlp.shared_experts.up_proj", x, hidden, m.shared), activation)
        return build.linear("mlp.shared_experts.down_proj", y, m.shared, hidden)
    if m.clamped:
        both = build.linear("mlp.shared_experts.gate_up_proj", x, hidden, 2 * m.shared)
        return build.linear("mlp.shared_experts.down_proj", clamped_gate(tape, both, halves=True), m.shared, hidden)
    gate = activate(tape, build.linear("mlp.shared_experts.gate_proj", x, hidden, m.shared), activation)
    y = multiply(tape, gate, build.linear("mlp.shared_experts.up_proj", x, hidden, m.shared))
    del gate
    return build.linear("mlp.shared_experts.down_proj", y, m.shared, hidden)


def _weighed(build: Build, x: Value, y: Value, hidden: int) -> Value:
    """The shared expert times the sigmoid of its gate."""
    gate = build.linear("mlp.shared_expert_gate", x, hidden, 1)
    return multiply(build.tape, pointwise(build.tape, gate, keeps_output=True), y)


def _factors(build: Build, name: str, weight: Value, inputs: int, copies: int, ranks: int) -> tuple[Value, Value]:
    """A and B of every expert in the weight's type, made when the module is entered.

    peft 0.21, `lora/layer.py` (`ParamWrapper`) adapts stacked experts by making the changed weight itself: once when
    the module is entered and again where it is used, kept for the gradient of its input. Fused gate and up projections
    get twice the rank (`transformers_weight_conversion.py`).
    """
    tape = build.tape
    rank = build.method.rank * ranks
    outputs = weight.n // inputs // copies
    down = build.adapter_half(f"{name}.lora_A", copies * rank * inputs, copies * rank)
    up = build.adapter_half(f"{name}.lora_B", outputs * copies * rank, outputs)
    before, tape.label = tape.label, ADAPTER
    factors = cast(tape, down, weight.item), cast(tape, up, weight.item)
    tape.transient(weight.n * weight.item)
    tape.label = before
    return factors


def _changed(tape: Tape, weight: Value, a: Value, b: Value) -> Value:
    """W + B · A."""
    before, tape.label = tape.label, ADAPTER
    keep, sizes = (a.storage, b.storage), (a.n, b.n)

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return [tape.value(n, g.item) for n in sizes]

    changed = tape.result(weight.n, weight.item, (a, b), backward)
    tape.saved()
    tape.label = before
    return changed
