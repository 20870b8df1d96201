"""The GGUF reader: equal to the official package on its own files, and unmoved by hostile ones."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from pathlib import Path

import gguf as official
import pytest
from gguf_files import BIG, key, large_vocabulary, raw, tensor, text, write_real
from hypothesis import given, settings
from hypothesis import strategies as st

from sizeup.errors import BadFile, NotFound, SizeupError
from sizeup.models.sources.bytesource import InMemory
from sizeup.models.sources.gguf import merge_parts, part_names, read_gguf, read_gguf_path
from sizeup.models.sources.header import Header, Skipped


def read(data: bytes, **options: bool) -> Header:
    return read_gguf(InMemory(data, "hostile.gguf"), **options)


@pytest.mark.parametrize("big_endian", [False, True])
def test_agrees_with_the_official_reader(tmp_path: Path, big_endian: bool) -> None:
    path = write_real(tmp_path / "model.gguf", big_endian=big_endian)
    header = read_gguf_path(path)
    oracle = official.GGUFReader(path)

    assert {
        t.name: (t.tensor_type.name, tuple(map(int, reversed(t.shape))), int(t.data_offset), int(t.n_bytes))
        for t in oracle.tensors
    } == {t.name: (t.dtype, t.shape, t.offset, t.nbytes) for t in header.tensors}
    assert [t.name for t in oracle.tensors] == [t.name for t in header.tensors]
    for name, field in oracle.fields.items():
        if not name.startswith("GGUF."):
            value = field.contents()
            assert (tuple(value) if isinstance(value, list) else value) == header.metadata[name], name
    assert header.file_bytes == path.stat().st_size
    assert header.data_bytes == sum(t.nbytes for t in header.tensors)
    assert header.complete


def test_vocabulary_is_counted_and_not_kept() -> None:
    header = read(large_vocabulary(5000, 6000))

    assert header.length("tokenizer.ggml.tokens") == 5000
    assert header.metadata["tokenizer.ggml.merges"] == Skipped("string", 6000)
    assert header.metadata["tokenizer.ggml.token_type"] == Skipped("i32", 5000)


def test_a_large_vocabulary_takes_less_than_an_eighth_of_a_second(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    path.write_bytes(large_vocabulary())
    times = []
    for _ in range(3):
        start = time.perf_counter()
        header = read_gguf_path(path)
        times.append(time.perf_counter() - start)

    assert header.length("tokenizer.ggml.tokens") == 128_256
    assert min(times) <= 0.12


def test_per_layer_arrays_are_kept() -> None:
    values = struct.pack("<IQ", 4, 3) + struct.pack("<3I", 8, 0, 4)
    pattern = struct.pack("<IQ", 7, 4) + bytes([1, 1, 0, 1])
    header = read(raw([key("a.head_count_kv", 9, values), key("a.sliding_window_pattern", 9, pattern)]))

    assert header.metadata == {"a.head_count_kv": (8, 0, 4), "a.sliding_window_pattern": (True, True, False, True)}


def test_nested_arrays_are_walked_to_a_bounded_depth() -> None:
    inner = struct.pack("<IQ", 4, 2) + bytes(8)
    nested = struct.pack("<IQ", 9, 2) + inner * 2

    assert read(raw([key("n", 9, nested)])).metadata == {"n": Skipped("array", 2)}
    deep = b"".join(struct.pack("<IQ", 9, 1) for _ in range(50)) + inner
    with pytest.raises(BadFile, match="nested too deeply"):
        read(raw([key("n", 9, deep)]))


def test_a_long_text_is_skipped() -> None:
    header = read(raw([key("tokenizer.huggingface.json", 8, text(b"x" * 300_000)), key("b", 4, bytes(4))]))

    assert header.metadata == {"tokenizer.huggingface.json": Skipped("byte", 300_000), "b": 0}


def test_version_2_is_read_and_others_are_named() -> None:
    assert read(raw([key("a", 4, bytes(4))], version=2)).metadata == {"a": 0}
    for version, words in ((1, "version 1"), (4, "version 4"), (0, "version 0")):
        with pytest.raises(BadFile, match=words):
            read(raw(version=version))


def test_big_endian_lengths() -> None:
    data = b"GGUF" + struct.pack(">IQQ", 3, 0, 1) + key("general.name", 8, text("big", BIG), BIG)

    assert read(data).metadata == {"general.name": "big"}


HUGE = 2**60
HOSTILE = {
    "not a gguf": (b"PK\3\4" + bytes(100), "doesn't begin with GGUF"),
    "empty": (b"", "doesn't begin with GGUF"),
    "a git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "doesn't begin with GGUF"),
    "2^60 tensors": (raw(tensor_count=HUGE), "1,152,921,504,606,846,976 tensors"),
    "2^60 keys": (raw(key_count=HUGE), "keys"),
    "2^64-1 keys": (raw(key_count=2**64 - 1), "keys"),
    "a key of 2^60 bytes": (raw(struct.pack("<Q", HUGE) + bytes(64), key_count=1), "key of"),
    "a string of 2^60 bytes": (raw([key("a", 8, struct.pack("<Q", HUGE))]), "truncated"),
    "2^60 numbers": (raw([key("a", 9, struct.pack("<IQ", 4, HUGE))]), "truncated"),
    "2^60 strings": (raw([key("a", 9, struct.pack("<IQ", 8, HUGE))]), "truncated"),
    "100 strings, one of 2^63 bytes": (
        raw([key("a", 9, struct.pack("<IQ", 8, 100) + struct.pack("<QQ", 0, 2**63) + bytes(900))]),
        "truncated",
    ),
    "100 strings, one of 2^64-1 bytes": (
        raw([key("a", 9, struct.pack("<IQ", 8, 100) + struct.pack("<Q", 2**64 - 1) + bytes(900))]),
        "truncated",
    ),
    "2^60 arrays": (raw([key("a", 9, struct.pack("<IQ", 9, HUGE))]), "nests"),
    "an unknown value type": (raw([key("a", 99, bytes(8))]), "unknown type 99"),
    "an array of an unknown type": (raw([key("a", 9, struct.pack("<IQ", 77, 1) + bytes(8))]), "type 77"),
    "a key twice": (raw([key("a", 4, bytes(4))] * 2), "'a' twice"),
    "a key that is not UTF-8": (raw([text(b"\xff\xfe") + struct.pack("<I", 4) + bytes(4)]), "not UTF-8"),
    "alignment 0": (raw([key("general.alignment", 4, bytes(4))]), "power of two"),
    "alignment 33": (raw([key("general.alignment", 4, struct.pack("<I", 33))]), "alignment 33"),
    "alignment 2^31": (raw([key("general.alignment", 4, struct.pack("<I", 2**31))]), "alignment"),
    "alignment as text": (raw([key("general.alignment", 8, text("32"))]), "'32'"),
    "alignment true": (raw([key("general.alignment", 7, b"\1")], [tensor("a")], data=1024), "alignment True"),
    "an unknown ggml type": (raw(tensors=[tensor("a", kind=1234)], data=1024), "unknown GGML type 1234"),
    "a removed ggml type": (raw(tensors=[tensor("a", kind=31)], data=1024), "Q4_0_4_4"),
    "5 dimensions": (raw(tensors=[tensor("a", (1,) * 5)], data=64), "5 dimensions"),
    "2^32-1 dimensions": (raw(tensors=[text("a") + struct.pack("<I", 2**32 - 1) + bytes(99)]), "dimensions"),
    "a dimension of 0": (raw(tensors=[tensor("a", (0, 4))], data=64), "impossible shape"),
    "a shape of 2^120": (raw(tensors=[tensor("a", (HUGE, HUGE))], data=64), "impossible shape"),
    "a shape of 2^60": (raw(tensors=[tensor("a", (HUGE,))], data=64), "incomplete"),
    "a row that is no whole block": (raw(tensors=[tensor("a", (3, 100), 12)], data=999), "not a whole number"),
    "an offset beyond the file": (raw(tensors=[tensor("a", offset=2**62)], data=1024), "incomplete"),
    "an offset out of line": (raw(tensors=[tensor("a", offset=5)], data=2048), "not a multiple of 32"),
    "overlapping tensors": (raw(tensors=[tensor("a"), tensor("b", offset=512)], data=4096), "begin inside a"),
    "a tensor twice": (raw(tensors=[tensor("a"), tensor("a", offset=1024)], data=4096), "tensor a twice"),
    "a tensor name of 2^40 bytes": (raw(tensors=[struct.pack("<Q", 2**40) + bytes(50)]), "tensor name"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_claims_are_refused_without_reserving_memory(case: str) -> None:
    data, words = HOSTILE[case]
    tracemalloc.start()
    try:
        with pytest.raises(BadFile, match=words) as caught:
            read(data)
        assert caught.value.hint
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_a_sparse_file_that_claims_everything_stays_in_one_window(tmp_path: Path) -> None:
    """A file really as large as it claims, with nothing in it: a terabyte of empty strings and one huge text."""
    path = tmp_path / "sparse.gguf"
    for body in (
        key("a", 9, struct.pack("<IQ", 8, 2**36)),
        key("a", 8, struct.pack("<Q", 2**38)),
        key("a", 9, struct.pack("<IQ", 8, 60) + struct.pack("<Q", 2**38)),
    ):
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 3) + body)
        os.truncate(path, 2**40)
        tracemalloc.start()
        started = time.perf_counter()
        with pytest.raises(BadFile):
            read_gguf_path(path)
        assert time.perf_counter() - started < 5
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
        tracemalloc.stop()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = write_real(tmp_path / "model.gguf", vocabulary=3, layers=1).read_bytes()
    header = read(data)
    start, end = header.files[0].data_start, max(t.offset + t.nbytes for t in header.tensors)
    for length in (*range(start), *range(start, end, 997), end - 1):
        with pytest.raises(BadFile):
            read(data[:length])


def test_a_weightless_file_is_read_when_data_is_not_required(tmp_path: Path) -> None:
    data = write_real(tmp_path / "model.gguf").read_bytes()
    whole = read(data)
    header = read(data[: whole.files[0].data_start], data_required=False)

    assert not header.complete
    assert whole.tensors == header.tensors
    assert whole.data_bytes == header.data_bytes


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_random_bytes(data: bytes) -> None:
    for file in (data, b"GGUF" + data, raw(data, key_count=3), raw(tensors=data, tensor_count=2)):
        try:
            header = read(file)
        except SizeupError:
            continue
        assert header.data_bytes <= len(file)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_flipped_byte_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    global _FLIPPED  # noqa: PLW0603
    _FLIPPED = (
        _FLIPPED or write_real(tmp_path_factory.mktemp("flip") / "model.gguf", vocabulary=4, layers=1).read_bytes()
    )
    changed = bytearray(_FLIPPED)
    for place in data.draw(st.lists(st.integers(0, 1200), min_size=1, max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))
    try:
        header = read(bytes(changed))
    except SizeupError:
        return
    assert all(t.nbytes > 0 and t.offset + t.nbytes <= len(changed) for t in header.tensors)


_FLIPPED = b""


def split(tmp_path: Path) -> list[Path]:
    """Three parts from the official writer."""
    writer = official.GGUFWriter(tmp_path / "model.gguf", "llama", split_max_tensors=2)
    import numpy as np

    writer.add_block_count(5)
    for number in range(5):
        writer.add_tensor(f"blk.{number}.attn_norm.weight", np.full(64, number, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(tmp_path.glob("model-*.gguf"))


def test_a_split_model_is_one_header_from_any_part(tmp_path: Path) -> None:
    parts = split(tmp_path)
    assert len(parts) == 3
    for part in parts:
        header = read_gguf_path(part)
        assert [f"blk.{number}.attn_norm.weight" for number in range(5)] == [t.name for t in header.tensors]
        assert [t.file for t in header.tensors] == [0, 0, 1, 1, 2]
        assert sum(p.stat().st_size for p in parts) == header.file_bytes
        assert header.metadata["llama.block_count"] == 5


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    parts = split(tmp_path)
    parts[1].unlink()
    with pytest.raises(NotFound, match=r"model-00002-of-00003\.gguf is missing"):
        read_gguf_path(parts[0])


def test_parts_of_different_models_are_refused(tmp_path: Path) -> None:
    parts = [read_gguf_path_alone(path) for path in split(tmp_path)]
    with pytest.raises(BadFile, match=r"part 2.*split.no is 2"):
        merge_parts([parts[0], parts[2], parts[1]])
    with pytest.raises(BadFile, match="one of 3 parts, and 1 are here"):
        merge_parts(parts[:1])


def read_gguf_path_alone(path: Path) -> Header:
    return read_gguf(InMemory(path.read_bytes(), str(path)))


def test_part_names() -> None:
    assert part_names("dir/m-00002-of-00002.gguf") == ["dir/m-00001-of-00002.gguf", "dir/m-00002-of-00002.gguf"]
    assert part_names("m.gguf") == ["m.gguf"]
    with pytest.raises(BadFile, match="part 3 of 2"):
        part_names("m-00003-of-00002.gguf")


def test_files_that_are_not_files(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        read_gguf_path(tmp_path / "absent.gguf")
    with pytest.raises(BadFile, match="not a regular file"):
        read_gguf_path(tmp_path)
