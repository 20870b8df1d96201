"""Coverage-guided fuzzing of everything that reads foreign bytes; needs `pip install atheris`.

    python tests/fuzz/fuzz_sources.py gguf -max_total_time=120
    python tests/fuzz/fuzz_sources.py safetensors|index|config|manifest -max_total_time=120

A finding is any exception that is not a SizeupError, or a header whose tensors lie outside its file.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from sizeup.errors import SizeupError
    from sizeup.models.config import Config, parse_config
    from sizeup.models.sources import gguf, ollama, safetensors
    from sizeup.models.sources.bytesource import InMemory
    from sizeup.models.sources.header import Header


def fuzz_gguf(data: bytes) -> None:
    """Bytes as they are, and as the body behind a good magic number."""
    for file in (data, b"GGUF\3\0\0\0" + data):
        check(gguf.read_gguf, file)


def fuzz_safetensors(data: bytes) -> None:
    """Bytes as they are, and as the JSON of a header with a right length."""
    for file in (data, struct.pack("<Q", len(data)) + data, struct.pack("<Q", len(data)) + data + bytes(64)):
        check(safetensors.read_safetensors, file)


def fuzz_index(data: bytes) -> None:
    """An index of shards."""
    safetensors.parse_index(data, "index")


def fuzz_config(data: bytes) -> None:
    """A configuration and every getter."""
    config = Config(parse_config(data, "config"))
    for name in list(config.data)[:8]:
        for read in (
            config.int,
            config.float,
            config.bool,
            config.str,
            config.list,
            config.ints,
            config.strs,
            config.sub,
        ):
            try:
                read(name)
            except SizeupError:
                continue


def fuzz_manifest(data: bytes) -> None:
    """An Ollama manifest."""
    ollama.parse_layers(data, Path("manifest"), Path("store"))


def check(read: Callable[[InMemory], Header], file: bytes) -> None:
    """A header that is accepted keeps its tensors inside the file."""
    try:
        header = read(InMemory(file))
    except SizeupError:
        return
    for tensor in header.tensors:
        assert 0 <= tensor.offset <= tensor.offset + tensor.nbytes <= len(file), tensor


def quietly(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target, with expected failures passed over."""

    def once(data: bytes) -> None:
        try:
            target(data)
        except SizeupError:
            return

    return once


if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, quietly(globals()[f"fuzz_{name}"]))
    atheris.Fuzz()
