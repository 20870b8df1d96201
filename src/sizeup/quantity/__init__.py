"""Numbers with their unit, interval and derivation."""

from sizeup.quantity.interval import Interval
from sizeup.quantity.terms import Term, leaf, total

__all__ = ["Interval", "Term", "leaf", "total"]
