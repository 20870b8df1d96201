"""Rotary positions: `q · cos + rotate_half(q) · sin`, with cos and sin made once for all layers.

Nothing of a layer is kept: cos and sin need no gradient, so products with them keep only them.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import add, cast, cut, join
from sizeup.estimate.training.tape import POSITIONS, Tape, Value, rounded


class Rotary:
    """The tables of one forward pass."""

    __slots__ = ("cos", "item", "sin")

    def __init__(self, tape: Tape, tokens: int, dim: int, item: int) -> None:
        """Make cos and sin of `tokens` positions; angles, cos and sin are computed in fp32."""
        before, tape.label = tape.label, POSITIONS
        angles = tape.value(tokens * dim // 2, 4)
        both = tape.value(tokens * dim, 4)
        cos = tape.value(tokens * dim, 4)
        tape.transient(4 * tokens * dim)
        sin = tape.value(tokens * dim, 4)
        tape.transient(4 * tokens * dim)
        self.item = item
        self.cos, self.sin = cast(tape, cos, item), cast(tape, sin, item)
        del angles, both
        tape.label = before

    @classmethod
    def of_axes(cls, tape: Tape, tokens: int, dim: int, item: int) -> Rotary:
        """Tables of positions with three axes, a row for each sequence's token: angles of each axis, then chosen."""
        before, tape.label = tape.label, POSITIONS
        tables = object.__new__(cls)
        angles = tape.value(3 * tokens * dim // 2, 4)
        both = []
        for _ in range(2):
            plain = tape.value(angles.n, 4)
            both.append(tape.value(angles.n, 4))
            del plain
        for place in (1, 0):
            chosen = tape.value(tokens * dim // 2, 4)
            both[place] = tape.value(tokens * dim, 4)
            del chosen
        tables.item = item
        tables.cos, tables.sin = (cast(tape, table, item) for table in both)
        del angles
        tape.label = before
        return tables

    def repeated(self, tape: Tape) -> Rotary:
        """Copies of the tables for one layer."""
        copies = object.__new__(Rotary)
        copies.item = self.item
        copies.cos, copies.sin = tape.value(self.cos.n, self.item), tape.value(self.sin.n, self.item)
        return copies


def rotate(tape: Tape, x: Value, rotary: Rotary) -> Value:
    """All of x turned by its position."""
    n, item, wide = x.n, x.item, max(x.item, rotary.item)
    small, part, big = n // 2 * item, n * item, n * wide
    label = tape.label

    def entry(size: int) -> int:
        return rounded(size) + label

    twice = label + label
    tape.saved()
    tape.log.extend((entry(big), entry(small), entry(part), twice - entry(small), entry(big), twice - entry(part)))

    keep = (rotary.cos.storage, rotary.sin.storage)

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return (_turned_back(tape, g.n, g.item, item),)

    output = tape.result(n, wide, (x,), backward)
    tape.log.extend((twice - entry(big), twice - entry(big)))
    output.strided = True
    return output


def _turned_back(tape: Tape, n: int, wide: int, item: int) -> Value:
    """Through the sine: a product, its negative half, two slices put into zeros and added; then through the cosine."""
    through_sine = tape.value(n, wide)
    if wide != item:
        through_sine = tape.value(n, item)
    tape.log.append(rounded(n // 2 * item) + tape.label)
    result = tape.value(n, item)
    tape.log.append(2 * tape.label - rounded(n // 2 * item) - tape.label)
    tape.transient(n * item)
    del through_sine
    if wide != item:
        product = tape.value(n, wide)
        tape.transient(n * item)
        del product
    else:
        tape.transient(n * item)
    result.strided = True
    return result


def rotate_halves(tape: Tape, x: Value, rotary: Rotary) -> Value:
    """Halves times cosines and sines of half a head each, taken apart and joined (GPT-OSS)."""
    first, second = cut(tape, x, x.n // 2), cut(tape, x, x.n // 2)
    parts = []
    for one, other in ((first, second), (second, first)):
        left, right = _times(tape, one, rotary.cos), _times(tape, other, rotary.sin)
        parts.append(add(tape, left, right))
        del left, right
    output = join(tape, parts)
    output.strided = True
    return output


def _times(tape: Tape, x: Value, table: Value) -> Value:
    """A product with a table that needs no gradient."""
    tape.saved()
    keep = table.storage

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return (tape.value(g.n, g.item),)

    return tape.result(x.n, max(x.item, table.item), (x,), backward)


def rotate_part(tape: Tape, x: Value, rotary: Rotary, part: int, whole: int) -> Value:
    """`part` of `whole` elements turned, the rest passed: two slices, joined again (also when nothing is left)."""
    turned = x.n * part // whole
    parts = [cut(tape, x, turned, strided=True), cut(tape, x, x.n - turned, strided=True)]
    parts[0] = rotate(tape, parts[0], rotary)
    output = join(tape, parts)
    output.headed = True
    return output
