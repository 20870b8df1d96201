"""What a weight file says about itself: its tensors, its metadata and its bytes, without the values."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Skipped(msgspec.Struct, frozen=True, tag=True):
    """A metadata value that was walked over, not kept: `count` elements of type `of` (a long text is `count` bytes)."""

    of: str
    count: int


Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | Skipped


class StoredTensor(msgspec.Struct, frozen=True):
    """One tensor of a file.

    dtype: as the file names it: a GGML type (`Q4_K`) or a safetensors dtype (`BF16`).
    shape: row-major, the fastest dimension last (GGUF's `ne` reversed).
    offset: bytes from the start of the file.
    file: index into the header's files.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    file: int = 0


class StoredFile(msgspec.Struct, frozen=True):
    """One file of a model: where it is, its whole size, and where its tensor data begins."""

    name: str
    nbytes: int
    data_start: int


class Header(msgspec.Struct, frozen=True):
    """Everything a model's weight files say without their values.

    kind: `gguf` or `safetensors`.
    data_bytes: the sum over the tensors, without padding.
    file_bytes: the sum over the files.
    complete: False when the tensor data is absent (a header kept alone, a weightless GGUF).
    """

    kind: str
    tensors: tuple[StoredTensor, ...]
    metadata: dict[str, Value]
    files: tuple[StoredFile, ...]
    data_bytes: int
    file_bytes: int
    complete: bool = True

    def length(self, key: str) -> int | None:
        """The number of elements of an array in the metadata, kept or skipped; None when there is no such array."""
        value = self.metadata.get(key)
        if isinstance(value, Skipped):
            return value.count
        return len(value) if isinstance(value, tuple) else None


class ByteSource(Protocol):
    """A file that can be read in pieces: on disk, in memory or behind HTTP ranges."""

    @property
    def name(self) -> str:
        """The path or URL, for messages."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""

    def read(self, start: int, count: int) -> bytes:
        """Exactly `count` bytes from `start`; the caller stays within `size`. Raises BadFile or NetworkError."""
