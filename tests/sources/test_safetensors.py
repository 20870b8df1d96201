"""The safetensors reader: equal to the official package on its own files, and unmoved by hostile ones."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors_files import entry, model, raw, sharded, write

from sizeup.errors import BadConfig, BadFile, NotFound, SizeupError
from sizeup.models.sources.bytesource import InMemory
from sizeup.models.sources.header import Header
from sizeup.models.sources.safetensors import (
    DTYPES,
    INDEX,
    model_files,
    parse_index,
    read_safetensors,
    read_safetensors_path,
    read_sharded_path,
)


def read(data: bytes, **options: bool) -> Header:
    return read_safetensors(InMemory(data, "hostile.safetensors"), **options)


def test_agrees_with_the_official_reader(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    arrays = {
        "a": np.zeros((3, 5), dtype=np.float32), "b": np.zeros((2, 2, 2), dtype=np.float16),
        "scalar": np.zeros((), dtype=np.int64), "empty": np.zeros((0, 4), dtype=np.float32),
        "c": np.zeros(7, dtype=np.bool_), "d": np.zeros(3, dtype=np.uint8), "e": np.zeros(2, dtype=np.complex64),
    }  # fmt: skip
    save_file(arrays, path, metadata={"format": "np"})
    header = read_safetensors_path(path)
    with safe_open(path, "numpy") as oracle:
        expected = {
            name: (oracle.get_slice(name).get_dtype(), tuple(oracle.get_slice(name).get_shape()))
            for name in oracle.keys()  # noqa: SIM118
        }

    assert expected == {t.name: (t.dtype, t.shape) for t in header.tensors}
    assert sum(array.nbytes for array in arrays.values()) == header.data_bytes
    assert path.stat().st_size == header.file_bytes
    assert header.metadata == {"format": "np"}
    assert header.complete
    values = path.read_bytes()
    for tensor in header.tensors:
        assert arrays[tensor.name].tobytes() == values[tensor.offset : tensor.offset + tensor.nbytes]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype: str) -> None:
    bits = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64, "BF16": 16}.get(dtype)
    bits = bits or (8 if dtype.startswith("F8") else int("".join(filter(str.isdigit, dtype))))
    size = 3 * 8 * bits // 8
    (tensor,) = read(raw({"a": entry(0, size, dtype, [3, 8])}, size)).tensors

    assert (dtype, (3, 8), size) == (tensor.dtype, tensor.shape, tensor.nbytes)


HOSTILE = {
    "empty": (b"", "0 bytes long"),
    "seven bytes": (b"1234567", "7 bytes long"),
    "a header of 2^60 bytes": (raw({}, length=2**60), "claims a header of 1,152,921,504,606,846,976 bytes"),
    "a header of 2^64-1 bytes": (b"\xff" * 20, "claims a header"),
    "a zip": (b"PK\3\4" + bytes(100), "claims a header|not JSON"),
    "binary garbage": (raw(b"\xff\xfe\x00garbage"), "not JSON"),
    "a list": (raw(b"[1, 2]"), "not a JSON object"),
    "deep nesting": (raw(b"[" * 100_000), "not JSON"),
    "deep nesting inside": (raw(b'{"a":' * 100_000), "not JSON"),
    "NaN": (raw(b'{"a": NaN}'), "not JSON"),
    "a tensor that is a number": (raw({"a": 5}), "lacks dtype"),
    "no dtype": (raw({"a": {"shape": [1], "data_offsets": [0, 4]}}, 4), "lacks dtype"),
    "three offsets": (raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, 4), "lacks dtype"),
    "an unknown dtype": (raw({"a": entry(0, 4, "F99", [1])}, 4), "unknown dtype 'F99'"),
    "a GGML type": (raw({"a": entry(0, 144, "Q4_K", [256])}, 144), "unknown dtype 'Q4_K'"),
    "a dtype that is a list": (raw({"a": entry(0, 4, [], [1])}, 4), "unknown dtype"),
    "a shape that is text": (raw({"a": entry(0, 4, "F32", "1")}, 4), "impossible"),
    "a negative dimension": (raw({"a": entry(0, 4, "F32", [-1])}, 4), "impossible"),
    "two negative dimensions": (raw({"a": entry(0, 4, "F32", [-1, -1])}, 4), "impossible"),
    "a fraction of a dimension": (raw({"a": entry(0, 4, "F32", [1.0])}, 4), "impossible"),
    "a dimension of true": (raw({"a": entry(0, 4, "F32", [True])}, 4), "impossible"),
    "a dimension of 2^70": (raw({"a": entry(0, 4, "F32", [2**70])}, 4), "impossible|not JSON"),
    "a shape of 2^120": (raw({"a": entry(0, 4, "F32", [2**60, 2**60])}, 4), "which is not F32"),
    "a million dimensions": (raw({"a": entry(0, 4, "F32", [1] * 1_000_000)}, 4), "impossible"),
    "a range that ends before it begins": (raw({"a": entry(8, 4, "F32", [1])}, 8), "impossible"),
    "negative offsets": (raw({"a": entry(-4, 0, "F32", [1])}, 8), "impossible"),
    "a size that is not the shape's": (raw({"a": entry(0, 8, "F32", [1])}, 8), "8 bytes, which is not F32"),
    "half a byte": (raw({"a": entry(0, 2, "F4", [3])}, 2), "which is not F4"),
    "a claim of 2^60 bytes": (raw({"a": entry(0, 2**60, "U8", [2**60])}, 4), "incomplete"),
    "a gap": (raw({"a": entry(0, 4), "b": entry(8, 12)}, 12), "a gap before b"),
    "a gap at the start": (raw({"a": entry(4, 8)}, 8), "a gap before a"),
    "an overlap": (raw({"a": entry(0, 8), "b": entry(4, 12)}, 12), "an overlap of b"),
    "bytes of no tensor": (raw({"a": entry(0, 4)}, 100), "96 bytes that belong to no tensor"),
    "half a download": (raw({"a": entry(0, 400)}, 100), "incomplete"),
    "a name twice": (raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                         b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4), "a twice"),
    "a name twice, spelled differently": (raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                         b'"\\u0061":{"dtype":"F32","shape":[1],"data\\u005foffsets":[0,4]}}', 4), "a twice"),
    "metadata that is no object": (raw({"__metadata__": [1]}), "__metadata__"),
    "metadata that is no text": (raw({"__metadata__": {"a": 1}}), "__metadata__"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_claims_are_refused_without_reserving_memory(case: str) -> None:
    data, words = HOSTILE[case]
    tracemalloc.start()
    try:
        with pytest.raises(BadFile, match=words) as caught:
            read(data)
        assert caught.value.hint
        assert len(caught.value.message) < 400
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20 + 20 * len(data)
    finally:
        tracemalloc.stop()


def test_every_truncation_is_refused() -> None:
    data = model({"a": 3, "b": 5}, {"format": "pt"})
    for length in range(len(data)):
        with pytest.raises(BadFile):
            read(data[:length])


def test_a_tensor_may_be_called_data_offsets() -> None:
    assert read(model({"data_offsets": 1, "a": 2})).data_bytes == 12


def test_a_header_alone_is_read_when_data_is_not_required() -> None:
    data = model({"a": 3, "b": 5})
    header = read(data[:-20], data_required=False)

    assert (header.complete, header.data_bytes) == (False, 32)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_random_bytes(data: bytes) -> None:
    for file in (data, raw(data), raw(data, 16), raw(b'{"a":' + data + b"}", 8)):
        try:
            header = read(file)
        except SizeupError:
            continue
        assert header.data_bytes <= len(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(DTYPES),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_random_json(value: object) -> None:
    try:
        read(raw({"a": value}, 4))
        read(raw({"__metadata__": value}, 0))
    except SizeupError:
        pass


def test_shards_are_merged_as_the_index_says(tmp_path: Path) -> None:
    header = read_sharded_path(write(tmp_path, sharded()) / INDEX)

    assert [(t.name, t.file) for t in header.tensors] == [
        ("embed.weight", 0),
        ("layers.0.weight", 0),
        ("layers.1.weight", 1),
        ("head.weight", 1),
    ]
    assert header.data_bytes == 640
    assert header.file_bytes == sum(len(data) for name, data in sharded().items() if name.endswith(".safetensors"))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write(tmp_path, sharded())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(NotFound, match=r"1 of 2 shards are missing.*model-00002-of-00002"):
        read_sharded_path(tmp_path / INDEX)


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path: Path) -> None:
    files = sharded()
    files["model-00002-of-00002.safetensors"] = model({"layers.1.weight": 16})
    with pytest.raises(BadFile, match=r"puts head.weight into model-00002"):
        read_sharded_path(write(tmp_path, files) / INDEX)


def test_a_tensor_in_two_shards_counts_where_the_index_puts_it(tmp_path: Path) -> None:
    files = sharded()
    files["model-00002-of-00002.safetensors"] = model({"layers.1.weight": 16, "head.weight": 64, "embed.weight": 64})
    assert read_sharded_path(write(tmp_path, files) / INDEX).data_bytes == 640


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"weight_map": {}}, "no weight_map"),
        ({"weight_map": [1]}, "no weight_map"),
        ({}, "no weight_map"),
        ({"weight_map": {"a": "../../etc/passwd"}}, "not a safetensors file beside it"),
        ({"weight_map": {"a": "/etc/x.safetensors"}}, "not a safetensors file beside it"),
        ({"weight_map": {"a": "..\\x.safetensors"}}, "not a safetensors file beside it"),
        ({"weight_map": {"a": "pytorch_model.bin"}}, "not a safetensors file beside it"),
        ({"weight_map": {"a": 5}}, "not a safetensors file beside it"),
    ],
)
def test_hostile_indexes(index: object, words: str) -> None:
    with pytest.raises(BadFile, match=words):
        parse_index(json.dumps(index).encode(), "index.json")


@pytest.mark.parametrize("size", [-1, 0, "5", None, True, 1e30, float("nan"), float("inf"), 0.5])
def test_an_impossible_total_is_unknown(size: object) -> None:
    raw_index = json.dumps({"metadata": {"total_size": size}, "weight_map": {"a": "m.safetensors"}}).encode()
    assert parse_index(raw_index, "index.json").total_size is None


def test_a_tensor_twice_in_the_index() -> None:
    with pytest.raises(BadConfig, match="gives a twice"):
        parse_index(b'{"weight_map": {"a": "m.safetensors", "a": "n.safetensors"}}', "index.json")


def test_which_files_are_the_model() -> None:
    assert model_files(["consolidated.safetensors", "model.safetensors"]) == ["model.safetensors"]
    assert model_files(["adapter_model.safetensors", "x.safetensors"]) == ["x.safetensors"]
    assert model_files(["adapter_model.safetensors"]) == ["adapter_model.safetensors"]
    assert model_files([]) == []
    shards = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]
    assert model_files([*shards, "consolidated.safetensors"]) == shards
    with pytest.raises(BadFile, match="m-00002-of-00002"):
        model_files(shards[:1])
    with pytest.raises(BadFile, match="several files"):
        model_files(["a.safetensors", "b.safetensors"])
