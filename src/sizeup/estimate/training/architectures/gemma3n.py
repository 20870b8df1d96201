"""What Gemma 3n adds to Gemma 3: several residual streams (AltUp), a low-rank path (Laurel), sparse gates.

Every layer predicts all streams from all, computes one of them, and corrects all by how far that one was off. Layers
share keys and values and have embeddings of their own as in Gemma 4. Source: transformers 5.23,
`models/gemma3n/modeling_gemma3n.py`. Symbols: a streams of t tokens of width h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sizeup.estimate.training.architectures.gemma4 import with_embedding
from sizeup.estimate.training.architectures.streams import Streams
from sizeup.estimate.training.basic import add, cast, copy, cut, join, multiply, pointwise, scale, shift, whole_size
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.tape import Tape, Value, rounded

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer
    from sizeup.estimate.training.architectures.shape import DecoderShape


def widened(build: Build, shape: DecoderShape, streams: Streams, x: Value) -> tuple[Value, list[Value]]:
    """The embeddings as all streams, and what the model's function has names for until they are one again."""
    tape = build.tape
    size = magnitude(tape, x, shape.hidden)
    parts = [x]
    made = x
    for number in range(streams.count - 1):
        made = build.linear(f"altup_projections.{number}", x, shape.hidden, shape.hidden)
        parts.append(scaled_to(tape, cast(tape, made, x.item), size, shape.hidden))
    return join(tape, parts), [*parts, made]


def merged(build: Build, shape: DecoderShape, streams: Streams, x: Value) -> tuple[Value, list[Value]]:
    """All streams as one (each projected and brought to the first one's size, then their mean), and its parts."""
    tape, n = build.tape, x.n // streams.count
    size = magnitude(tape, cut(tape, x, n), shape.hidden)
    parts = [cut(tape, x, n)]
    for number in range(streams.count - 1):
        made = build.linear(f"altup_unembed_projections.{number}", cut(tape, x, n), shape.hidden, shape.hidden)
        parts.append(scaled_to(tape, cast(tape, made, x.item), size, shape.hidden))
    whole = join(tape, parts)
    return tape.result(n, whole.item, (whole,), whole_size(tape, whole.n, whole.item)), parts


def magnitude(tape: Tape, x: Value, width: int, *, clamped: bool = False) -> Value:
    """√(mean of x²) of each row; the square's gradient passes four tensors of x's size."""
    n, item, rows, label = x.n, x.item, x.n // width, tape.label
    tape.saved()
    tape.transient(n * item)
    keep = [x.storage, tape.value(rows, item).storage]
    keep += [tape.value(rows, item).storage] if clamped else []
    output = tape.value(rows, item)

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        large = rounded(n * item) + label
        tape.log.extend((large, large, large))
        result = tape.value(n, item)
        tape.log.extend((label + label - large,) * 3)
        return (result,)

    tape.record((x,), (output,), backward)
    return output


def scaled_to(tape: Tape, x: Value, size: Value, width: int) -> Value:
    """X · size / |x|, both by rows."""
    own = magnitude(tape, x, width, clamped=True)
    return divided(tape, multiply(tape, x, size), own)


def divided(tape: Tape, a: Value, b: Value) -> Value:
    """A / b: keeps both; b's gradient, -g · a / b / b, is made first and summed afterwards."""
    n, item = a.n, max(a.item, b.item)
    keep = (a.storage, b.storage)
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        once, twice, negative = (tape.value(n, item) for _ in range(3))
        of_divisor = tape.value(n, item)
        del once, twice, negative
        return tape.value(n, item), of_divisor

    return tape.result(n, item, (a, b), backward)


def gemma3n_order(layer: Layer, x: Value) -> Value:
    """Predict, compute one stream, correct; then the layer's own embedding is added to the other streams."""
    streams = layer.shape.streams
    if streams is None:
        raise ValueError("the shape has one stream")
    tape, n = layer.build.tape, x.n // streams.count
    predictions = predicted(layer, x, streams)
    active = cut(tape, predictions, n)
    normed = layer.norm("input_layernorm", active)
    beside = laurel(layer, normed, streams.rank)
    attended = layer.attention(normed)
    attended = layer.norm("post_attention_layernorm", attended)
    gated = add(tape, active, attended)
    both = scale(tape, add(tape, gated, beside))
    fed_from = layer.norm("pre_feedforward_layernorm", both)
    fed = layer.feed_forward(fed_from)
    fed_normed = layer.norm("post_feedforward_layernorm", fed)
    activated = add(tape, both, fed_normed)
    corrected = corrected_by(layer, predictions, activated, streams)
    first = copy(tape, cut(tape, corrected, n))
    if streams.scaled:
        first = multiply(tape, first, layer.build.weight("altup.correct_output_scale", layer.shape.hidden))
    if layer.slice is not None:
        first = with_embedding(layer, first, layer.slice)
    output = added_to_others(tape, corrected, first)
    del normed, attended, gated, fed_from, fed, fed_normed, activated
    return output


def modalities(layer: Layer, x: Value, ways: int) -> Value:
    """The a coefficients of each token: tanh of a projection of its norm, in fp32."""
    build, shape = layer.build, layer.shape
    normed = scale(build.tape, layer.norm("altup.router_norm", x))
    routed = build.linear("altup.modality_router", normed, shape.hidden, ways)
    return cast(build.tape, pointwise(build.tape, cast(build.tape, routed, 4), keeps_output=True), x.item)


def predicted(layer: Layer, x: Value, streams: Streams) -> Value:
    """X + x · (a × a coefficients of each token), added in place to a view of the product, then laid out as x."""
    tape, ways = layer.build.tape, streams.count
    found = modalities(layer, cut(tape, x, x.n // ways), ways)
    coefficients = layer.build.linear("altup.prediction_coefs", found, ways, ways * ways)
    made = mixed(tape, x, coefficients)
    total = Value(made.n, made.item, made.storage)
    n, item = made.n, made.item

    def backward(_g: Value) -> Sequence[Value | None]:
        return tape.value(n, item), tape.value(n, item)

    tape.record((made, x), (total,), backward)
    return cast(tape, copy(tape, total), x.item)


def mixed(tape: Tape, x: Value, coefficients: Value) -> Value:
    """A product for each token, under autocast of a 16-bit copy of all streams."""
    if tape.autocast:
        x, coefficients = cast(tape, x, tape.autocast), cast(tape, coefficients, tape.autocast)
    sizes, item = (x.n, coefficients.n), x.item
    keep, wants = (x.storage, coefficients.storage), (x.needs, coefficients.needs)
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        of_coefficients = tape.value(sizes[1], item) if wants[1] else None
        return tape.value(sizes[0], item) if wants[0] else None, of_coefficients

    return tape.result(x.n, item, (x, coefficients), backward)


def corrected_by(layer: Layer, predictions: Value, activated: Value, streams: Streams) -> Value:
    """Predictions + (activated - predicted) · coefficients; the difference is copied for every stream."""
    tape, n, ways = layer.build.tape, activated.n, streams.count
    found = modalities(layer, activated, ways)
    change = subtract(tape, activated, cut(tape, predictions, n))
    change = tape.result(ways * n, change.item, (change,), whole_size(tape, n, change.item))
    coefficients = shift(tape, correction(layer, found, streams))
    made = multiply(tape, change, coefficients)
    output = Value(made.n, made.item, made.storage)
    tape.record((made, predictions), (output,), lambda g: (g, g))
    return output


def correction(layer: Layer, found: Value, streams: Streams) -> Value:
    """The coefficients of the correction. The clamped weight is used itself, so that an adapter on it does nothing."""
    build, ways = layer.build, streams.count
    if not streams.clamped:
        return build.linear("altup.correction_coefs", found, ways, ways)
    build.unused_adapter("altup.correction_coefs", ways, ways)
    weight = build.weight("altup.correction_coefs", ways * ways, ways, "matrix")
    return linear(build.tape, found, pointwise(build.tape, weight), outputs=ways)


def subtract(tape: Tape, a: Value, b: Value) -> Value:
    """A - b: keeps nothing; b's gradient is a negated copy."""
    return tape.result(a.n, max(a.item, b.item), (a, b), lambda g: (g, tape.value(g.n, g.item)))


def laurel(layer: Layer, x: Value, rank: int) -> Value:
    """X + norm(right(left(x)))."""
    build, shape = layer.build, layer.shape
    low = build.linear("laurel.linear_left", x, shape.hidden, rank)
    high = build.linear("laurel.linear_right", low, rank, shape.hidden)
    return add(build.tape, x, layer.norm("laurel.post_laurel_norm", high))


def added_to_others(tape: Tape, streams: Value, x: Value) -> Value:
    """`streams[1:] += x`: added in place to a view, which is then copied onto itself (Python assigns it back).

    Each of both steps takes a new tensor for the gradient of all streams, and a copy of the view's.
    """
    n, item, part = streams.n, streams.item, streams.n - x.n

    def backward(_g: Value) -> Sequence[Value | None]:
        return tape.value(n, item), tape.value(part, item)

    def copied_back(_g: Value) -> Sequence[Value | None]:
        whole, own = tape.value(n, item), tape.value(part, item)
        tape.transient(part * item)
        return whole, own

    summed = Value(n, item, streams.storage)
    tape.record((streams, x), (summed,), backward)
    view = Value(part, item, streams.storage)
    tape.record((summed,), (view,), whole_size(tape, n, item))
    output = Value(n, item, streams.storage)
    tape.record((summed, view), (output,), copied_back)
    return output


def largest_only(tape: Tape, x: Value, width: int) -> Value:
    """relu(x - (mean + k · deviation)) of each row (`_gaussian_topk`): only the largest stay."""
    n, item, rows = x.n, x.item, x.n // width
    mean = tape.result(rows, item, (x,), whole_size(tape, n, item))
    deviation = _deviation(tape, x, rows)
    cutoff = add(tape, mean, scale(tape, deviation))
    return pointwise(tape, subtract(tape, x, cutoff), keeps_output=True)


def _deviation(tape: Tape, x: Value, rows: int) -> Value:
    n, item = x.n, x.item
    tape.saved()
    output = tape.value(rows, item)

    def backward(_g: Value, _keep: object = (x.storage, output.storage)) -> Sequence[Value | None]:
        centred = tape.value(n, item)
        result = tape.value(n, item)
        del centred
        return (result,)

    tape.record((x,), (output,), backward)
    return output
