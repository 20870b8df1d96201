"""Exact row bytes of KV cache types."""

import pytest

from sizeup.errors import BadInput
from sizeup.formats.kv import KV_TYPES, kv_row_bytes, kv_storage, kv_types_for


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("f32", 4096), ("f16", 2048), ("bf16", 2048), ("q8_0", 1088), ("q5_1", 768), ("q5_0", 704), ("q4_1", 640),
        ("q4_0", 576), ("iq4_nl", 576), ("fp8", 1024), ("fp8_e5m2", 1024),
    ],
)  # fmt: skip
def test_a_row_of_1024_values(name, expected):
    assert kv_row_bytes(name, 1024) == expected


def test_deepseek_v3s_latent_row():
    assert kv_row_bytes("f16", 576) == 1152
    assert kv_row_bytes("q8_0", 576) == 612


@pytest.mark.parametrize("name", ["Q4_K", "I8", "nonsense"])
def test_types_that_no_engine_offers(name):
    with pytest.raises(BadInput) as caught:
        kv_storage(name)
    assert caught.value.hint


def test_rows_that_are_not_whole_blocks():
    with pytest.raises(BadInput):
        kv_row_bytes("q8_0", 80)
    assert kv_types_for(80) == ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
    assert kv_types_for(128) == KV_TYPES
