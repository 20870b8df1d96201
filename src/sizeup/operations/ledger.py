"""Your ledger of simulations and measurements: list it, export it, import others' rows.

Rows are kept by `fit --simulate` and `bench`. --export writes JSON lines that --import reads; a row twice is one row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sizeup.errors import BadInput, NotFound, SizeupError
from sizeup.measure.ledger import Ledger, Selection, shipped
from sizeup.measure.rows import Row


class LedgerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows, and what to do with them."""

    kind: Annotated[Literal["", "estimate", "simulate", "measure"], Meta(description="Only rows of this kind.")] = ""
    model: Annotated[str, Meta(description="Only rows of this model.")] = ""
    shipped: Annotated[bool, Meta(description="The rows that come with sizeup instead of your own.")] = False
    export: Annotated[str, Meta(description="Write the rows to this file, as JSON lines.")] = ""
    import_: Annotated[str, Meta(description="Read rows from this file of JSON lines.")] = ""
    forget: Annotated[str, Meta(description="Remove the row with this key.")] = ""


class KeptRow(msgspec.Struct, frozen=True):
    """One row with its key."""

    key: str
    row: Row


class LedgerReport(msgspec.Struct, frozen=True):
    """Where the ledger is, its rows, and what was done."""

    path: str
    rows: tuple[KeptRow, ...]
    done: str = ""
    schema: str = "sizeup.ledger/1"


def ledger(request: LedgerRequest) -> LedgerReport:
    """Do what is asked for, then list the selection."""
    if sum(map(bool, (request.export, request.import_, request.forget))) > 1:
        raise BadInput("--export, --import and --forget are given together", hint="give one of them")
    selection = Selection(kind=request.kind or None, model=request.model or None)
    if request.shipped:
        rows = [row for row in shipped()[0] if selection.admits(row)]
        return LedgerReport("shipped with sizeup", tuple(KeptRow(row.key, row) for row in rows))
    with Ledger() as kept:
        done = _act(kept, request, selection)
        return LedgerReport(str(kept.path), tuple(KeptRow(row.key, row) for row in kept.rows(selection)), done)


def _act(kept: Ledger, request: LedgerRequest, selection: Selection) -> str:
    if request.forget:
        if not kept.remove([request.forget]):
            raise NotFound(f"no row {request.forget!r} in the ledger", hint="sizeup ledger --json shows the keys")
        return "1 row forgotten"
    try:
        if request.export:
            with Path(request.export).expanduser().open("wb") as file:
                return f"{kept.export(file, selection)} rows written to {request.export}"
        if request.import_:
            with Path(request.import_).expanduser().open("rb") as file:
                return f"{kept.import_lines(file, request.import_)} new rows"
    except OSError as error:
        raise SizeupError(f"{error.filename}: {error.strerror}", hint="give another file") from error
    return ""
