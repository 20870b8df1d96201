"""Which licences let anyone use a model for anything, commerce included, without conditions on who or how many."""

from __future__ import annotations

PERMISSIVE = frozenset({"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0", "cc0-1.0", "unlicense"})


def is_permissive(licence: str | None) -> bool:
    """Whether a licence is obviously safe; an unknown one is not. Compared exactly: `modified-mit` isn't `mit`."""
    return licence is not None and licence.lower() in PERMISSIVE
