"""GGUF files without weights and with random ones: read back by the reference reader, removed in the end."""

import errno
import json
import resource
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizeup.engines.llamacpp.randomweights import _HALVES, _PLAIN, stretch, write_random
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import file_content
from sizeup.engines.llamacpp.weightless import data_bytes, header, weightless_file, write_weightless
from sizeup.errors import BadInput, SizeupError
from sizeup.formats.gguf_tensors import GgufTensor
from sizeup.models.from_config import model_from_config

TENSORS = [GgufTensor("token_embd.weight", (512, 256), "Q4_K"), GgufTensor("blk.0.attn_norm.weight", (7,), "F32")]
METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.big": 1 << 40,
    "llama.negative": -3,
    "llama.scale": 0.5,
    "llama.yes": True,
    "llama.kv": [1, 0, 2],
    "llama.mixed": [-1, 1],
    "llama.windows": [True, False],
    "llama.names": ["a", "ü"],
}


def field(reader: gguf.GGUFReader, key: str):
    return reader.fields[key].contents()


def test_the_reference_reader_reads_it_back(tmp_path):
    path = tmp_path / "it.gguf"
    size = write_weightless(path, METADATA, TENSORS)

    reader = gguf.GGUFReader(path)

    assert {key: field(reader, key) for key in METADATA} == METADATA
    assert [(t.name, tuple(t.shape), t.tensor_type.name) for t in reader.tensors] == [
        ("token_embd.weight", (256, 512), "Q4_K"),
        ("blk.0.attn_norm.weight", (7,), "F32"),
    ]
    assert path.stat().st_size == size


def test_it_takes_no_room(tmp_path):
    path = tmp_path / "it.gguf"
    write_weightless(path, {}, [GgufTensor("t", (1 << 20, 1 << 10), "F32")])

    assert path.stat().st_size > 4 << 30
    assert path.stat().st_blocks * 512 < 1 << 20


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.booleans()
        | st.integers(-(2**31), 2**64 - 1)
        | st.text(max_size=20)
        | st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5),
        max_size=5,
    ),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=5, unique=True),
)
@settings(max_examples=50)
def test_any_header_is_aligned_and_read_back(tmp_path_factory, metadata, shapes):
    tensors = [GgufTensor(f"t{number}", shape, "F16") for number, shape in enumerate(shapes)]
    path = tmp_path_factory.mktemp("w") / "it.gguf"
    write_weightless(path, metadata, tensors)

    assert len(header(metadata, tensors)) % 32 == 0
    assert data_bytes(tensors) % 32 == 0
    if tensors and not any(key.startswith("GGUF.") or "general." in key for key in metadata):
        reader = gguf.GGUFReader(path)
        assert [tuple(map(int, t.shape))[::-1] for t in reader.tensors] == shapes


def test_the_file_is_removed_whatever_happens():
    with weightless_file(METADATA, TENSORS) as path:
        assert path.exists()
    assert not path.exists()

    with pytest.raises(RuntimeError, match="inside"), weightless_file(METADATA, TENSORS) as path:
        raise RuntimeError("inside")
    assert not path.exists()


@pytest.fixture
def files_of_a_mebibyte():
    """A file system that holds no larger files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("files_of_a_mebibyte")
@pytest.mark.parametrize("write", [write_weightless, write_random])
def test_a_file_that_is_too_large_is_a_clear_error(tmp_path, write):
    path = tmp_path / "it.gguf"

    with pytest.raises(SizeupError, match="can't write") as caught:
        write(path, METADATA, [GgufTensor("t", (1 << 10, 1 << 10), "F32")])
    assert "TMPDIR" in caught.value.hint
    assert not path.exists()


def test_random_weights_that_do_not_fit_are_refused_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2 << 30})())

    with pytest.raises(SizeupError, match="free"):
        write_random(tmp_path / "it.gguf", {}, [GgufTensor("t", (1 << 10, 1 << 20), "F32")])
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_a_temporary_file(monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(SizeupError, match="No space left"), weightless_file(METADATA, TENSORS):
        pass


@pytest.mark.parametrize("kind", [k for k in (*_HALVES, *_PLAIN, "MXFP4") if hasattr(gguf.GGMLQuantizationType, k)])
def test_random_blocks_are_finite_numbers(kind):
    block = gguf.GGMLQuantizationType[kind]
    raw = np.frombuffer(stretch(kind), dtype=np.uint8)
    size = gguf.GGML_QUANT_SIZES[block][1]
    values = gguf.quants.dequantize(raw[: len(raw) // size * size], block)

    assert np.isfinite(values).all()
    assert 0 < np.abs(values).max() < 1000


def test_random_weights_of_an_unknown_type_are_refused():
    with pytest.raises(BadInput, match="IQ1_M"):
        stretch("IQ1_M")


def test_a_file_of_random_weights_has_the_size_of_a_weightless_one(tmp_path, small_llama):
    content = file_content(small_llama, LlamaSetting(format="Q4_K_M"))

    size = write_random(tmp_path / "random.gguf", *content)

    assert size == write_weightless(tmp_path / "weightless.gguf", *content) == (tmp_path / "random.gguf").stat().st_size


def test_a_trillion_parameters_take_a_moment(tmp_path, truth_dir):
    config = json.loads(Path(truth_dir, "configs", "moonshotai--Kimi-K2-Instruct.json").read_text())
    model = model_from_config(config, "Kimi-K2")
    assert model.parameters > 1e12

    started = time.perf_counter()
    content = file_content(model, LlamaSetting(format="BF16"))
    size = write_weightless(tmp_path / "it.gguf", *content)

    assert size > 2e12
    assert time.perf_counter() - started < 2
