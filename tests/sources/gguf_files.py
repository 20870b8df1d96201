"""GGUF files for tests: real ones from the official writer, and raw ones assembled byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np

LITTLE, BIG = "<", ">"


def write_real(path: Path, *, vocabulary: int = 32, big_endian: bool = False, layers: int = 2) -> Path:
    """A small llama-like file with several tensor types, from the `gguf` package."""
    order = gguf.GGUFEndian.BIG if big_endian else gguf.GGUFEndian.LITTLE
    writer = gguf.GGUFWriter(path, "llama", endianess=order)
    add_metadata(writer, vocabulary, layers)
    add_tensors(writer, layers, big_endian=big_endian)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_metadata(writer: gguf.GGUFWriter, vocabulary: int, layers: int) -> None:
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_languages(["en", "de"])
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_head_count(8)
    writer.add_head_count_kv([2] * layers)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_chat_template("{{ messages }}")
    writer.add_token_list([f"token{number}" for number in range(vocabulary)])
    writer.add_token_scores([0.5] * vocabulary)
    writer.add_token_types([1] * vocabulary)


def add_tensors(writer: gguf.GGUFWriter, layers: int, *, big_endian: bool = False) -> None:
    writer.add_tensor("token_embd.weight", np.zeros((32, 256), dtype=np.float16))
    for layer in range(layers):
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", np.zeros(256, dtype=np.float32))
        if not big_endian:
            quantized = gguf.quants.quantize(np.ones((4, 256), dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(f"blk.{layer}.ffn_up.weight", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"blk.{layer}.ffn_down.weight", np.zeros((3, 5, 7), dtype=np.float32))


def text(value: str | bytes, order: str = LITTLE) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(f"{order}Q", len(data)) + data


def key(name: str, kind: int, value: bytes, order: str = LITTLE) -> bytes:
    return text(name, order) + struct.pack(f"{order}I", kind) + value


def tensor(name: str, shape: tuple[int, ...] = (256,), kind: int = 0, offset: int = 0) -> bytes:
    """One row of the tensor table; the shape is row-major."""
    extents = struct.pack(f"<{len(shape)}Q", *reversed(shape))
    return text(name) + struct.pack("<I", len(shape)) + extents + struct.pack("<IQ", kind, offset)


def raw(
    keys: list[bytes] | bytes = b"",
    tensors: list[bytes] | bytes = b"",
    *,
    version: int = 3,
    key_count: int | None = None,
    tensor_count: int | None = None,
    data: int = 0,
) -> bytes:
    """A file with any claim in it, padded to 32, with `data` bytes of values."""
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    head = b"GGUF" + struct.pack("<IQQ", version, *counts)
    head += keys if isinstance(keys, bytes) else b"".join(keys)
    head += tensors if isinstance(tensors, bytes) else b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + b"\0" * data


def large_vocabulary(tokens: int = 128_256, merges: int = 280_147) -> bytes:
    """A header as large as Llama 3's: tokens, their types and merges, and some tensors without data."""
    order = struct.Struct("<Q")
    token_data = b"".join(order.pack(8) + b"%08d" % number for number in range(tokens))
    merge_data = b"".join(order.pack(13) + b"%06d %06d" % (number, number) for number in range(merges))
    keys = [
        key("general.architecture", 8, text("llama")),
        key("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, tokens) + token_data),
        key("tokenizer.ggml.token_type", 9, struct.pack("<IQ", 5, tokens) + bytes(4 * tokens)),
        key("tokenizer.ggml.merges", 9, struct.pack("<IQ", 8, merges) + merge_data),
    ]
    names = [f"blk.{number // 9}.part{number % 9}.weight" for number in range(291)]
    table = [tensor(name, (32,), 0, 128 * place) for place, name in enumerate(names)]
    return raw(keys, table, data=128 * len(names))
