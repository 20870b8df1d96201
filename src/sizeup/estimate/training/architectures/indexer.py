"""The index of DeepSeek's sparse attention: which keys each query sees, chosen without gradients.

Source: transformers 5.23, `models/deepseek_v32/modeling_deepseek_v32.py`. The scores of every index head are whole
(4 bytes · batch · heads · s²), and with more than one sequence the keys are copied for each query before the product.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.basic import cast, join, pointwise, scale
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.tape import Value


class Index(msgspec.Struct, frozen=True):
    """heads of `head_dim`, of which `rope_dim` turns; each query sees the `chosen` best keys."""

    heads: int
    head_dim: int
    rope_dim: int
    chosen: int


def chosen_keys(
    build: Build,
    x: Value,
    low: Value,
    hidden: int,
    q_rank: int,
    index: Index,
    mask: Value,
    turn: Callable[[Value], Value],
) -> Value:
    """Numbers of the keys that each query sees. low: the compressed query."""
    tape, tokens, s = build.tape, build.tokens, build.sequence
    with build.without_gradients():
        wide = index.heads * index.head_dim
        straight_q = build.linear("indexer.wq_b", low, q_rank, wide)
        straight_k = build.linear("indexer.wk", x, hidden, index.head_dim)
        straight_k = build.layer_norm("indexer.k_norm", straight_k, index.head_dim)
        q, k = _turned(build, straight_q, index, turn), _turned(build, straight_k, index, turn)
        scores = pointwise(tape, _scores(build, q, k, index))
        weights = scale(tape, cast(tape, build.linear("indexer.weights_proj", x, hidden, index.heads, wide=True), 4))
        sums = tape.value(tokens * s, scores.item)
        if mask.item == 1:
            inverse = tape.value(tokens * s, 1)
            sums = tape.value(tokens * s, sums.item)
            del inverse
        else:
            sums = tape.value(tokens * s, max(sums.item, mask.item))
        n = tokens * min(index.chosen, s)
        best, numbers = tape.value(n, sums.item), tape.value(n, 8)
        del best
        found = tape.value(n, 4)
        del numbers, weights, straight_q, straight_k
        return found


def _scores(build: Build, q: Value, k: Value, index: Index) -> Value:
    """Every query head times every key, in fp32 (or as autocast casts it), scaled."""
    tape = build.tape
    q, k = cast(tape, q, 4), cast(tape, k, 4)
    if tape.autocast:
        q, k = cast(tape, q, tape.autocast), cast(tape, k, tape.autocast)
    copies = tape.value(build.tokens * build.sequence * index.head_dim, k.item) if build.batch > 1 else k
    scores = tape.value(build.tokens * index.heads * build.sequence, q.item)
    del q, k, copies
    return scale(tape, scores)


def _turned(build: Build, x: Value, index: Index, turn: Callable[[Value], Value]) -> Value:
    """The first part of each head turned, joined to the rest."""
    part = x.n // index.head_dim * index.rope_dim
    turned = turn(Value(part, x.item, x.storage))
    return join(build.tape, (turned, Value(x.n - part, x.item, x.storage)))


def sparse_mask(build: Build, mask: Value, chosen: Value) -> tuple[Value, Value]:
    """The mask of the keys that are seen, and the booleans that it is made of."""
    tape, n = build.tape, build.tokens * build.sequence
    ones = tape.value(n, 1)
    numbers = tape.value(chosen.n, 8)
    unseen = tape.value(n, 1)
    del ones, numbers
    if mask.item != 1:
        return tape.value(n, mask.item), unseen
    inverse = tape.value(n, 1)
    both = tape.value(n, 1)
    del inverse
    return both, unseen
