"""Local byte sources: a file read by position, and bytes in memory.

A file is read, not mapped: a mapped file that another program cuts short kills the process.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from sizeup.errors import BadFile, NotFound


class LocalFile:
    """A regular file on disk; use as a context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        path = Path(self.name)
        try:
            if path.exists() and not path.is_file():
                raise BadFile(f"{self.name!r} is not a regular file", hint="give the path of a file")
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"no file {self.name}", hint="check the path") from None
        except (OSError, ValueError) as error:
            raise _unreadable(self.name, error) from None
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, start: int, count: int) -> bytes:
        """Exactly `count` bytes from `start`."""
        try:
            self._file.seek(start)
            data = self._file.read(count)
            while len(data) < count and (more := self._file.read(count - len(data))):
                data += more
        except OSError as error:
            raise _unreadable(self.name, error) from None
        if len(data) < count:
            raise BadFile(
                f"{self.name} ended at byte {start + len(data):,} while it was read", hint="is it still being written?"
            )
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


class InMemory:
    """Bytes that are already here; `size` may claim more than the bytes, as the start of a longer file does."""

    def __init__(self, data: bytes, name: str = "bytes", size: int | None = None) -> None:
        self.name = name
        self.size = len(data) if size is None else size
        self._data = data

    def read(self, start: int, count: int) -> bytes:
        """Exactly `count` bytes from `start`."""
        piece = self._data[start : start + count]
        if len(piece) < count:
            raise BadFile(f"{self.name}: only {len(self._data):,} of {self.size:,} bytes are here")
        return piece


def _unreadable(name: str, error: Exception) -> BadFile:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return BadFile(f"cannot read {name!r}: {why}", hint="check the path and its rights")
