"""A GGUF file without weights: its header and metadata are real, its data is a hole of the right size.

llama.cpp checks every tensor's offset and the file's length, and reads nothing else when it loads with `no_alloc`.
Layout: the GGUF specification (ggml docs/gguf.md), version 3, little endian.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sizeup.errors import SizeupError
from sizeup.formats.gguf_tensors import GgufTensor
from sizeup.formats.layouts import GGML_TYPES
from sizeup.formats.storage import ceil_div, lookup

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32

Scalar = bool | int | float | str
Value = Scalar | Sequence[Scalar]

_TYPE_IDS = {name: number for number, name, *_ in GGML_TYPES}
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _UINT64 = 4, 5, 6, 7, 8, 9, 10


def aligned(size: int) -> int:
    """`size` rounded up to a whole number of alignments."""
    return ceil_div(size, ALIGNMENT) * ALIGNMENT


def tensor_bytes(tensor: GgufTensor) -> int:
    """Bytes of a tensor's data, as `stored`, without padding."""
    return lookup(tensor.stored).bytes_of(tensor.shape)


def data_bytes(tensors: Sequence[GgufTensor]) -> int:
    """Bytes of all data: each tensor padded to the alignment."""
    return sum(aligned(tensor_bytes(tensor)) for tensor in tensors)


def header(metadata: Mapping[str, Value], tensors: Sequence[GgufTensor]) -> bytes:
    """Everything before the data: counts, metadata, names, shapes, types and offsets, padded to the alignment."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_string(key), _typed(value)]
    offset = 0
    for tensor in tensors:
        parts.append(_tensor_info(tensor, offset))
        offset += aligned(tensor_bytes(tensor))
    head = b"".join(parts)
    return head.ljust(aligned(len(head)), b"\0")


def write_weightless(path: Path, metadata: Mapping[str, Value], tensors: Sequence[GgufTensor]) -> int:
    """Write the header and leave the data a hole; returns the file's apparent size.

    Raises SizeupError when the file system can't hold the header or a sparse file of that size.
    """
    head = header(metadata, tensors)
    size = len(head) + data_bytes(tensors)
    try:
        with path.open("wb") as file:
            file.write(head)
            file.truncate(size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise SizeupError(
            f"can't write a weightless file of {size:,} bytes in {path.parent}: {error.strerror}",
            hint="set TMPDIR to a folder on a file system with sparse files and some free space",
        ) from error
    return size


@contextlib.contextmanager
def weightless_file(metadata: Mapping[str, Value], tensors: Sequence[GgufTensor]) -> Iterator[Path]:
    """A weightless file for the length of a `with` block; it is removed whatever happens in it."""
    try:
        handle, name = tempfile.mkstemp(prefix="sizeup-", suffix=".gguf")
    except OSError as error:
        raise SizeupError(
            f"can't make a temporary file: {error.strerror}", hint="set TMPDIR to a folder with some free space"
        ) from error
    os.close(handle)
    path = Path(name)
    try:
        write_weightless(path, metadata, tensors)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _kind(value: Scalar) -> int:
    match value:
        case bool():
            return _BOOL
        case int():
            return _INT32 if value < 0 else _UINT32 if value < 1 << 32 else _UINT64
        case float():
            return _FLOAT32
    return _STRING


def _payload(kind: int, value: Scalar) -> bytes:
    if kind == _STRING:
        return _string(str(value))
    code = {_BOOL: "<?", _INT32: "<i", _UINT32: "<I", _UINT64: "<Q", _FLOAT32: "<f"}[kind]
    return struct.pack(code, value)


def _typed(value: Value) -> bytes:
    if isinstance(value, bool | int | float | str):
        kind = _kind(value)
        return struct.pack("<I", kind) + _payload(kind, value)
    kinds = {_kind(item) for item in value} or {_UINT32}
    small = kinds <= {_INT32, _UINT32} and all(int(item) < 1 << 31 for item in value)
    kind = _INT32 if small else kinds.pop()
    items = b"".join(_payload(kind, item) for item in value)
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + items


def _tensor_info(tensor: GgufTensor, offset: int) -> bytes:
    extents = tensor.shape[::-1] or (1,)
    return (
        _string(tensor.name)
        + struct.pack(f"<I{len(extents)}Q", len(extents), *extents)
        + struct.pack("<IQ", _TYPE_IDS[lookup(tensor.stored).name], offset)
    )
