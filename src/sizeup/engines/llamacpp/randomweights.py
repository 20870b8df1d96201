"""A GGUF file with random weights: bytes and speed don't depend on values, so any shape can be measured.

A tensor is one stretch of random blocks, repeated. The scales inside the blocks are small and finite, so nothing
overflows on the way. Where a block keeps them: ggml/src/ggml-common.h (llama.cpp 0c1e570, October 2026).
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sizeup.engines.llamacpp.weightless import Value, aligned, data_bytes, header, tensor_bytes
from sizeup.errors import BadInput, SizeupError
from sizeup.formats.gguf_tensors import GgufTensor
from sizeup.formats.storage import lookup
from sizeup.quantity.units import format_bytes

#: GGML type → where a block keeps its half-precision scales and minima.
_HALVES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
    "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,), "IQ3_XXS": (0,), "IQ3_S": (0,), "IQ1_S": (0,),
    "IQ4_NL": (0,), "IQ4_XS": (0,), "TQ1_0": (52,), "TQ2_0": (64,), "F16": (0,),
}  # fmt: skip
_SMALL_HALF = b"\x00\x14"  # 2⁻¹⁰ in half precision
_PLAIN = {"F32": (b"\x00\x00\x80\x3c", 4), "BF16": (b"\x80\x3c", 2)}  # 2⁻⁶
_STRETCH_BYTES = 1 << 20
_RESERVE_BYTES = 1 << 30


def stretch(kind: str, seed: int = 0) -> bytes:
    """About a mebibyte of valid blocks of a type. Raises BadInput for a type that isn't known here."""
    storage = lookup(kind)
    if kind in _PLAIN:
        value, size = _PLAIN[kind]
        return value * (_STRETCH_BYTES // size)
    if kind == "MXFP4":
        return _blocks(storage.block_bytes, seed, {0: b"\x76"})
    if kind not in _HALVES:
        raise BadInput(f"random weights can't be written as {kind}", hint=f"one of {', '.join((*_HALVES, *_PLAIN))}")
    return _blocks(storage.block_bytes, seed, dict.fromkeys(_HALVES[kind], _SMALL_HALF))


def _blocks(size: int, seed: int, fixed: Mapping[int, bytes]) -> bytes:
    count = _STRETCH_BYTES // size
    raw = bytearray(random.Random(seed).randbytes(count * size))  # noqa: S311  weights, not secrets
    for offset, value in fixed.items():
        for place, byte in enumerate(value):
            raw[offset + place :: size] = bytes([byte]) * count
    return bytes(raw)


def write_random(path: Path, metadata: Mapping[str, Value], tensors: Sequence[GgufTensor]) -> int:
    """Write the whole file; returns its size.

    Raises SizeupError when it wouldn't fit on the disk (with 1 GiB to spare) or writing fails; nothing is left then.
    """
    head = header(metadata, tensors)
    size = len(head) + data_bytes(tensors)
    free = shutil.disk_usage(path.parent).free
    if free < size + _RESERVE_BYTES:
        raise SizeupError(
            f"{format_bytes(size)} of random weights don't fit in {path.parent}: {format_bytes(free)} free",
            hint="set TMPDIR to a folder with more space, or measure a smaller model",
        )
    try:
        with path.open("wb") as file:
            file.write(head)
            for piece in _data(tensors):
                file.write(piece)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise SizeupError(
            f"can't write {format_bytes(size)} of random weights in {path.parent}: {error.strerror}",
            hint="set TMPDIR to a folder with more space",
        ) from error
    return size


def _data(tensors: Sequence[GgufTensor]) -> Iterator[bytes]:
    stretches: dict[str, bytes] = {}
    for tensor in tensors:
        kind = lookup(tensor.stored).name
        if kind not in stretches:
            stretches[kind] = stretch(kind)
        piece = stretches[kind]
        size = tensor_bytes(tensor)
        for _ in range(size // len(piece)):
            yield piece
        yield piece[: size % len(piece)]
        yield b"\0" * (aligned(size) - size)
