"""The header of a GGUF file, read without its values and without trusting a single number in it.

Layout (ggml/docs/gguf.md; checks as in ggml/src/gguf.cpp, llama.cpp 0c1e570): `GGUF`, u32 version, u64 tensors, u64
keys; the keys (string, u32 type, value); the tensor table (string, u32 dimensions, u64 each, u32 type, u64 offset);
padding to `general.alignment`; the data. Versions 2 and 3 differ only in that 3 may be big-endian, which shows in the
version number. Token lists are walked over, not read: a vocabulary of 128,000 with its merges takes a twentieth of a
second.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from math import prod
from pathlib import Path

from sizeup.errors import BadFile, NotFound, SizeupError
from sizeup.formats.ggml import by_id
from sizeup.models.sources.bytesource import LocalFile
from sizeup.models.sources.cursor import Cursor
from sizeup.models.sources.header import ByteSource, Header, Skipped, StoredFile, StoredTensor, Value

KEPT_ELEMENTS = 4096
KEPT_STRINGS = 64
KEPT_TEXT = 2**18
KEPT_BYTES = 2**24
MAX_KEYS = 2**16
MAX_TENSORS = 2**18
MAX_KEY_BYTES = 2**16
MAX_NAME_BYTES = 1024
MAX_DIMENSIONS = 4
MAX_NESTING = 4
ALIGNMENTS = frozenset(2**power for power in range(21))

_STRING, _ARRAY = 8, 9
_NUMBERS = {
    0: ("u8", "B", 1), 1: ("i8", "b", 1), 2: ("u16", "H", 2), 3: ("i16", "h", 2), 4: ("u32", "I", 4),
    5: ("i32", "i", 4), 6: ("f32", "f", 4), 7: ("bool", "?", 1), 10: ("u64", "Q", 8), 11: ("i64", "q", 8),
    12: ("f64", "d", 8),
}  # fmt: skip
_SMALLEST_KEY = 8 + 4 + 1
_SMALLEST_TENSOR = 8 + 4 + 4 + 8


def read_gguf(source: ByteSource, *, data_required: bool = True) -> Header:
    """The header of one file.

    data_required: False accepts a file that ends before its tensor data does, and says so in `complete`.
    Raises BadFile for anything that contradicts the file's size or itself.
    """
    return _Reader(source).header(data_required=data_required)


def read_gguf_path(path: str | os.PathLike[str], *, data_required: bool = True) -> Header:
    """The header of a file on disk; of all its parts, when its name says that it is one part of several."""
    name = os.fspath(path)
    headers = []
    for part in part_names(name):
        if part != name and not Path(part).is_file():
            raise NotFound(f"{part} is missing, a part of {name}", hint="download it into the same folder")
        with LocalFile(part) as source:
            headers.append(read_gguf(source, data_required=data_required))
    return merge_parts(headers)


def part_names(name: str) -> list[str]:
    """The names of all parts of a split model, given any of them; just the name when it isn't split.

    `model-00002-of-00003.gguf` is part 2 of 3 (llama.cpp's gguf-split).
    """
    found = re.search(r"-(\d{5})-of-(\d{5})\.gguf$", name)
    if not found:
        return [name]
    part, count = int(found[1]), int(found[2])
    if not 1 <= part <= count:
        raise BadFile(f"{name} calls itself part {part} of {count}", hint="check the file's name")
    return [f"{name[: found.start()]}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def merge_parts(headers: Sequence[Header]) -> Header:
    """One header for the parts of a split model, in their order; the first part's metadata counts."""
    first = headers[0]
    parts = first.metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1 and parts != len(headers):
        raise BadFile(
            f"{first.files[0].name} is one of {parts} parts, and {len(headers)} are here",
            hint=f"put all parts in one folder, named …-00001-of-{parts:05}.gguf",
        )
    if len(headers) == 1:
        return first
    tensors = []
    for place, header in enumerate(headers):
        number = header.metadata.get("split.no")
        if number != place:
            raise BadFile(
                f"{header.files[0].name} should be part {place + 1}, and its split.no is {number!r}",
                hint="the parts are of different models, or renamed",
            )
        tensors += [
            StoredTensor(tensor.name, tensor.dtype, tensor.shape, tensor.offset, tensor.nbytes, place)
            for tensor in header.tensors
        ]
    _refuse_duplicates([tensor.name for tensor in tensors], first.files[0].name)
    claimed = first.metadata.get("split.tensors.count", len(tensors))
    if claimed != len(tensors):
        raise BadFile(
            f"the parts of {first.files[0].name} hold {len(tensors):,} tensors, not {claimed!r} as they say",
            hint="the parts are of different models",
        )
    return Header(
        "gguf", tuple(tensors), first.metadata, tuple(header.files[0] for header in headers),
        sum(header.data_bytes for header in headers), sum(header.file_bytes for header in headers),
        all(header.complete for header in headers),
    )  # fmt: skip


class _Reader:
    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.cursor = Cursor(source)
        self.kept = 0

    def header(self, *, data_required: bool) -> Header:
        self._version()
        tensor_count, key_count = self.cursor.number(), self.cursor.number()
        self._bound("tensors", tensor_count, MAX_TENSORS, _SMALLEST_TENSOR)
        self._bound("keys", key_count, MAX_KEYS, _SMALLEST_KEY)
        metadata = self._metadata(key_count)
        alignment = self._alignment(metadata)
        table = [self._tensor(alignment) for _ in range(tensor_count)]
        _refuse_duplicates([tensor.name for tensor in table], self.source.name)
        start = -(-self.cursor.at // alignment) * alignment
        complete = self._check_ranges(table, start, data_required=data_required)
        tensors = tuple(
            StoredTensor(tensor.name, tensor.dtype, tensor.shape, start + tensor.offset, tensor.nbytes)
            for tensor in table
        )
        return Header(
            "gguf", tensors, metadata, (StoredFile(self.source.name, self.source.size, start),),
            sum(tensor.nbytes for tensor in tensors), self.source.size, complete,
        )  # fmt: skip

    def _version(self) -> None:
        if self.source.size < 4 or self.cursor.raw(4) != b"GGUF":
            raise self._bad("doesn't begin with GGUF", "give a .gguf file; a Git LFS pointer or a web page is not one")
        (version,) = self.cursor.numbers("I")
        if isinstance(version, int) and version and not version & 0xFFFF:
            self.cursor.use_order(">")
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version == 1:
            raise self._bad("is GGUF version 1, which llama.cpp no longer reads", "convert the model again")
        if version not in {2, 3}:
            raise self._bad(f"is GGUF version {version}; versions 2 and 3 are known", "the file is newer, or damaged")

    def _bound(self, what: str, count: int, most: int, smallest: int) -> None:
        if count > most or count * smallest > self.cursor.left:
            raise self._bad(f"claims {count:,} {what}, more than its {self.source.size:,} bytes may hold")

    def _metadata(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(count):
            key = self._name("key", MAX_KEY_BYTES)
            if key in metadata:
                raise self._bad(f"has the key {key[:80]!r} twice")
            (kind,) = self.cursor.numbers("I")
            metadata[key] = self._value(int(kind), key)
        return metadata

    def _name(self, what: str, most: int) -> str:
        length = self.cursor.number()
        if length > most:
            raise self._bad(f"has a {what} of {length:,} bytes at byte {self.cursor.at:,}; {most:,} is the most")
        try:
            return self.cursor.raw(length).decode()
        except UnicodeDecodeError:
            raise self._bad(f"has a {what} that is not UTF-8 at byte {self.cursor.at:,}") from None

    def _value(self, kind: int, key: str) -> Value:
        if kind in _NUMBERS:
            return self.cursor.numbers(_NUMBERS[kind][1])[0]
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array(key)
        raise self._bad(f"gives {key[:80]!r} a value of unknown type {kind}")

    def _text(self) -> str | Skipped:
        length = self.cursor.number()
        if self._keep(length, KEPT_TEXT):
            return self.cursor.raw(length).decode(errors="replace")
        self.cursor.skip(length)
        return Skipped("byte", length)

    def _array(self, key: str, depth: int = 1) -> tuple[int | float | bool | str, ...] | Skipped:
        (kind,) = self.cursor.numbers("I")
        count = self.cursor.number()
        if kind in _NUMBERS:
            name, code, size = _NUMBERS[int(kind)]
            if count * size > self.cursor.left:
                raise self.cursor.truncated(count * size)
            if count <= KEPT_ELEMENTS and self._keep(count * 8, KEPT_BYTES):
                return self.cursor.numbers(f"{count}{code}")
            self.cursor.skip(count * size)
            return Skipped(name, count)
        if kind == _STRING:
            return self._strings(count)
        if kind == _ARRAY and depth < MAX_NESTING:
            if count > KEPT_ELEMENTS:
                raise self._bad(f"nests {count:,} arrays in {key[:80]!r}; {KEPT_ELEMENTS:,} is the most")
            for _ in range(count):
                self._array(key, depth + 1)
            return Skipped("array", count)
        raise self._bad(f"gives {key[:80]!r} an array of type {kind}, unknown or nested too deeply")

    def _strings(self, count: int) -> tuple[str, ...] | Skipped:
        if count <= KEPT_STRINGS:
            texts = [self._text() for _ in range(count)]
            kept = tuple(text for text in texts if isinstance(text, str))
            if len(kept) == count:
                return kept
        else:
            self.cursor.skip_strings(count)
        return Skipped("string", count)

    def _keep(self, nbytes: int, most: int) -> bool:
        """Whether a value may stay in memory: each is bounded, and so is their sum."""
        if nbytes > most or self.kept + nbytes > KEPT_BYTES:
            return False
        self.kept += nbytes
        return True

    def _alignment(self, metadata: dict[str, Value]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment is True or alignment not in ALIGNMENTS:
            raise self._bad(f"has general.alignment {alignment!r}, which must be a power of two up to 2^20")
        return alignment

    def _tensor(self, alignment: int) -> StoredTensor:
        name = self._name("tensor name", MAX_NAME_BYTES)
        (dimensions,) = self.cursor.numbers("I")
        if dimensions > MAX_DIMENSIONS:
            raise self._bad(f"gives {name} {dimensions:,} dimensions; {MAX_DIMENSIONS} is the most")
        *extents, type_id, offset = (int(number) for number in self.cursor.numbers(f"{int(dimensions)}QIQ"))
        shape = tuple(reversed(extents))
        if 0 in shape or prod(shape) >= 2**63:
            raise self._bad(f"gives {name} the impossible shape {shape}")
        if offset % alignment:
            raise self._bad(f"puts {name} at offset {offset:,}, not a multiple of {alignment}")
        try:
            storage = by_id(type_id)
            return StoredTensor(name, storage.name, shape, offset, storage.bytes_of(shape))
        except SizeupError as error:
            raise BadFile(f"{self.source.name}: {name}: {error.message}", hint=error.hint) from None

    def _check_ranges(self, table: list[StoredTensor], start: int, *, data_required: bool) -> bool:
        """Whether the data of all tensors is in the file. Raises BadFile when two overlap, or any is cut off."""
        end, last = 0, ""
        for tensor in sorted(table, key=lambda tensor: tensor.offset):
            if tensor.offset < end:
                raise self._bad(f"lets {tensor.name} begin inside {last}")
            end, last = tensor.offset + tensor.nbytes, tensor.name
        complete = not table or start + end <= self.source.size
        if data_required and not complete:
            raise self._bad(
                f"ends at byte {self.source.size:,}, and {last} ends at {start + end:,}: it is incomplete",
                "finish the download, or download it again",
            )
        return complete

    def _bad(self, what: str, hint: str = "the file is damaged: download it again") -> BadFile:
        return BadFile(f"{self.source.name} {what}", hint=hint)


def _refuse_duplicates(names: list[str], origin: str) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise BadFile(f"{origin} has the tensor {twice} twice", hint="the file is damaged: download it again")
