"""A value that isn't exact, with the interval that holds it and how sure we are."""

from __future__ import annotations

import msgspec


class Interval(msgspec.Struct, frozen=True):
    """`low ≤ value ≤ high` with probability `confidence`.

    evidence: the rank of what it rests on: `estimate`, `simulate` or `measure`.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.9
    evidence: str = "estimate"

    def scaled(self, factor: float) -> Interval:
        """The same interval times a factor (≥ 0)."""
        return Interval(self.value * factor, self.low * factor, self.high * factor, self.confidence, self.evidence)
