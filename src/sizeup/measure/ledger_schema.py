"""The ledger's tables, and how an older ledger becomes a newer one.

`user_version` of the database says how many steps it has been through. A step is never changed once released: a new
need is a new step.
"""

from __future__ import annotations

import sqlite3

from sizeup.errors import BadFile

#: One entry for each version; all its statements run in one transaction.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE rows (
            key TEXT PRIMARY KEY,
            kind TEXT NOT NULL,
            model TEXT NOT NULL,
            shape TEXT NOT NULL,
            engine TEXT NOT NULL,
            version TEXT NOT NULL,
            machine TEXT NOT NULL,
            date TEXT NOT NULL,
            body BLOB NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE models (
            key TEXT PRIMARY KEY,
            model TEXT NOT NULL,
            body BLOB NOT NULL
        ) WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE rows ADD COLUMN family TEXT NOT NULL DEFAULT ''",
        "UPDATE rows SET family = coalesce(json_extract(CAST(body AS TEXT), '$.family'), '')",
        "CREATE INDEX rows_by_engine ON rows (engine, kind, family)",
        "CREATE INDEX rows_by_shape ON rows (shape)",
    ),
)
VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, *, target: int = VERSION) -> None:
    """Bring a ledger up to `target`, one transaction a step; two processes may do it at once.

    Raises BadFile for a ledger of a newer sizeup.
    """
    while (found := schema_version(connection)) < target:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if schema_version(connection) == found:
                for statement in MIGRATIONS[found]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {found + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    if schema_version(connection) > VERSION:
        raise BadFile(
            f"this ledger has schema {schema_version(connection)}, and this sizeup knows {VERSION}",
            hint="upgrade sizeup, or name another ledger with SIZEUP_HOME",
        )


def schema_version(connection: sqlite3.Connection) -> int:
    """How many steps a ledger has been through."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
