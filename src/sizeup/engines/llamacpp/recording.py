"""A graph's buffers with some sizes left open: recorded once, and answered for every batch and cache that is like it.

What depends on sizes only through their amounts is evaluated anew; the allocator runs again only where it could choose
otherwise (`replay`). Another graph is needed where something was decided by sizes while it was built.
"""

from __future__ import annotations

from itertools import compress
from math import prod

from sizeup.engines.llamacpp.extent import Case, decisions, form_of, polynomial
from sizeup.engines.llamacpp.graph import Lives
from sizeup.engines.llamacpp.replay import Growing, Run, Script, replay

#: Runs that are remembered for one graph.
_LIMIT = 256


class _Place:
    """The buffers of one place: their coming and going, the polynomials of their sizes, and the runs over them."""

    def __init__(self, lives: Lives, alignment: int, along: int) -> None:
        self._along = along
        sizes = [polynomial(form_of(size)) for size in lives.sizes]
        held = [bool(sizes[number]) for number in lives.numbers]
        events, numbers = list(compress(lives.events, held)), list(compress(lives.numbers, held))
        self._script = Script(events, numbers, lives.buffers, alignment)
        self._growing = [[term for term in size if along in term[1]] for size in sizes]
        self._constant = [[term for term in size if along not in term[1]] for size in sizes]
        self._products = {factors for size in sizes for _, factors in size}
        occurring = {number for factors in self._products for number in factors}
        squared = any(factors.count(along) > 1 for factors in self._products)
        self._others = tuple(sorted(occurring if squared else occurring - {along}))
        self._runs: dict[tuple[int, ...], list[tuple[int, Run]]] = {}

    def peak(self, values: tuple[int, ...]) -> int:
        """Bytes for these open sizes: of a run that reaches as far, else of a new one."""
        here = values[self._along]
        runs = self._runs_beside(tuple([values[number] for number in self._others]))
        for start, run in runs:
            if run.low <= here - start <= run.high:
                return run.peak(here - start)
        run = replay(self._script, self._sizes(values))
        runs.append((here, run))
        return run.peak(0)

    def _runs_beside(self, others: tuple[int, ...]) -> list[tuple[int, Run]]:
        """The runs so far that differ only in the size along which they reach out."""
        if len(self._runs) >= _LIMIT:
            self._runs.clear()
        return self._runs.setdefault(others, [])

    def _sizes(self, values: tuple[int, ...]) -> list[Growing]:
        """Each size, and what it grows by with each step."""
        amounts = {factors: prod([values[number] for number in factors]) for factors in self._products}
        here = values[self._along] or 1
        sizes: list[Growing] = []
        for growing, constant in zip(self._growing, self._constant, strict=True):
            grown = sum([count * amounts[factors] for count, factors in growing]) if growing else 0
            still = sum([count * amounts[factors] for count, factors in constant]) if constant else 0
            sizes.append((grown + still, grown // here))
        return sizes


class Recording:
    """The buffers of every place, for the open sizes for which it `holds`.

    along: the number of the open size along which one run of the allocator reaches out to others.
    """

    def __init__(self, lives: dict[int, Lives], alignments: dict[int, int], case: Case, along: int) -> None:
        self.holds = decisions(case)
        self._along = along
        self._places = {place: _Place(lived, alignments[place], along) for place, lived in lives.items()}

    def peaks(self, values: tuple[int, ...]) -> dict[int, int]:
        """Place → bytes of its buffer."""
        return {number: place.peak(values) for number, place in self._places.items()}
