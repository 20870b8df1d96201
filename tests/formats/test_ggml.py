"""The GGML type table against the gguf package, and the rows that don't fit."""

import gguf
import pytest

from sizeup.errors import BadFile, BadInput
from sizeup.formats import ggml
from sizeup.formats.layouts import GGML_REMOVED
from sizeup.formats.storage import STORAGES

# gguf ≤ 0.19 counts two f32 in Q8_1; the engine has stored two f16 since 2023. No file holds the type.
_ORACLE_IS_WRONG = {"Q8_1"}


@pytest.mark.parametrize("kind", sorted(set(gguf.GGMLQuantizationType)), ids=lambda kind: kind.name)
def test_table_equals_the_gguf_package(kind):
    storage = ggml.by_id(int(kind))
    assert storage.name == kind.name
    if kind.name not in _ORACLE_IS_WRONG:
        assert (storage.block_elements, storage.block_bytes) == gguf.GGML_QUANT_SIZES[kind]


def test_types_newer_than_the_oracle():
    assert (STORAGES["Q2_0"].block_elements, STORAGES["Q2_0"].block_bytes, ggml.TYPE_IDS["Q2_0"]) == (64, 18, 42)
    assert (STORAGES["Q8_1"].block_elements, STORAGES["Q8_1"].block_bytes) == (32, 36)


@pytest.mark.parametrize("type_id", list(GGML_REMOVED))
def test_removed_types_are_known_as_removed(type_id):
    with pytest.raises(BadFile, match=f"{type_id}.*removed"):
        ggml.by_id(type_id)


@pytest.mark.parametrize("type_id", [-1, 43, 2**31, 2**63])
def test_unknown_types_name_the_number(type_id):
    with pytest.raises(BadFile, match=str(type_id)):
        ggml.by_id(type_id)


@pytest.mark.parametrize(
    ("wanted", "row", "stored"),
    [
        ("Q4_K", 256, "Q4_K"), ("Q4_K", 288, "Q5_0"), ("Q4_K", 100, "F16"), ("Q6_K", 96, "Q8_0"), ("Q5_K", 96, "Q5_1"),
        ("IQ2_XXS", 96, "IQ4_NL"), ("IQ4_XS", 33, "F16"), ("Q2_K", 32, "Q4_0"), ("TQ2_0", 32, "Q4_0"),
        ("Q8_0", 100, "F16"), ("MXFP4", 48, "F16"), ("Q2_0", 96, "Q4_0"), ("Q1_0", 128, "Q1_0"), ("F16", 7, "F16"),
    ],
)  # fmt: skip
def test_fallback(wanted, row, stored):
    assert ggml.fallback(wanted, row) == stored


def test_q1_0_has_no_fallback():
    with pytest.raises(BadInput, match="Q1_0"):
        ggml.fallback("Q1_0", 96)
