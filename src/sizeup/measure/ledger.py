"""The ledger: every simulation and measurement that was kept, in the user's folder, beside those that ship.

SQLite in WAL mode: readers never wait, writers wait for each other, and a process that is killed in the middle of a
write leaves what was there before it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Self

import msgspec

from sizeup.errors import BadFile, SizeupError
from sizeup.measure.ledger_schema import migrate
from sizeup.measure.rows import ModelRecord, Row, checked, decode_lines, encode_line

_SECONDS_TO_WAIT = 30


class Selection(msgspec.Struct, frozen=True):
    """Which rows: each field narrows, None means any."""

    kind: str | None = None
    engine: str | None = None
    model: str | None = None
    family: str | None = None
    shape: str | None = None

    def admits(self, row: Row) -> bool:
        """Whether a row is among them."""
        return all(getattr(row, name) == wanted for name, wanted in self.wanted.items())

    @property
    def wanted(self) -> dict[str, str]:
        """The fields that narrow."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}


ALL = Selection()


class Ledger:
    """The user's ledger. Use it in a `with` block, or close it."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()
        self._connection = _open(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def add(self, entries: Iterable[Row | ModelRecord]) -> int:
        """Keep rows and models, all or none of them; returns how many rows are new."""
        rows, models = [], []
        for entry in entries:
            if isinstance(entry, Row):
                rows.append(_record(checked(entry)))
            else:
                models.append((entry.key, entry.model, msgspec.json.encode(entry)))
        with _reported(self.path), self._transaction():
            before = self._connection.total_changes
            self._connection.executemany(
                "INSERT OR IGNORE INTO rows (key, kind, model, shape, engine, version, machine, date, family, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            added = self._connection.total_changes - before
            self._connection.executemany("INSERT OR REPLACE INTO models (key, model, body) VALUES (?, ?, ?)", models)
        return added

    def rows(self, selection: Selection = ALL) -> list[Row]:
        """The rows of a selection, oldest first."""
        names = list(selection.wanted)
        where = " WHERE " + " AND ".join(f"{name} = ?" for name in names) if names else ""
        query = f"SELECT body FROM rows{where} ORDER BY date, key"  # noqa: S608  names are the struct's own fields
        with _reported(self.path):
            found = self._connection.execute(query, list(selection.wanted.values())).fetchall()
            return [msgspec.json.decode(body, type=Row) for (body,) in found]

    def models(self) -> dict[str, ModelRecord]:
        """The models that rows refer to, by key."""
        with _reported(self.path):
            found = self._connection.execute("SELECT body FROM models ORDER BY key").fetchall()
            shapes = [msgspec.json.decode(body, type=ModelRecord) for (body,) in found]
        return {shape.key: shape for shape in shapes}

    def remove(self, keys: Iterable[str]) -> int:
        """Forget rows by key; returns how many there were."""
        with _reported(self.path), self._transaction():
            before = self._connection.total_changes
            self._connection.executemany("DELETE FROM rows WHERE key = ?", [(key,) for key in keys])
            return self._connection.total_changes - before

    def export(self, file: IO[bytes], selection: Selection = ALL) -> int:
        """Write a selection and its models as JSON lines; returns how many rows."""
        rows = self.rows(selection)
        used = {row.shape for row in rows}
        for key, shape in self.models().items():
            if key in used:
                file.write(encode_line(shape))
        for row in rows:
            file.write(encode_line(row))
        return len(rows)

    def import_lines(self, file: IO[bytes], origin: str = "ledger file") -> int:
        """Read JSON lines as `export` writes them; returns how many rows are new. A bad line keeps all of them out."""
        return self.add(list(decode_lines(file.read(), origin)))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def default_path() -> Path:
    """`ledger.db` in SIZEUP_HOME, else in the user's data folder."""
    home = os.environ.get("SIZEUP_HOME")
    if home:
        return Path(home) / "ledger.db"
    from platformdirs import user_data_path

    return user_data_path("sizeup") / "ledger.db"


def shipped() -> tuple[list[Row], dict[str, ModelRecord]]:
    """The rows that come with the package, and the models they refer to."""
    rows: list[Row] = []
    models: dict[str, ModelRecord] = {}
    for path in sorted((Path(__file__).parent / "data").glob("*.jsonl")):
        for entry in decode_lines(path.read_bytes(), path.name):
            if isinstance(entry, Row):
                rows.append(entry)
            else:
                models[entry.key] = entry
    return rows, models


def _record(row: Row) -> tuple[str | bytes, ...]:
    return (
        row.key, row.kind, row.model, row.shape, row.engine, row.version, row.machine, row.date, row.family,
        msgspec.json.encode(row),
    )  # fmt: skip


def _open(path: Path) -> sqlite3.Connection:
    with _reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_SECONDS_TO_WAIT, isolation_level=None)
        try:
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode; where two processes make the file at once, SQLite refuses one of them without waiting."""
    for _ in range(_SECONDS_TO_WAIT * 20):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(0.05)
        else:
            return
    connection.execute("PRAGMA journal_mode = WAL")


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into sizeup's errors."""
    try:
        yield
    except sqlite3.OperationalError as error:
        hint = "free some space" if "full" in str(error) else "close other programs that use it, or set SIZEUP_HOME"
        raise SizeupError(f"the ledger {path} can't be used: {error}", hint=hint) from error
    except sqlite3.DatabaseError as error:
        raise BadFile(f"{path} is not a ledger: {error}", hint="move it away; sizeup makes a new one") from error
    except msgspec.DecodeError as error:
        raise BadFile(f"the ledger {path} holds an unreadable row: {error}", hint="move it away") from error
    except OSError as error:
        raise SizeupError(f"the ledger {path} can't be opened: {error.strerror}", hint="set SIZEUP_HOME") from error
