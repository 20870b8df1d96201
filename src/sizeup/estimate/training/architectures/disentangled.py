"""DeBERTa's attention: words are scored against words, words against distances, and distances against words.

Source: transformers 5.23, `deberta_v2/modeling_deberta_v2.py`. Always written out in Python. With q, k of every head
and r the table of 2 · span distances: scores = q · kᵀ + gather(q · r_kᵀ) + gather(k · r_qᵀ)ᵀ, each scaled.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.estimate.training.basic import add, cast, copy, dropout, heads, laid_by_heads, scale, whole_size
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.eager import chosen
from sizeup.estimate.training.scores import softmax
from sizeup.estimate.training.tape import Storage, Tape, Value

ID = 8


class Disentangled(msgspec.Struct, frozen=True):
    """span: distances on each side. bucketed: far ones share one. normed: the table is normed.

    shared: distances pass the words' projections. to_distance, to_word: whether words are scored against distances,
    and distances against words.
    """

    span: int
    bucketed: bool
    normed: bool
    shared: bool
    to_distance: bool
    to_word: bool


def pair_mask(build: Build, *, padding: bool) -> Value:
    """For every pair whether both are words: a product of the mask with itself."""
    return build.tape.value(build.tokens * build.sequence, ID if padding else 4)


def distances(build: Build, how: Disentangled) -> Value:
    """The distance of every pair, far ones in buckets on a logarithmic scale."""
    tape, pairs = build.tape, build.sequence * build.sequence
    found = tape.value(pairs, ID)
    if how.bucketed:
        far = tape.value(pairs, ID)
        tape.transient(4 * pairs, 4 * pairs)
        wide = tape.value(pairs, 4)
        found = tape.value(pairs, ID)
        del far, wide
    return found


def relative_table(build: Build, how: Disentangled, hidden: int) -> Value:
    """The embeddings of all distances."""
    table = build.weight("rel_embeddings", 2 * how.span * hidden, 2 * how.span, "embedding")
    return build.layer_norm("encoder.LayerNorm", table, hidden) if how.normed else table


def disentangled_attention(
    build: Build, how: Disentangled, x: Value, hidden: int, head_count: int, p: tuple[float, float],
    held: dict[str, Value],
) -> Value:  # fmt: skip
    """The attention's output before its projection. p: dropout of the weights, and of the table of distances."""
    tape, s = build.tape, build.sequence
    scores_n = build.batch * head_count * s * s
    q, k, v = (_by_heads(build, f"attention.self.{name}_proj", x, hidden) for name in ("query", "key", "value"))
    scores = bmm(tape, q, scale(tape, k), scores_n)
    relative = dropout(tape, held["relative"], p[1])
    bias = _distance_scores(build, how, q, k, relative, hidden, head_count)
    if bias is not None:
        scores = add(tape, scores, bias)
    seen = tape.value(held["mask"].n, 1)
    unseen = tape.value(held["mask"].n, 1)
    scores = chosen(tape, scores, unseen)
    del unseen
    weights = softmax(tape, cast(tape, scores, 4) if tape.autocast else scores)
    weights = dropout(tape, weights, p[0])
    output = copy(tape, bmm(tape, weights, v, x.n))
    del seen, bias, relative
    return output


def _by_heads(build: Build, name: str, x: Value, hidden: int) -> Value:
    """A projection copied head by head."""
    return laid_by_heads(build.tape, heads(build.tape, build.linear(name, x, hidden, hidden, bias=True)))


def _distance_scores(
    build: Build, how: Disentangled, q: Value, k: Value, relative: Value, hidden: int, head_count: int
) -> Value | None:
    """Words against distances, and distances against words; the second is added in place."""
    tape = build.tape
    names = ("query", "key") if how.shared else ("pos_query", "pos_key")
    wanted = (how.shared or how.to_word, how.shared or how.to_distance)
    order = (0, 1) if how.shared else (1, 0)
    tables: list[Value | None] = [None, None]
    for place in order:
        if wanted[place]:
            tables[place] = _repeated(build, f"attention.self.{names[place]}_proj", relative, hidden)
    pairs = build.sequence * build.sequence
    score: Value | None = None
    named = []
    for table, words, wide in ((tables[1], q, how.to_distance), (tables[0], k, how.to_word)):
        if table is None or not wide:
            continue
        places = tape.value(pairs, ID)
        part = bmm(tape, words, table, build.batch * head_count * build.sequence * 2 * how.span)
        named.append(_gathered(tape, part, build.batch * head_count * pairs, places.storage))
        part = scale(tape, named[-1])
        score = add(tape, part, Value(1, 2, None)) if score is None else _added(tape, score, part)
        del part
    return score


def _added(tape: Tape, score: Value, part: Value) -> Value:
    """A sum in place."""
    both = Value(score.n, score.item, score.storage)
    tape.record((score, part), (both,), lambda g: (g, g))
    return both


def _repeated(build: Build, name: str, relative: Value, hidden: int) -> Value:
    """The projected table, once for every sequence."""
    tape = build.tape
    once = _by_heads(build, name, relative, hidden)
    n = once.n
    return tape.result(n * build.batch, once.item, (once,), lambda g: (tape.value(n, g.item),))


def _gathered(tape: Tape, x: Value, n: int, places: Storage | None) -> Value:
    """`torch.gather`: it keeps what it takes from, and the places; the gradient is put into zeros."""
    tape.saved()
    back = whole_size(tape, x.n, x.item, x.storage)

    def backward(g: Value, _keep: object = places) -> Sequence[Value | None]:
        return back(g)

    return tape.result(n, x.item, (x,), backward)


def bmm(tape: Tape, a: Value, b: Value, n: int) -> Value:
    """`torch.bmm`: it keeps both."""
    if tape.autocast:
        a, b = cast(tape, a, tape.autocast), cast(tape, b, tape.autocast)
    tape.saved()
    keep = (a.storage if b.needs else None, b.storage if a.needs else None)
    sizes, wants, item = (a.n, b.n), (a.needs, b.needs), a.item

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return [tape.value(size, item) if want else None for size, want in zip(sizes, wants, strict=True)]

    return tape.result(n, item, (a, b), backward)
