"""Attention as models write it in Python: scores, their mask, softmax, product (transformers 5.23, `modeling_*.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import add, cast, copy, cut, dropout, join, multiply, pointwise, same_size, scale
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
    if way.wide:
        q, keys = cast(tape, q, 4), cast(tape, keys, 4)
    if tape.autocast:
        q, keys, values = (cast(tape, x, tape.autocast) for x in (q, keys, values))
    weights = _masked(tape, _scores(tape, q, keys, h, way, bias, names), way, mask)
    if way.lingers:
        names.append(weights)
    factor = sink_factor(tape, weights, h, sinks) if way.sinks_scale and sinks is not None else None
    weights = _probabilities(tape, weights, h, way, None if way.sinks_scale else sinks)
    if way.floored:
        weights = dropout(tape, weights, way.p)
    weights = cast(tape, weights, values.item)
    if not way.floored:
        weights = dropout(tape, weights, way.p)
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


def _masked(tape: Tape, weights: Value, way: Way, mask: Value | None) -> Value:
    """Scores with a least number where a token may not look."""
    if way.chosen:
        weights = chosen(tape, weights)
    if mask is not None:
        weights = chosen(tape, weights, mask) if way.filled else add(tape, weights, mask)
    return floored(tape, weights) if way.floored else weights


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


def _probabilities(tape: Tape, weights: Value, h: Heads, way: Way, sinks: Parameter | None) -> Value:
    """Softmax in fp32 where autocast or the model says; sinks are a column more that is cut off again."""
    if sinks is not None:
        weights = _with_sinks(tape, weights, h, sinks)
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
    """The trained column joined, less the largest of each row, whose gradient goes to one column of it."""
    column = h.scores // h.keys
    spread = Value(column, sinks.item, None)
    tape.record((sinks,), (spread,), lambda g: (tape.value(sinks.n, g.item),))
    whole = join(tape, (weights, spread))
    largest = tape.value(column, whole.item)
    numbers = tape.value(column, 8)
    keep = numbers.storage
    tape.record((whole,), (largest,), lambda g, _keep=keep: (tape.value(whole_n, g.item),))
    whole_n = whole.n
    del numbers

    def backward(g: Value) -> Sequence[Value | None]:
        return g, tape.value(column, g.item)

    return tape.result(whole.n, whole.item, (whole, largest), backward)
