"""Doge's experts of one row each: a token weighs rows of two tables that are looked up, beside the dense half.

Source: transformers 5.23, `models/doge/modeling_doge.py` (`DogeCDMoE`). With e experts, ⌊√e⌋ keys a side and k chosen,
e scores and numbers a token are made, and 2 · k rows of the stream's width are kept for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures.experts import picked
from sizeup.estimate.training.basic import add, cast, multiply, pointwise
from sizeup.estimate.training.tape import EXPERTS, Tape, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


class RowExperts(msgspec.Struct, frozen=True):
    """experts, of which each token weighs `chosen`. normalised: the weights are divided by their sum."""

    experts: int
    chosen: int
    normalised: bool = False


def with_rows(layer: Layer, x: Value, rows: RowExperts) -> Value:
    """The dense half plus the weighed rows; everything on the way has a name until then."""
    build, h = layer.build, layer.shape.hidden
    tape, tokens = build.tape, build.tokens
    before, tape.label = tape.label, EXPERTS
    keys, pairs = isqrt(rows.experts), tokens * rows.chosen
    logits = build.linear("mlp.router_gate", x, h, 2 * keys)
    numbers = tape.value(2 * tokens * keys, 8)
    best = picked(tape, logits, 2 * tokens * keys, numbers)
    scores = _sums(tape, best, tokens * keys * keys)
    all_numbers = tape.value(tokens * keys * keys, 8)
    places = tape.value(pairs, 8)
    top = picked(tape, scores, pairs, places)
    chosen = tape.value(pairs, 8)
    weights = pointwise(tape, cast(tape, top, 4) if tape.autocast else top, keeps_output=True)
    down = build.embedding("mlp.down_embed", rows.experts, h, pairs)
    up = build.embedding("mlp.up_embed", rows.experts, h, pairs)
    weighed = _product(tape, down, x, pairs)
    weighed = multiply(tape, activate(tape, weighed, layer.shape.activation), weights)
    made = _product(tape, weighed, up, tokens * h)
    output = add(tape, layer.dense(x), made)
    tape.label = before
    del logits, numbers, best, scores, all_numbers, places, top, chosen, down, up
    return output


def _sums(tape: Tape, best: Value, n: int) -> Value:
    """Every score of one side plus every one of the other; gradients are summed to both."""
    small, item = best.n, best.item

    def backward(_g: Value) -> Sequence[Value | None]:
        return (tape.value(small, item),)

    return tape.result(n, item, (best,), backward)


def _product(tape: Tape, a: Value, b: Value, n: int) -> Value:
    """A product for each token; it keeps both factors."""
    if tape.autocast:
        a, b = cast(tape, a, tape.autocast), cast(tape, b, tape.autocast)
    keep, sizes, wants, item = (a.storage, b.storage), (a.n, b.n), (a.needs, b.needs), a.item
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        second = tape.value(sizes[1], item) if wants[1] else None
        return tape.value(sizes[0], item) if wants[0] else None, second

    return tape.result(n, item, (a, b), backward)
