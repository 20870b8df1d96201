"""T5's relative positions: the distance of every pair of tokens in buckets, and a bias of the scores for each."""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.build import Build
from sizeup.estimate.training.tape import Tape, Value

ID = 8


def position_bias(build: Build, name: str, buckets: int, heads: int, *, bidirectional: bool) -> Value:
    """The table of biases looked up for every pair (`compute_bias`); seen head by head, it is copied for use."""
    tape = build.tape
    pairs = build.sequence * build.sequence
    table = build.weight(name, buckets * heads, buckets, "embedding")
    distances = tape.value(pairs, ID)
    places = _buckets(tape, pairs, bidirectional=bidirectional)
    size, item, keep = table.n, table.item, places.storage

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        whole = tape.value(size, item)
        tape.transient(*[ID * pairs] * 5)
        return (whole,)

    made = tape.result(pairs * heads, item, (table,), backward)
    made.strided = True
    del distances
    return made


def _buckets(tape: Tape, pairs: int, *, bidirectional: bool) -> Value:
    """`_relative_position_bucket`: small distances one by one, larger ones on a logarithmic scale; all by name."""
    found = None
    if bidirectional:
        later = tape.value(pairs, 1)
        later = tape.value(pairs, ID)
        later = tape.value(pairs, ID)
        found = tape.value(pairs, ID)
        del later
        distance = tape.value(pairs, ID)
    else:
        zeros = tape.value(pairs, ID)
        least = tape.value(pairs, ID)
        del zeros
        distance = tape.value(pairs, ID)
        del least
    small = tape.value(pairs, 1)
    large = _logarithmic(tape, pairs)
    chosen = tape.value(pairs, ID)
    if found is None:
        found = tape.value(pairs, ID)
    del chosen, distance, small, large
    return found


def _logarithmic(tape: Tape, pairs: int) -> Value:
    """Buckets of large distances: six operations in fp32, back to integers, at most the last one."""
    wide = tape.value(pairs, 4)
    for _ in range(4):
        wide = tape.value(pairs, 4)
    whole = tape.value(pairs, ID)
    del wide
    whole = tape.value(pairs, ID)
    last = tape.value(pairs, ID)
    large = tape.value(pairs, ID)
    del whole, last
    return large
