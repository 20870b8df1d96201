"""A number that explains itself: a tree of named terms whose sum is computed from the tree.

`--explain`, the JSON answers and the documentation all print the same tree, so the explanation
can't disagree with the figure.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


class Term(msgspec.Struct, frozen=True, omit_defaults=True):
    """One named amount, or the sum of its parts.

    name: what it is, for people (`attention`, `58 × mixture layer`).
    unit: `bytes`, `parameters`, `seconds`, `FLOP` …; the same in the whole tree.
    amount: the value of a leaf; None for a sum, and for an unknown (then `formula` says why).
    formula: how it came about, in words and symbols with the values filled in.
    source: paper, engine file and version, or header it rests on.
    """

    name: str
    unit: str = "bytes"
    amount: int | float | None = None
    formula: str = ""
    source: str = ""
    parts: tuple[Term, ...] = ()

    @property
    def value(self) -> int | float:
        """The amount of a leaf, or the sum over the parts. An unknown leaf raises ValueError."""
        if self.parts:
            return sum(part.value for part in self.parts)
        if self.amount is None:
            raise ValueError(f"{self.name} is unknown: {self.formula or 'no reason given'}")
        return self.amount

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Term]]:
        """Every term with its depth, parents first."""
        yield depth, self
        for part in self.parts:
            yield from part.walk(depth + 1)

    def find(self, name: str) -> Term | None:
        """The first term of that name, depth first."""
        return next((term for _, term in self.walk() if term.name == name), None)


def leaf(name: str, amount: float | None, formula: str = "", *, unit: str = "bytes", source: str = "") -> Term:
    """A term without parts."""
    return Term(name=name, unit=unit, amount=amount, formula=formula, source=source)


def total(name: str, parts: list[Term] | tuple[Term, ...], formula: str = "", *, source: str = "") -> Term:
    """The sum of terms of one unit; an empty sum is 0. Raises ValueError when units differ."""
    kept = tuple(parts)
    units = {part.unit for part in kept}
    if len(units) > 1:
        raise ValueError(f"{name}: cannot add {', '.join(sorted(units))}")
    unit = units.pop() if units else "bytes"
    return Term(name=name, unit=unit, amount=None if kept else 0, formula=formula, source=source, parts=kept)
