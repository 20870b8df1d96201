"""Mamba 2's scan, chunk by chunk, as transformers writes it out in Python (5.23, `mamba2_chunk_scan`).

Inside a chunk of q tokens every pair has a score: H · q for each token, in fp32, of the decay, of the product of C and
B, and of both. Between chunks lies a state of heads · head_dim · n. The sequence is padded to whole chunks. What an
einsum copies depends on whether there are several sequences and chunks: a dimension of one element can always be seen
as part of its neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.estimate.training.architectures.reordered import contracted, seen
from sizeup.estimate.training.architectures.sums import padded, running_sum, segment_sum
from sizeup.estimate.training.basic import add, cast, copy, cut, join, multiply, pointwise, spread
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.tape import Tape, Value


class Chunks(msgspec.Struct, frozen=True):
    """Sizes of one scan: `count` chunks of `length` tokens in each of `batch` sequences.

    heads of head_dim channels, each with a state of `state` elements.
    """

    batch: int
    count: int
    length: int
    heads: int
    head_dim: int
    state: int

    @property
    def tokens(self) -> int:
        """Tokens of all chunks."""
        return self.batch * self.count * self.length

    @property
    def width(self) -> int:
        """Channels of all heads."""
        return self.heads * self.head_dim

    @property
    def apart(self) -> bool:
        """Whether a sequence has several chunks."""
        return self.count > 1

    @property
    def several(self) -> bool:
        """Whether there are several chunks in all."""
        return self.batch * self.count > 1


def chunk_scan(build: Build, x: Value, dt: Value, a: Value, b: Value, c: Value, k: Chunks) -> Value:
    """The scan's output in fp32. x: the channels; dt: a step for each head; a: a decay for each head; b and c: groups.

    Everything has a name in one function, and lives until it returns.
    """
    tape, tokens = build.tape, build.tokens
    dt = add(tape, dt, cast(tape, build.weight("dt_bias", k.heads), dt.item))
    dt = clamped(tape, softplus(tape, dt))
    x = cast(tape, x, 4)
    b = repeated(tape, cast(tape, b, 4), tokens * k.heads * k.state)
    c = repeated(tape, cast(tape, c, 4), tokens * k.heads * k.state)
    skipped = multiply(tape, build.weight("D", k.heads), padded(tape, x, k.tokens * k.width))
    x = multiply(tape, x, cast(tape, dt, 4))
    a = multiply(tape, a, cast(tape, dt, 4))
    x, a, b, c = (
        seen(tape, padded(tape, part, part.n // tokens * k.tokens), copied_back=k.apart and part is not a)
        for part in (x, a, b, c)
    )
    sums = running_sum(tape, a)
    names: list[Value] = []
    inside = _inside(tape, x, a, b, c, k, names)
    states = _states(tape, x, sums, b, k, names)
    decay = exponential(tape, sums)
    carried = contracted(tape, c, states, k.tokens * k.width, copies=(k.several, k.apart), gradient_copied=k.several)
    between = multiply(tape, carried, decay)
    output = copy(tape, add(tape, inside, between))
    output = add(tape, output, skipped)
    return cut(tape, output, tokens * k.width) if tokens < k.tokens else output


def _inside(tape: Tape, x: Value, a: Value, b: Value, c: Value, k: Chunks, names: list[Value]) -> Value:
    """What tokens of a chunk give each other: (C · B of every pair, times the decay between them) · x."""
    square = k.tokens * k.heads * k.length
    decay = exponential(tape, segment_sum(tape, a, k.length))
    scores = contracted(tape, c, b, square, copies=(k.several, k.several))
    both = multiply(tape, scores, decay)
    names += [decay, scores, both]
    return contracted(tape, both, x, k.tokens * k.width, copies=(False, k.apart), gradient_copied=k.several)


def _states(tape: Tape, x: Value, sums: Value, b: Value, k: Chunks, names: list[Value]) -> Value:
    """The state at the start of each chunk: each chunk's own, and what is left of it in later ones."""
    each, ends = k.batch * k.width * k.state, k.batch * k.count * k.heads
    decay = exponential(tape, difference(tape, cut(tape, sums, ends), sums))
    decayed = multiply(tape, b, decay)
    states = contracted(tape, x, decayed, k.count * each, copies=(k.apart, k.several), gradient_copied=k.apart)
    before = tape.value(each, states.item)
    states = join(tape, (before, states))
    ends_padded = k.batch * (k.count + 1) * k.heads
    fading = exponential(tape, segment_sum(tape, padded(tape, cut(tape, sums, ends), ends_padded), k.count + 1))
    many = k.batch > 1
    later = contracted(tape, fading, states, (k.count + 1) * each, copies=(False, many), gradient_copied=many)
    names += [decay, decayed, before, fading, later]
    return cut(tape, later, k.count * each)


def exponential(tape: Tape, x: Value) -> Value:
    """`exp`, which keeps its result."""
    return pointwise(tape, x, keeps_output=True)


def softplus(tape: Tape, x: Value) -> Value:
    """`softplus`; autocast computes it in fp32."""
    return pointwise(tape, cast(tape, x, 4) if tape.autocast else x)


def clamped(tape: Tape, x: Value) -> Value:
    """`clamp` on both sides: the gradient is chosen where x is within."""
    tape.saved()
    keep, n = x.storage, x.n

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        names = [tape.value(1, g.item), tape.value(n, 1), tape.value(n, 1)]
        result = tape.value(n, g.item)
        names.clear()
        return (result,)

    return tape.result(n, x.item, (x,), backward)


def difference(tape: Tape, a: Value, b: Value) -> Value:
    """A - b: the gradient of b is a new tensor."""
    return tape.result(b.n, b.item, (a, b), lambda g: (g, tape.value(g.n, g.item)))


def repeated(tape: Tape, x: Value, n: int) -> Value:
    """`repeat_interleave` of groups to n elements: a copy in any case."""
    return copy(tape, x) if x.n == n else spread(tape, x, n)
