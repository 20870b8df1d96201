"""MPNet's attention: scores with a bias for every distance, the same tensor for all layers; written out in Python."""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.architectures.relative_positions import position_bias
from sizeup.estimate.training.basic import add, cast, copy, dropout, scale, spread
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.scores import Heads, product, softmax
from sizeup.estimate.training.tape import Tape, Value


class Biased(msgspec.Struct, frozen=True):
    """buckets: rows of the table of distances."""

    buckets: int


def shared_bias(build: Build, how: Biased, head_count: int) -> Value:
    """The bias of every pair and head, copied for every sequence."""
    bias = position_bias(build, "relative_attention_bias", how.buckets, head_count, bidirectional=True)
    return spread(build.tape, bias, bias.n * build.batch)


def biased_attention(
    tape: Tape, q: Value, k: Value, v: Value, h: Heads, p: float, mask: Value | None, bias: Value
) -> Value:
    """The attention's output before its projection; the bias is added to the scores in place."""
    if tape.autocast:
        q, k, v = (cast(tape, x, tape.autocast) for x in (q, k, v))
    raw = scale(tape, product(tape, _batched(tape, q, h), _batched(tape, k, h), h.scores, h))
    scores = Value(raw.n, raw.item, raw.storage)
    tape.record((raw, bias), (scores,), lambda g: (g, g))
    del raw
    if mask is not None:
        scores = add(tape, scores, mask)
    weights = dropout(tape, softmax(tape, cast(tape, scores, 4) if tape.autocast else scores), p)
    weights = cast(tape, weights, v.item)
    output = product(tape, weights, _batched(tape, v, h), h.batch * h.queries * h.heads * h.value_dim, h)
    return copy(tape, output)


def _batched(tape: Tape, x: Value, h: Heads) -> Value:
    """Heads of several sequences are copied before they are multiplied; those of one can be seen as a batch."""
    return copy(tape, x) if h.batch > 1 else x
