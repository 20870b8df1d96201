"""Whether the intervals keep their promise: each family's rows against intervals made from the other families."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sizeup.measure.accuracy import Comparison
from sizeup.measure.residuals import Residuals, residuals_of


class Coverage(msgspec.Struct, frozen=True):
    """Of `rows` held-back rows, `inside` lay in their 90 % interval; by component and in all."""

    component: str
    rows: int
    inside: int

    @property
    def share(self) -> float:
        """The share inside."""
        return self.inside / self.rows


def coverage(comparisons: Iterable[Comparison]) -> tuple[Coverage, ...]:
    """Hold back one family after the other and count its rows inside the intervals that the others give."""
    kept = [c for c in comparisons if c.estimated > 0 and not c.published]
    counts: dict[str, list[int]] = {}
    for family in sorted({comparison.family for comparison in kept}):
        known = Residuals(residuals_of(c for c in kept if c.family != family))
        for comparison in kept:
            if comparison.family == family:
                count = counts.setdefault(comparison.component, [0, 0])
                count[0] += 1
                count[1] += _inside(comparison, known)
    return tuple(Coverage(component, rows, inside) for component, (rows, inside) in sorted(counts.items()))


def _inside(comparison: Comparison, known: Residuals) -> bool:
    low, _, high = known.spread(comparison.engine, comparison.machine_class, comparison.component)
    residual = comparison.known / comparison.estimated - 1
    return low - 1e-9 <= residual <= high + 1e-9
