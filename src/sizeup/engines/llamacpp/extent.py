"""Sizes that are left open: one graph for every batch and cache that make the same graph.

An `Extent` stands in for an integer while a graph is built. It carries its value in the case at hand, and the result of
the same arithmetic at another point, so far out that the coefficients of its polynomial in the open sizes can be read
off as digits (Kronecker's substitution). What is decided by its value is noted: the graph is the same wherever the same
is so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

#: Bits of a coefficient, its sign among them. An open size occurs at most squared.
_BITS, _POWERS = 96, 3
_BASE, _HALF = 1 << _BITS, 1 << (_BITS - 1)

#: (coefficient, numbers of the open sizes that it is multiplied by), …
Polynomial = tuple[tuple[int, tuple[int, ...]], ...]


class Irregular(Exception):
    """A result that is no polynomial with integer coefficients, such as a rounded quotient."""


class Case:
    """The open sizes' values in the case at hand, and the forms of differences that were found positive, or zero.

    granted: differences that are positive in every case.
    """

    def __init__(self, values: tuple[int, ...]) -> None:
        self.values = values
        self.granted: set[int] = set()
        self.positive: set[int] = set()
        self.zero: set[int] = set()

    def open(self, number: int, factor: int) -> Any:
        """`factor` times that open size. Type checkers see an integer: builders needn't know the difference."""
        return Extent(self, factor * self.values[number], factor << _BITS * _POWERS**number)


class Extent:
    """A polynomial in the open sizes: its value in the case at hand, and its form, whose digits are coefficients."""

    __slots__ = ("case", "form", "value")

    def __init__(self, case: Case, value: int, form: int) -> None:
        self.case, self.value, self.form = case, value, form

    def __add__(self, other: Any) -> Extent:
        value, form = _both(other)
        return Extent(self.case, self.value + value, self.form + form)

    def __sub__(self, other: Any) -> Extent:
        value, form = _both(other)
        return Extent(self.case, self.value - value, self.form - form)

    def __mul__(self, other: Any) -> Extent:
        value, form = _both(other)
        return Extent(self.case, self.value * value, self.form * form)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Extent:
        return Extent(self.case, -self.value, -self.form)

    def __floordiv__(self, divisor: Any) -> Extent:
        """A quotient without remainder, by a product of open sizes or a plain number."""
        value, form = _both(divisor)
        single = polynomial(form)
        if len(single) != 1 or self.form % form:
            raise Irregular
        if single[0][0] > 1 and any(count % single[0][0] for count, _ in polynomial(self.form)):
            raise Irregular
        return Extent(self.case, self.value // value, self.form // form)

    def __index__(self) -> int:
        """Where only a plain number will do, the size is fixed to it."""
        self.case.zero.add(self.form - self.value)
        return self.value

    def _sign(self, other: Any) -> int:
        """The sign of the difference, noted."""
        difference = self - other
        if difference.value > 0:
            self.case.positive.add(difference.form)
            return 1
        if difference.value < 0:
            self.case.positive.add(-difference.form)
            return -1
        self.case.zero.add(difference.form)
        return 0

    def __eq__(self, other: object) -> bool:
        return self._sign(other) == 0

    def __lt__(self, other: Any) -> bool:
        return self._sign(other) < 0

    def __le__(self, other: Any) -> bool:
        return self._sign(other) <= 0

    def __gt__(self, other: Any) -> bool:
        return self._sign(other) > 0

    def __ge__(self, other: Any) -> bool:
        return self._sign(other) >= 0

    __hash__ = object.__hash__


def _both(size: Any) -> tuple[int, int]:
    return (size.value, size.form) if type(size) is Extent else (size, size)


def form_of(size: Any) -> int:
    """The form of a size: an integer is its own."""
    form: int = size.form if type(size) is Extent else size
    return form


@lru_cache(4096)
def polynomial(form: int) -> Polynomial:
    """The terms whose coefficients are the digits of a form."""
    found: list[tuple[int, tuple[int, ...]]] = []
    place = 0
    while form:
        empty = ((form & -form).bit_length() - 1) // _BITS
        place, form = place + empty, form >> empty * _BITS
        digit = (form + _HALF) % _BASE - _HALF
        found.append((digit, _factors(place)))
        place, form = place + 1, (form - digit) >> _BITS
    return tuple(found)


@lru_cache
def _factors(place: int) -> tuple[int, ...]:
    found: list[int] = []
    number = 0
    while place:
        place, power = divmod(place, _POWERS)
        found += [number] * power
        number += 1
    return tuple(found)


def evaluate(terms: Polynomial, values: tuple[int, ...]) -> int:
    """The polynomial for these open sizes."""
    return sum([count * prod([values[number] for number in numbers]) for count, numbers in terms])


def decisions(case: Case) -> Callable[[tuple[int, ...]], bool]:
    """Whether the same would be decided for other open sizes, which are all positive."""
    positive = [p for p in map(polynomial, case.positive - case.granted) if any(count < 0 for count, _ in p)]
    zero = [p for p in map(polynomial, case.zero) if p]

    def hold(values: tuple[int, ...]) -> bool:
        for difference in positive:
            if evaluate(difference, values) <= 0:
                return False
        return not any(evaluate(difference, values) for difference in zero)

    return hold
