"""Configurations and headers from the Hub, kept by this program.

    <cache>/hub/<host>/<org>--<name>/refs/<revision>       the commit a branch last pointed to
    <cache>/hub/<host>/<org>--<name>/<commit>/<entry>      facts, configurations, headers: a commit never changes

Entries are written beside their place and moved into it, so a reader never sees half of one. What can't be read or
decoded counts as absent; what can't be written is left out.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TypeVar

import msgspec

MAX_ENTRY = 2**28
T = TypeVar("T")


class RepositoryCache:
    """The entries of one repository."""

    def __init__(self, root: Path, endpoint: str, repository: str) -> None:
        host = re.sub(r"[^A-Za-z0-9.-]+", "-", endpoint.partition("://")[2] or endpoint)
        self.folder = root / "hub" / host / repository.replace("/", "--")

    def commit(self, revision: str) -> str:
        """The commit that a revision last meant; empty when unknown. A commit means itself."""
        if is_commit(revision):
            return revision
        text = (self._read(self.folder / "refs" / _file_name(revision)) or b"").decode("ascii", "replace").strip()
        return text if is_commit(text) else ""

    def remember_commit(self, revision: str, commit: str) -> None:
        """Note what a revision means now."""
        if is_commit(commit) and revision != commit:
            self._write(self.folder / "refs" / _file_name(revision), commit.encode())

    def get(self, commit: str, entry: str, kind: type[T]) -> T | None:
        """A decoded entry of a commit; None when it isn't there or is damaged."""
        if not is_commit(commit):
            return None
        raw = self._read(self.folder / commit / _file_name(entry))
        if raw is None:
            return None
        try:
            return msgspec.msgpack.decode(raw, type=kind)
        except (msgspec.DecodeError, RecursionError):
            return None

    def put(self, commit: str, entry: str, value: object) -> None:
        """Keep an entry of a commit."""
        if is_commit(commit):
            self._write(self.folder / commit / _file_name(entry), msgspec.msgpack.encode(value))

    def _read(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_ENTRY + 1)
        except OSError:
            return None
        return raw if len(raw) <= MAX_ENTRY else None

    def _write(self, path: Path, raw: bytes) -> None:
        import tempfile

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        except OSError:
            return
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
            Path(temporary).replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def is_commit(text: str) -> bool:
    """Whether a text is a full commit hash."""
    return len(text) == 40 and all(character in "0123456789abcdef" for character in text)


def _file_name(entry: str) -> str:
    """An entry's name as one file name, short enough for every file system and distinct for distinct entries."""
    import hashlib

    plain = re.sub(r"[^A-Za-z0-9._-]+", "--", entry).lstrip(".")
    if plain == entry and len(plain) <= 150:
        return plain
    return f"{plain[:150]}-{hashlib.sha256(entry.encode()).hexdigest()[:16]}"
