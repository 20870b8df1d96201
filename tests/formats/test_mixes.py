"""Which tensor gets which type: against llama.cpp's own quantizer, and against published sizes."""

from __future__ import annotations

import csv
import json
import sys
from math import prod
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

import llamacpp_oracle as oracle
from gguf_families import FAMILIES

from sizeup.errors import BadInput
from sizeup.formats import ggml
from sizeup.formats.gguf_tensors import GgufTensor, converted_type, kind_of, may_quantize
from sizeup.formats.mixes import MIXES, MixHparams, mix, mix_bytes, mix_types
from sizeup.formats.storage import STORAGES

RECORDED = json.loads(oracle.RECORDED.read_text())
needs_llamacpp = pytest.mark.skipif(oracle.python() is None, reason="SIZEUP_LLAMACPP_PYTHON names no environment")


def assigned(family, name, imatrix):
    types = mix_types(name, family.tensors, hparams=family.hparams, imatrix=imatrix, source=family.source)
    return dict(zip([tensor.name for tensor in family.tensors], types, strict=True))


@pytest.mark.parametrize("family_name", FAMILIES)
def test_every_tensor_as_recorded_from_llamacpp(family_name):
    family, recorded = FAMILIES[family_name], RECORDED["families"][family_name]
    wrong = {}
    for case in [f"{name}{' imatrix' * imatrix}" for name, imatrix in oracle.CASES]:
        letters = recorded.get(case) or recorded.get(case.removesuffix(" imatrix"))
        if letters is None:
            continue
        types = assigned(family, case.removesuffix(" imatrix"), case.endswith(" imatrix"))
        expected = [RECORDED["letters"][letter] for letter in letters]
        wrong |= {
            (case, tensor): (kind, want)
            for (tensor, kind), want in zip(types.items(), expected, strict=True)
            if kind != want
        }
    assert wrong == {}


def test_the_record_is_complete():
    assert set(RECORDED["families"]) == set(FAMILIES)
    refused = {(name, mix) for name in FAMILIES for mix in oracle.QUANTIZED if mix not in RECORDED["families"][name]}
    assert {mix for _, mix in refused} == {"Q1_0"}
    for name, mix_name in refused:
        with pytest.raises(BadInput):
            assigned(FAMILIES[name], mix_name, imatrix=False)


@pytest.mark.llamacpp
@needs_llamacpp
@pytest.mark.parametrize("name", FAMILIES)
def test_every_tensor_as_llamacpp_decides_now(name, tmp_path):
    family = FAMILIES[name]
    for (mix_name, imatrix), types in zip(
        oracle.CASES, oracle.ask(family, tmp_path / "m.gguf", oracle.CASES), strict=True
    ):
        if isinstance(types, dict):
            assert assigned(family, mix_name, imatrix) == types, mix_name


@pytest.mark.llamacpp
@needs_llamacpp
@pytest.mark.parametrize("name", ["llama, tied", "mixtral", "gpt-oss", "mamba"])
@pytest.mark.parametrize("case", [("Q4_K_M", False), ("IQ2_M", True), ("MXFP4_MOE", False), ("TQ1_0", False)], ids=str)
def test_a_really_quantized_file_holds_these_types_and_bytes(name, case, tmp_path):
    family, output = FAMILIES[name], tmp_path / "out.gguf"
    oracle.ask(family, tmp_path / "m.gguf", [case], output)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(output).tensors}
    types = assigned(family, *case)
    assert {key: tensor.tensor_type.name for key, tensor in stored.items()} == types
    size = mix_bytes(case[0], family.tensors, hparams=family.hparams, imatrix=case[1], source=family.source)
    assert size == sum(tensor.n_bytes for tensor in stored.values())


def llama_8b():
    width, hidden, kv = 4096, 14336, 1024
    outside = {"token_embd": (128256, width), "output": (128256, width), "output_norm": (width,), "rope_freqs": (64,)}
    inside = {
        "attn_norm": (width,), "attn_q": (width, width), "attn_k": (kv, width), "attn_v": (kv, width),
        "attn_output": (width, width), "ffn_norm": (width,), "ffn_gate": (hidden, width), "ffn_up": (hidden, width),
        "ffn_down": (width, hidden),
    }  # fmt: skip
    tensors = [GgufTensor(f"{name}.weight", shape) for name, shape in outside.items()]
    tensors += [GgufTensor(f"blk.{i}.{name}.weight", shape) for i in range(32) for name, shape in inside.items()]
    return tensors, MixHparams("llama", 32, 32, 8)


def test_published_sizes_of_llama_3_1_8b(truth_dir):
    tensors, hparams = llama_8b()
    parameters = sum(prod(tensor.shape) for tensor in tensors)
    rows = list(csv.DictReader((truth_dir / "gguf_bpw.csv").open()))
    assert len(rows) >= 20
    for row in rows:
        bits = 8 * mix_bytes(row["quant"], tensors, hparams=hparams) / parameters
        assert bits == pytest.approx(float(row["bits_per_weight"]), rel=1e-4), row["quant"]


def test_q4_k_m_of_llama_3_1_8b_by_hand():
    tensors, hparams = llama_8b()
    types = dict(zip([t.name for t in tensors], mix_types("Q4_K_M", tensors, hparams=hparams), strict=True))
    assert types["output.weight"] == "Q6_K"
    assert types["token_embd.weight"] == "Q4_K"
    assert types["blk.0.ffn_down.weight"] == types["blk.31.attn_v.weight"] == "Q6_K"
    assert types["blk.4.ffn_down.weight"] == "Q4_K"
    assert types["blk.6.ffn_down.weight"] == "Q6_K"
    assert types["blk.0.attn_norm.weight"] == types["rope_freqs.weight"] == "F32"


def test_the_communitys_wide_ends_keep_both_ends_in_eight_bits():
    tensors, hparams = llama_8b()
    types = dict(zip([t.name for t in tensors], mix_types("Q4_K_L", tensors, hparams=hparams), strict=True))
    assert types["output.weight"] == types["token_embd.weight"] == "Q8_0"
    assert types["blk.4.ffn_down.weight"] == "Q4_K"


def test_order_of_the_list_does_not_matter():
    family = FAMILIES["mixtral"]
    backwards = list(reversed(family.tensors))
    forwards = mix_types("Q4_K_M", family.tensors, hparams=family.hparams)
    assert mix_types("Q4_K_M", backwards, hparams=family.hparams) == forwards[::-1]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("q4_k_m", "Q4_K_M"), ("Q4_K", "Q4_K_M"), ("mxfp4", "MXFP4_MOE"), ("fp16", "F16"), ("iq4-xs", "IQ4_XS")],
)
def test_mix_spellings(spelling, name):
    assert mix(spelling).name == name


@pytest.mark.parametrize(
    ("name", "hint"), [("Q4_K_N", "Q4_K"), ("UD-Q4_K_XL", "header"), ("zzz", "known"), ("", "known")]
)
def test_unknown_mixes_are_bad_input(name, hint):
    with pytest.raises(BadInput) as caught:
        mix(name)
    assert hint in caught.value.hint


def test_nvfp4_keeps_the_ends():
    tensors, hparams = llama_8b()
    types = dict(zip([t.name for t in tensors], mix_types("NVFP4", tensors, hparams=hparams), strict=True))
    assert types["output.weight"] == types["token_embd.weight"] == "BF16"
    assert types["blk.3.attn_q.weight"] == "NVFP4"


def test_what_is_never_quantized():
    for name, shape in [
        ("blk.0.attn_norm.weight", (64,)),
        ("blk.0.ffn_gate_inp.weight", (8, 64)),
        ("blk.0.ffn_gate_inp_shexp.weight", (1, 64)),
        ("position_embd.weight", (512, 64)),
        ("blk.0.ssm_conv1d.weight", (64, 4)),
        ("blk.0.attn_q.bias", (64, 64)),
        ("v.patch_embd.weight", (64, 3, 14, 14)),
    ]:
        assert not may_quantize(GgufTensor(name, shape)), name
    assert may_quantize(GgufTensor("blk.0.attn_k_b.weight", (4, 64, 32)))


def test_converter_keeps_vectors_and_routers_in_single_precision():
    assert converted_type(GgufTensor("blk.0.ffn_gate_inp.weight", (8, 64))) == "F32"
    assert converted_type(GgufTensor("blk.0.attn_q.bias", (64,))) == "F32"
    assert converted_type(GgufTensor("blk.0.attn_q.weight", (64, 64)), "F16") == "F16"
    assert converted_type(GgufTensor("blk.0.attn_q.weight", (64, 64), stored="Q8_0")) == "Q8_0"


@pytest.mark.parametrize("name", ["blk.x.attn_v.weight", "blk..", "", f"blk.{'9' * 5000}.attn_v.weight", "🦙"])
def test_strange_names_do_no_harm(name):
    tensor = GgufTensor(name, (256, 256))
    assert kind_of(name)
    assert mix_types("Q4_K_M", [tensor], hparams=MixHparams("llama", 1))


@given(
    st.sampled_from([name for name in MIXES if name != "Q1_0"]),
    st.sampled_from(sorted(FAMILIES)),
    st.integers(0, 16), st.integers(0, 8), st.integers(0, 300), st.booleans(),
)  # fmt: skip
def test_every_assignment_can_be_stored(name, family, heads, kv_heads, experts, imatrix):
    tensors = FAMILIES[family].tensors[:40]
    hparams = MixHparams(FAMILIES[family].hparams.architecture, 16, heads, kv_heads, experts)
    types = mix_types(name, tensors, hparams=hparams, imatrix=imatrix)
    for kind, tensor in zip(types, tensors, strict=True):
        assert kind in ggml.TYPE_IDS
        assert STORAGES[kind].bytes_of(tensor.shape) * 8 >= prod(tensor.shape)
