"""Quality that was measured here, by model: what `sizeup eval` has kept in the ledger."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from sizeup.errors import SizeupError
from sizeup.measure.rows import Row

#: Fewer problems, or fewer scored tokens, say too little.
_LEAST_PROBLEMS, _LEAST_TOKENS = 30, 2000
#: Formats whose predictions stand for the unquantized model's.
UNQUANTIZED = frozenset({"F32", "BF16", "F16"})


class MeasuredCoding(msgspec.Struct, frozen=True):
    """The newest run of the coding problems: the share that passed, of how many, when, in which format."""

    share: float
    problems: int
    date: str
    format: str


class MeasuredDivergence(msgspec.Struct, frozen=True):
    """The newest divergence of a format from the unquantized model, nats a token; on how many tokens of which text."""

    nats: float
    tokens: int
    text: str
    date: str


def coding_measured(name: str) -> MeasuredCoding | None:
    """What was measured for a model of this name (`owner/Name-8B` is also `Name 8B`); None when nothing was."""
    return _coding().get(_plain(name))


def divergence_measured(name: str, format_: str) -> MeasuredDivergence | None:
    """What a format was measured to cost a model of this name; None when nobody did that here."""
    return _divergences().get((_plain(name), format_.upper()))


def forget() -> None:
    """Read the ledger again at the next question: there are new rows."""
    for read in (_rows, _coding, _divergences):
        read.cache_clear()


def _plain(name: str) -> str:
    return "".join(letter for letter in name.rpartition("/")[2].lower() if letter.isalnum())


@lru_cache(maxsize=1)
def _rows() -> tuple[Row, ...]:
    """Rows of quality, oldest first. The ledger is opened when there is one; one that can't be read says nothing."""
    from sizeup.measure.ledger import Ledger, Selection, default_path
    from sizeup.measure.quality.methods import CODING, LOSS

    if not default_path().exists():
        return ()
    try:
        with Ledger() as ledger:
            return tuple(row for row in ledger.rows(Selection(kind="measure")) if row.method in {CODING, LOSS})
    except SizeupError:
        return ()


@lru_cache(maxsize=1)
def _coding() -> dict[str, MeasuredCoding]:
    """By plain name."""
    found = {}
    for row in _rows():
        problems, share = row.workload.get("problems.all"), row.components.get("passed.all")
        if isinstance(problems, int) and problems >= _LEAST_PROBLEMS and share is not None:
            found[_plain(row.model)] = MeasuredCoding(share, problems, row.date[:10], row.format)
    return found


@lru_cache(maxsize=1)
def _divergences() -> dict[tuple[str, str], MeasuredDivergence]:
    """By plain name and format, of those beside an unquantized reference."""
    found = {}
    for row in _rows():
        about, nats = row.workload, row.components.get("divergence")
        tokens = about.get("tokens")
        if nats is None or not isinstance(tokens, int) or tokens < _LEAST_TOKENS:
            continue
        if about.get("reference_format") in UNQUANTIZED:
            found[_plain(row.model), row.format.upper()] = MeasuredDivergence(
                nats, tokens, str(about.get("text", "")), row.date[:10]
            )
    return found
