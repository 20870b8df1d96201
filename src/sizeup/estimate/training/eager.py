"""Attention as models write it in Python: scores, their mask, softmax, product (transformers 5.23, `modeling_*.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import (
    add,
    cast,
    copy,
    cut,
    dropout,
    join,
    multiply,
    pointwise,
    same_size,
    scale,
    scale_in_place,
    shift,
    whole_size,
)
from sizeup.estimate.training.scores import Heads, Way, product, softmax, spread_heads
from sizeup.estimate.training.tape import Parameter, Tape, Value


def eager(
    tape: Tape, q: Value, k: Value, v: Value, h: Heads, way: Way, mask: Value | None, bias: Value | None,
    sinks: Parameter | None, names: list[Value],
) -> Value:  # fmt: skip
    """`eager_attention_forward`: repeated heads, scores, cap, mask, softmax, dropout, product, a copy to rows."""
    keys, values = spread_heads(tape, k, h), spread_heads(tape, v, h)
    if way.copied and h.batch > 1:
        q, keys = copy(tape, q), keys if way.broadcast else copy(tape, keys)
    if way.wide or way.in_fp32:
        q, keys = cast(tape, q, 4), cast(tape, keys, 4)
    if tape.autocast and not way.in_fp32:
        q, keys, values = (cast(tape, x, tape.autocast) for x in (q, keys, values))
    if way.raised:
        weights = _raised(tape, product(tape, q, keys, h.scores, h), q.item, names)
    else:
        weights = _masked(tape, _scores(tape, q, keys, h, way, bias, names), h, way, mask)
    if way.lingers:
        names.append(weights)
    factor = sink_factor(tape, weights, h, sinks) if way.sinks_scale and sinks is not None else None
    if not way.raised:
        logits: list[Value] = []
        weights = _probabilities(tape, weights, h, way, None if way.sinks_scale else sinks, logits)
    if way.cast_late:
        weights = dropout(tape, weights, way.p)
    weights = cast(tape, weights, values.item)
    if not way.cast_late:
        weights = dropout(tape, weights, way.p)
    if way.lingers == "weights":
        names.append(weights)
    n = h.batch * h.queries * h.heads * h.value_dim
    output = product(tape, weights, values, n, h, as_it_is=sinks is not None and factor is None)
    if factor is not None:
        output = multiply(tape, output, cast(tape, factor, output.item))
    return copy(tape, output) if way.contiguous else output


def _scores(tape: Tape, q: Value, keys: Value, h: Heads, way: Way, bias: Value | None, names: list[Value]) -> Value:
    """Queries times keys, scaled, capped, with their bias."""
    weights = product(tape, q, keys, h.scores, h)
    if way.lingers == "all":
        names.append(weights)
    if way.added:
        return weights
    if way.scaled:
        weights = scale(tape, weights)
    if way.softcap:
        weights = scale(tape, pointwise(tape, scale(tape, weights), keeps_output=True))
    return weights if bias is None else add(tape, weights, bias)


def _masked(tape: Tape, weights: Value, h: Heads, way: Way, mask: Value | None) -> Value:
    """Scores with a least number where a token may not look."""
    if way.chosen:
        weights = chosen(tape, weights)
    if way.triangle:
        weights = under_triangle(tape, weights, h)
    if mask is not None:
        weights = chosen(tape, weights, mask) if way.filled else add(tape, weights, mask)
    return floored(tape, weights) if way.floored else weights


def under_triangle(tape: Tape, x: Value, h: Heads) -> Value:
    """X · b + c · (1 - b) with b a part of a buffer in the weights' type."""
    n, square = x.n, h.queries * h.keys
    item = 4 if tape.autocast else x.item
    tape.saved()
    product = tape.result(n, item, (x,), whole_size(tape, n, item))
    less = tape.value(square, item)
    least = tape.value(square, item)
    del less
    return add(tape, product, least)


def _raised(tape: Tape, scores: Value, item: int, names: list[Value]) -> Value:
    """softmax(number · (scores in fp32 + bias) + mask), the softmax in the stream's type."""
    names.append(scores)
    wide = cast(tape, scores, 4)
    names.append(wide)
    logits = shift(tape, wide)
    names.append(logits)
    masked = shift(tape, scale_in_place(tape, logits))
    found = softmax(tape, cast(tape, masked, 4 if tape.autocast else item))
    del masked
    return found


def floored(tape: Tape, x: Value) -> Value:
    """`torch.max(x, least)`: where both are equal each gets half of the gradient."""
    tape.saved()
    keep, n = x.storage, x.n

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        half, equal = tape.value(n, g.item), tape.value(n, 1)
        shared, less = tape.value(n, g.item), tape.value(n, 1)
        del half, equal
        result = tape.value(n, g.item)
        del shared, less
        return (result,)

    return tape.result(n, x.item, (x,), backward)


def chosen(tape: Tape, x: Value, mask: Value | None = None) -> Value:
    """`torch.where` or `masked_fill` by booleans that are there anyway: the gradient is chosen likewise."""
    return tape.result(x.n, x.item, (x,), same_size(tape, None if mask is None else mask.storage))


def _probabilities(
    tape: Tape, weights: Value, h: Heads, way: Way, sinks: Parameter | None, logits: list[Value]
) -> Value:
    """Softmax in fp32 where autocast or the model says; sinks are a column more that is cut off again.

    logits: takes the scores that have a name until the attention's function returns.
    """
    if sinks is not None:
        weights = _with_sinks(tape, weights, h, sinks)
    if way.less_largest:
        weights = _less_largest(tape, weights, h)
        logits.append(weights)
    if tape.autocast or way.softmax_in_fp32:
        weights = cast(tape, weights, 4)
    weights = softmax(tape, weights)
    return weights if sinks is None else cut(tape, weights, h.scores)


def sink_factor(tape: Tape, weights: Value, h: Heads, sinks: Parameter) -> Value:
    """sigmoid(logsumexp(scores) - sink) of each row and head, in fp32."""
    n, rows, item = weights.n, h.scores // h.keys, weights.item
    tape.transient(n * item)
    tape.saved()
    sums = tape.value(rows, item)
    keep = (weights.storage, sums.storage)

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        less, raised = tape.value(n, item), tape.value(n, item)
        result = tape.value(n, g.item)
        del less, raised
        return (result,)

    tape.record((weights,), (sums,), backward)
    spread = Value(rows, sinks.item, None)
    tape.record((sinks,), (spread,), lambda _g: (tape.value(sinks.n, sinks.item),))
    return pointwise(tape, cast(tape, add(tape, sums, spread), 4), keeps_output=True)


def _with_sinks(tape: Tape, weights: Value, h: Heads, sinks: Parameter) -> Value:
    """The trained column joined."""
    spread = Value(h.scores // h.keys, sinks.item, None)
    tape.record((sinks,), (spread,), lambda g: (tape.value(sinks.n, g.item),))
    return join(tape, (weights, spread))


def _less_largest(tape: Tape, whole: Value, h: Heads) -> Value:
    """Scores less the largest of each row, whose gradient goes to one column of them."""
    column, n, item = h.scores // h.keys, whole.n, whole.item
    largest = tape.value(column, item)
    numbers = tape.value(column, 8)
    keep = numbers.storage
    tape.record((whole,), (largest,), lambda g, _keep=keep: (tape.value(n, g.item),))
    del numbers

    def backward(g: Value) -> Sequence[Value | None]:
        return g, tape.value(column, g.item)

    return tape.result(n, item, (whole, largest), backward)
