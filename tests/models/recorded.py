"""The headers that record_headers.py kept, as the sources would give them."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from sizeup.models.sources.header import Header, Skipped, StoredFile, StoredTensor

FILE = Path(__file__).parent / "data" / "headers.json.gz"


@cache
def record() -> dict[str, Any]:
    """All families."""
    return json.loads(gzip.decompress(FILE.read_bytes()))


def families(kind: str = "safetensors") -> list[str]:
    """The families with a header of that kind."""
    return [name for name, family in record().items() if kind in family]


def config(family: str) -> dict[str, Any]:
    """The configuration that transformers wrote."""
    return record()[family]["config"]


def header(family: str, kind: str) -> Header:
    """The header of a family's file: `safetensors`, `gguf` or `mmproj`."""
    found = record()[family][kind]
    rows, metadata = (found, {}) if kind == "safetensors" else (found["tensors"], found["metadata"])
    tensors = tuple(StoredTensor(name, dtype, tuple(shape), 0, nbytes) for name, dtype, shape, nbytes in rows)
    total = sum(tensor.nbytes for tensor in tensors)
    own = "gguf" if kind != "safetensors" else kind
    return Header(
        own, tensors, {k: value(v) for k, v in metadata.items()}, (StoredFile(family, total, 0),), total, total
    )


def value(kept: Any) -> Any:
    """A metadata value from JSON."""
    if isinstance(kept, dict):
        return Skipped("string", kept["count"])
    return tuple(kept) if isinstance(kept, list) else kept
