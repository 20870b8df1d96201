"""Blocks, rows and side data: exact bytes of single tensors."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizeup.errors import BadInput
from sizeup.formats import Side, Storage, lookup
from sizeup.formats.storage import STORAGES

extents = st.integers(0, 5000)
storages = st.sampled_from(list(STORAGES.values()))


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("F32", "F32"), ("fp32", "F32"), ("float32", "F32"), ("torch.bfloat16", "BF16"), ("bf16", "BF16"),
        ("Q4_K", "Q4_K"), ("q8_0", "Q8_0"), ("mxfp4", "MXFP4"), ("F8_E4M3", "F8_E4M3"), ("I32", "I32"), ("U8", "U8"),
        ("float8_e4m3fn", "F8_E4M3"), ("Fp16", "F16"), ("iq4-nl", "IQ4_NL"), ("uint8", "U8"), ("BOOL", "BOOL"),
    ],
)  # fmt: skip
def test_lookup_knows_every_usual_spelling(spelling, name):
    assert lookup(spelling).name == name


@pytest.mark.parametrize("name", ["", "Q4_Q", "fp33", "🦙", "x" * 100_000])
def test_unknown_name_is_bad_input_with_a_hint(name):
    with pytest.raises(BadInput) as caught:
        lookup(name)
    assert caught.value.hint
    assert len(caught.value.message) < 200


def test_a_near_miss_names_the_nearest():
    with pytest.raises(BadInput) as caught:
        lookup("Q4_KK")
    assert "Q4_K" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("F32", (), 4),
        ("F32", (3,), 12),
        ("BF16", (128256, 4096), 128256 * 4096 * 2),
        ("Q4_K", (4096, 14336), 4096 * 56 * 144),
        ("Q8_0", (8, 2, 64), 16 * 2 * 34),
        ("F4", (2, 3), 2 * 2),
        ("F8_E4M3", (0, 7), 0),
    ],
)
def test_bytes_of(name, shape, expected):
    assert lookup(name).bytes_of(shape) == expected
    assert lookup(name).term("t", shape).value == expected


def test_side_data_counts_partial_tiles():
    shape = (3, 200, 300)
    assert Side("scale", 4, (128, 128)).entries(shape) == 3 * 2 * 3
    assert Side("scale", 4, (1, 0)).entries(shape) == 3 * 200
    assert Side("scale", 2, (1, 128)).entries(shape) == 3 * 200 * 3
    assert Side("absmax", 4, (64,)).entries(shape) == -(-3 * 200 * 300 // 64)
    assert Side("scale", 4).entries(shape) == 1


def test_side_data_is_in_the_bytes_and_in_the_explanation():
    storage = Storage("int8 per row", 1, 1, (Side("scales", 4, (1, 0)),))
    assert storage.bytes_of((10, 20)) == 200 + 40
    term = storage.term("w", (10, 20))
    assert term.value == 240
    assert term.find("w scales").value == 40


def test_a_row_that_does_not_fit_is_refused():
    assert not lookup("Q4_K").fits((5, 100))
    with pytest.raises(BadInput, match="100"):
        lookup("Q4_K").bytes_of((5, 100))


@pytest.mark.parametrize("shape", [(-1,), (4, -256), (-2, -2)])
def test_negative_extents_are_refused(shape):
    with pytest.raises(BadInput):
        lookup("F32").bytes_of(shape)


@given(storages, extents, extents, st.integers(0, 20))
def test_bytes_add_up_over_rows(storage, rows, more_rows, blocks):
    columns = blocks * storage.block_elements
    together = storage.bytes_of((rows + more_rows, columns))
    assert together == storage.bytes_of((rows, columns)) + storage.bytes_of((more_rows, columns))


@given(storages, extents, st.integers(0, 20))
def test_bytes_hold_the_payload_and_grow(storage, rows, blocks):
    columns = blocks * storage.block_elements
    size = storage.bytes_of((rows, columns))
    assert 8 * size >= rows * columns
    assert size == rows * columns * storage.bits_per_weight / 8
    assert storage.bytes_of((rows + 1, columns)) >= size
    assert storage.bytes_of((rows, columns + storage.block_elements)) >= size


def test_import_is_cheap_and_compiles_no_patterns():
    code = (
        "import sys, time, msgspec, sizeup.errors, sizeup.quantity\n"
        "started = time.perf_counter()\n"
        "import sizeup.formats\n"
        "print(time.perf_counter() - started)\n"
        "assert not {'numpy', 'torch', 'dataclasses'} & {n for n in sys.modules}, 'heavy'\n"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.02
