"""Quality that was measured here, by model: what `sizeup eval` has kept in the ledger."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from sizeup.errors import SizeupError

#: Fewer problems than this say too little.
_LEAST_PROBLEMS = 30


class MeasuredCoding(msgspec.Struct, frozen=True):
    """The newest run of the coding problems: the share that passed, of how many, when, in which format."""

    share: float
    problems: int
    date: str
    format: str


def coding_measured(name: str) -> MeasuredCoding | None:
    """What was measured for a model of this name (`owner/Name-8B` is also `Name 8B`); None when nothing was."""
    return _all().get(_plain(name))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.rpartition("/")[2].lower() if letter.isalnum())


@lru_cache(maxsize=1)
def _all() -> dict[str, MeasuredCoding]:
    """By plain name. The ledger is only opened when there is one; one that can't be read says nothing."""
    from sizeup.measure.ledger import Ledger, Selection, default_path
    from sizeup.measure.quality.methods import CODING

    if not default_path().exists():
        return {}
    try:
        with Ledger() as ledger:
            rows = ledger.rows(Selection(kind="measure"))
    except SizeupError:
        return {}
    found = {}
    for row in rows:
        problems = row.workload.get("problems.all")
        if row.method == CODING and isinstance(problems, int) and problems >= _LEAST_PROBLEMS:
            found[_plain(row.model)] = MeasuredCoding(row.components["passed.all"], problems, row.date[:10], row.format)
    return found
