"""Sizes that are left open while a step is recorded: one recording for every batch and sequence that runs alike.

An `OpenSize` stands in for an integer. Its arithmetic is done for the case at hand and written down on a `Sheet`, to be
done again for other values; what was decided by a comparison is noted, for the step is the same only where the same
would be decided.

Two sizes are one where they are the same in every case. That is seen at a point where every open size is a large number
without a pattern, as are quotients that have a remainder: polynomials that agree there are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from math import gcd
from operator import add, eq, floordiv, le, lt, mul, ne, sub
from typing import Any

import msgspec

#: Open sizes at the point without a pattern: powers of a number, modulo a prime.
_ROOT, _PRIME = 0x9E3779B97F4A7C15, (1 << 61) - 1

#: Blocks of the allocator whose number is above this stand for an open size: beyond any tensor.
OPEN = 1 << 50

Operation = Callable[[Any, Any], Any]

#: Operation, number of its left size, number of its right one or the right side itself, whether it is that (fixed).
Step = tuple[Operation, int, int, bool]


class Sheet:
    """The open sizes' values in the case at hand, the steps of their arithmetic, what it decided, and what was stored.

    Sizes are numbered in the order of their making, the open ones first. decided: comparisons with their outcomes.
    """

    def __init__(self, values: tuple[int, ...]) -> None:
        self.steps: list[Step] = []
        self.decided: dict[Step, bool] = {}
        self.stored: list[OpenSize] = []
        self._sizes: dict[int, OpenSize] = {}
        self._quotients: dict[Step, OpenSize] = {}
        self._generic = (pow(_ROOT, place, _PRIME) for place in count(3))
        self.open = tuple([self._new(value, next(self._generic), 1) for value in values])

    def _new(self, value: int, generic: int, divisor: int) -> OpenSize:
        size = OpenSize(self, len(self._sizes), value, generic, divisor)
        self._sizes[generic] = size
        return size

    def made(self, operation: Operation, left: OpenSize, right: Any, generic: int, divisor: int) -> Any:
        """The result of a step: a size that is known already, a plain number, or a new size."""
        found = self._sizes.get(generic)
        if found is not None:
            return found
        fixed = type(right) is not OpenSize
        value = operation(left.value, right if fixed else right.value)
        if value == generic:
            return value
        self.steps.append((operation, left.number, right if fixed else right.number, fixed))
        return self._new(value, generic, divisor)

    def irregular(self, operation: Operation, left: OpenSize, right: Any) -> OpenSize:
        """The result of a step that makes no polynomial: a size with a point of its own."""
        fixed = type(right) is not OpenSize
        step = (operation, left.number, right if fixed else right.number, fixed)
        found = self._quotients.get(step)
        if found is None:
            self.steps.append(step)
            found = self._new(operation(left.value, right if fixed else right.value), next(self._generic), 1)
            self._quotients[step] = found
        return found

    def closed(self) -> Formulas:
        """What is needed to evaluate the sizes, when no more are made."""
        steps, decided = tuple(self.steps), tuple(self.decided.items())
        return Formulas(steps, decided, tuple([size.number for size in self.stored]))

    def allocated(self, size: int) -> Any:
        """The bytes of an allocation, rounded as the allocator does; size: those bytes, or what stands for them."""
        number = (size >> 9) - OPEN
        if number < 0:
            return size
        return -(-self.stored[number] // 512) * 512


class Formulas(msgspec.Struct, frozen=True):
    """A sheet that is complete: steps, decisions with their outcomes, and the numbers of the sizes that are stored."""

    steps: tuple[Step, ...]
    decided: tuple[tuple[Step, bool], ...]
    stored: tuple[int, ...]

    def amounts(self, values: tuple[int, ...]) -> list[int] | None:
        """Every size for these values of the open ones; None where something is impossible or decided otherwise."""
        found = list(values)
        append = found.append
        try:
            for operation, left, right, fixed in self.steps:
                append(operation(found[left], right if fixed else found[right]))
        except (ArithmeticError, ValueError):
            return None
        for (operation, left, right, fixed), outcome in self.decided:
            if operation(found[left], right if fixed else found[right]) is not outcome:
                return None
        return found

    def blocks(self, amounts: list[int]) -> list[int]:
        """Blocks of 512 bytes of everything stored, by its number less `OPEN`."""
        return [amounts[number] + 511 >> 9 for number in self.stored]


class OpenSize:
    """An integer that is left open: its value in the case at hand, and at the point without a pattern.

    divisor: a number that divides it in every case. number: its place on the sheet.
    """

    __slots__ = ("_products", "_quotients", "divisor", "entries", "generic", "number", "sheet", "value")

    def __init__(self, sheet: Sheet, number: int, value: int, generic: int, divisor: int) -> None:
        self.sheet, self.number, self.value, self.generic, self.divisor = sheet, number, value, generic, divisor
        self.entries: dict[int, int] = {}
        self._products: dict[Any, Any] = {}
        self._quotients: dict[Any, Any] = {}

    def stored(self, item: int) -> int:
        """What stands in the log for the rounded bytes of so many elements of `item` bytes."""
        found = self.entries.get(item)
        if found is None:
            if item == 1:
                if self.value >> 9 >= OPEN:
                    raise TypeError("a stand-in was taken for a size")
                found = OPEN + len(self.sheet.stored) << 9
                self.sheet.stored.append(self)
            else:
                found = (self * item).stored(1)
            self.entries[item] = found
        return found

    def __mul__(self, other: Any) -> Any:
        found = self._products.get(other)
        if found is None:
            if type(other) is int:
                found = self.sheet.made(mul, self, other, self.generic * other, self.divisor * abs(other))
            elif type(other) is OpenSize:
                generic, divisor = self.generic * other.generic, self.divisor * other.divisor
                found = self.sheet.made(mul, self, other, generic, divisor)
            else:
                return NotImplemented
            self._products[other] = found
        return found

    def __add__(self, other: Any) -> Any:
        if type(other) is int:
            if not other:
                return self
            return self.sheet.made(add, self, other, self.generic + other, gcd(self.divisor, other))
        if type(other) is OpenSize:
            return self.sheet.made(add, self, other, self.generic + other.generic, gcd(self.divisor, other.divisor))
        return NotImplemented

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: Any) -> Any:
        if type(other) is int:
            return self.sheet.made(sub, self, other, self.generic - other, gcd(self.divisor, other))
        if type(other) is OpenSize:
            return self.sheet.made(sub, self, other, self.generic - other.generic, gcd(self.divisor, other.divisor))
        return NotImplemented

    def __neg__(self) -> Any:
        return self * -1

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __floordiv__(self, other: Any) -> Any:
        """A quotient; one without remainder in every case is known as such."""
        found = self._quotients.get(other)
        if found is None:
            if type(other) is int:
                found = self._divided(other, other, other)
            elif type(other) is OpenSize:
                found = self._divided(other, other.generic, other.divisor)
            else:
                return NotImplemented
            self._quotients[other] = found
        return found

    def _divided(self, other: Any, generic: int, divisor: int) -> Any:
        if self.generic % generic or self.divisor % divisor:
            return self.sheet.irregular(floordiv, self, other)
        return self.sheet.made(floordiv, self, other, self.generic // generic, self.divisor // abs(divisor))

    def __rfloordiv__(self, other: int) -> Any:
        return self.sheet.irregular(_dividing, self, other)

    def __mod__(self, other: Any) -> Any:
        return self - self // other * other

    def __rlshift__(self, other: int) -> Any:
        return self.sheet.irregular(_shifted, self, other)

    def bit_length(self) -> Any:
        """As of an integer."""
        return self.sheet.irregular(_bits, self, 0)

    def __index__(self) -> int:
        """Where only a plain number will do, the size is fixed to it."""
        self.sheet.decided[eq, self.number, self.value, True] = True
        return self.value

    def __bool__(self) -> bool:
        return self._decided(ne, 0)

    def _decided(self, operation: Operation, other: Any) -> bool:
        """The outcome of a comparison, noted unless it is the same in every case."""
        if type(other) is OpenSize:
            if other.generic == self.generic:
                return bool(operation(0, 0))
            outcome = bool(operation(self.value, other.value))
            self.sheet.decided[operation, self.number, other.number, False] = outcome
            return outcome
        outcome = bool(operation(self.value, other))
        self.sheet.decided[operation, self.number, other, True] = outcome
        return outcome

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (int, OpenSize)) and self._decided(eq, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> bool:
        return self._decided(lt, other)

    def __le__(self, other: Any) -> bool:
        return self._decided(le, other)

    def __gt__(self, other: Any) -> bool:
        return not self._decided(le, other)

    def __ge__(self, other: Any) -> bool:
        return not self._decided(lt, other)

    __hash__ = object.__hash__


def _dividing(size: int, whole: int) -> int:
    return whole // size


def _shifted(size: int, base: int) -> int:
    return base << size


def _bits(size: int, _zero: int) -> int:
    return size.bit_length()
