"""Small system files, read without ever raising: text or None."""

from __future__ import annotations

import os

# System files are small; a huge or endless one is not what it claims to be.
_MAX_BYTES = 4 << 20


class Files:
    """A file system, the real one or a copy of one below `root` (for tests)."""

    def __init__(self, root: str = "/") -> None:
        self._root = root.rstrip("/")

    def read(self, path: str) -> str | None:
        """The text of a file, None when it isn't there or can't be read."""
        data = self.read_bytes(path)
        return None if data is None else data.decode("utf-8", errors="replace")

    def read_bytes(self, path: str) -> bytes | None:
        """The bytes of a file, None when it isn't there or can't be read."""
        try:
            with open(self._root + path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up time here
                return file.read(_MAX_BYTES)
        except (OSError, ValueError):
            return None

    def number(self, path: str) -> int | None:
        """The non-negative integer that a file holds (decimal, or hexadecimal with 0x), else None."""
        return to_int(self.read(path))

    def names(self, path: str) -> list[str]:
        """What a folder holds, sorted; empty when it isn't there."""
        try:
            return sorted(os.listdir(self._root + path))  # noqa: PTH208 - as above
        except (OSError, ValueError):
            return []

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        try:
            return os.path.exists(self._root + path)  # noqa: PTH110 - as above
        except (OSError, ValueError):
            return False


def to_int(text: str | None) -> int | None:
    """A non-negative integer below 2^63 as system files write it, else None."""
    if text is None:
        return None
    word = text.strip().strip("\x00")
    try:
        value = int(word, 16) if word.lower().startswith("0x") else int(word)
    except ValueError:
        return None
    return value if 0 <= value < 1 << 63 else None
