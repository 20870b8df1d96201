"""Reading forward through a byte source in growing windows, so that only one window is ever in memory."""

from __future__ import annotations

import struct

from sizeup.errors import BadFile
from sizeup.models.sources.header import ByteSource

FIRST_WINDOW = 2**20
LARGEST_WINDOW = 2**24
MAX_STRINGS = 2**24


class Cursor:
    """A position in a source. Every move is checked against the size of the file before anything is read.

    order: `<` or `>`, the byte order of numbers.
    strings_left: how many more strings may be walked over; a file of nothing but empty strings must not take hours.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.at = 0
        self.strings_left = MAX_STRINGS
        self._base = 0
        self._data = b""
        self._window = FIRST_WINDOW
        self.use_order("<")

    def use_order(self, order: str) -> None:
        """Read numbers in this byte order from here on."""
        self.order = order
        self._u64 = struct.Struct(f"{order}Q")

    @property
    def left(self) -> int:
        """Bytes from here to the end of the file."""
        return self.source.size - self.at

    def numbers(self, codes: str) -> tuple[int | float | bool, ...]:
        """The numbers that a `struct` format describes."""
        layout = struct.Struct(self.order + codes)
        here = self._need(layout.size)
        self.at += layout.size
        return layout.unpack_from(self._data, here)

    def number(self) -> int:
        """An unsigned 64-bit integer: a length or a count."""
        here = self._need(8)
        self.at += 8
        return int(self._u64.unpack_from(self._data, here)[0])

    def raw(self, count: int) -> bytes:
        """The next `count` bytes, which the caller has bounded."""
        here = self._need(count)
        self.at += count
        return self._data[here : here + count]

    def skip(self, count: int) -> None:
        """Move on without reading."""
        if count > self.left:
            raise self.truncated(count)
        self.at += count

    def skip_strings(self, count: int) -> None:
        """Walk over `count` strings, each a length and its bytes, touching only the lengths."""
        if count * 8 > self.left:
            raise self.truncated(count * 8)
        self.strings_left -= count
        if self.strings_left < 0:
            raise BadFile(
                f"{self.source.name} holds more than {MAX_STRINGS:,} strings", hint="no tokenizer is so large"
            )
        while count:
            here = self._need(8)
            walked, end = _walk(self._data, here, count, self._u64)
            count -= walked
            if self._base + end > self.source.size:
                raise self.truncated(end - here)
            self.at = self._base + end

    def truncated(self, count: int) -> BadFile:
        """The error for needing more bytes than the file has."""
        return BadFile(
            f"{self.source.name} is truncated or damaged: "
            f"{_amount(count)} needed at byte {self.at:,}, and it ends at {self.source.size:,}",
            hint="download the file again",
        )

    def _need(self, count: int) -> int:
        """The place in the window where `count` bytes from here begin, read if they aren't in it."""
        here = self.at - self._base
        if here + count <= len(self._data):
            return here
        if count > self.left:
            raise self.truncated(count)
        self._data = self.source.read(self.at, min(max(count, self._window), self.left))
        self._base = self.at
        self._window = min(self._window * 2, LARGEST_WINDOW)
        return 0


def _walk(data: bytes, here: int, count: int, length: struct.Struct) -> tuple[int, int]:
    """Step over up to `count` strings from `here`: (strings stepped over, place after the last one).

    The last one may reach beyond the data; the first length that isn't in the data ends the walk.
    """
    unpack = length.unpack_from
    number = 0
    try:
        for number in range(count):  # noqa: B007  (used when the data ends)
            here += 8 + unpack(data, here)[0]
    except (struct.error, OverflowError):
        return number, here
    return count, here


def _amount(count: int) -> str:
    return f"{count:,} bytes" if count < 2**63 else "more than 2^63 bytes"
