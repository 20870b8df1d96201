"""Quantized checkpoints: stored tensors against the real libraries' state dicts, documented layouts and the Hub's totals."""

from __future__ import annotations

import csv
import json
from math import prod
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizeup.errors import BadConfig, BadInput
from sizeup.formats.checkpoint import SCHEMES, CheckpointScheme, scheme, stored_bytes
from sizeup.formats.checkpoint_configs import scheme_from_config
from sizeup.formats.storage import lookup

RECORDED = json.loads((Path(__file__).parent / "data" / "checkpoint_layouts.json").read_text())
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def as_dict(parts, module="layer"):
    return {part.name.removeprefix(f"{module}."): (lookup(part.dtype).name, list(part.shape)) for part in parts}


def recorded(tensors):
    return {name: (lookup(dtype).name, shape) for name, (dtype, shape) in tensors.items()}


@pytest.mark.parametrize("case", RECORDED["bitsandbytes"], ids=lambda case: f"{case['config']} {case['shape']}")
def test_bitsandbytes_as_its_own_state_dict(case):
    found = scheme_from_config({"quantization_config": case["config"], "torch_dtype": "bfloat16"})
    mine, real = as_dict(found.stored("layer.weight", tuple(case["shape"]))), recorded(case["tensors"])
    state = next((name for name in real if "quant_state" in name), None)
    if state:
        assert mine[state][1][0] == pytest.approx(real[state][1][0], abs=3 if "nested" in str(real) else 0)
        del mine[state], real[state]
    assert mine == real


@pytest.mark.parametrize("case", RECORDED["compressed-tensors"], ids=lambda case: case["name"])
def test_compressed_tensors_as_its_own_state_dict(case):
    config = {
        "quant_method": "compressed-tensors",
        "format": case["format"],
        "config_groups": {"group_0": case["scheme"]},
        "ignore": ["lm_head"],
    }
    found = scheme_from_config({"quantization_config": config, "dtype": "bfloat16"})
    assert as_dict(found.stored("layer.weight", (300, 256))) == recorded(case["tensors"])


def test_awq_as_autoawqs_gemm_layout():
    config = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
    parts = scheme_from_config({"quantization_config": config}).stored(Q_PROJ, (11008, 4096))
    assert as_dict(parts, Q_PROJ.removesuffix(".weight")) == {
        "qweight": ("I32", [4096, 1376]),
        "qzeros": ("I32", [32, 1376]),
        "scales": ("F16", [32, 11008]),
    }
    assert stored_bytes(parts) == 4096 * 1376 * 4 + 32 * 1376 * 4 + 32 * 11008 * 2


@pytest.mark.parametrize(
    ("bits", "group", "qweight", "qzeros", "scales"),
    [
        (4, 128, [512, 11008], [32, 1376], [32, 11008]),
        (8, -1, [1024, 11008], [1, 2752], [1, 11008]),
        (3, 32, [384, 11008], [128, 1032], [128, 11008]),
        (2, 64, [256, 11008], [64, 688], [64, 11008]),
    ],
)
def test_gptq_as_gptqmodels_layout(bits, group, qweight, qzeros, scales):
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": True}
    parts = as_dict(scheme_from_config({"quantization_config": config}).stored("layer.weight", (11008, 4096)))
    assert parts == {
        "qweight": ("I32", qweight),
        "qzeros": ("I32", qzeros),
        "scales": ("F16", scales),
        "g_idx": ("I32", [4096]),
    }


def test_gptqmodels_dynamic_rules():
    dynamic = {r"-:.*\.mlp\.gate$": {}, r"+:.*\.down_proj$": {"bits": 8, "group_size": 32}, r"-:.*layers\.0\.": {}}
    found = scheme_from_config({"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": dynamic})
    assert len(found.stored("model.layers.0.mlp.up_proj.weight", (64, 64))) == 1
    down = found.stored("model.layers.1.mlp.down_proj.weight", (64, 64))
    assert down[0].shape == (16, 64)
    assert found.stored("model.layers.1.mlp.up_proj.weight", (64, 64))[0].shape == (8, 64)


def test_fp8_blocks_pad_and_power_of_two_scales_take_a_byte():
    config = {"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"}
    scales = {"deepseek_v3": "F32", "deepseek_v32": "F32", "deepseek_v4": "F8_E8M0"}
    for model_type, dtype in scales.items():
        parts = scheme_from_config({"quantization_config": config, "model_type": model_type}).stored(
            Q_PROJ, (576, 7168)
        )
        assert [(part.dtype, part.shape) for part in parts] == [("F8_E4M3", (576, 7168)), (dtype, (5, 56))]


def test_gpt_oss_blocks_and_scales(truth_dir):
    config = json.loads((truth_dir / "configs" / "openai--gpt-oss-120b.json").read_text())
    found = scheme_from_config(config)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    parts = found.stored(name, (128, 2880, 5760), in_axis=-2)
    assert as_dict(parts, "model.layers.0.mlp.experts") == {
        "gate_up_proj_blocks": ("U8", [128, 5760, 90, 16]),
        "gate_up_proj_scales": ("U8", [128, 5760, 90]),
    }
    assert parts[0].parameters == 128 * 2880 * 5760
    for kept in ("model.layers.3.self_attn.q_proj.weight", "model.layers.3.mlp.router.weight", "lm_head.weight"):
        assert found.stored(kept, (64, 64))[0].dtype == "BF16"
    assert found.stored(f"{name}_bias", (128, 5760))[0].dtype == "BF16"


def linear_shapes(config):
    """(name, shape, copies) of a dense or mixture decoder's matrices with q, k, v, o and gate, up, down."""
    width, head = config["hidden_size"], config["head_dim"]
    query, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    experts = config.get("num_experts", 0)
    hidden = config["moe_intermediate_size"] if experts else config["intermediate_size"]
    attention = {"q_proj": (query, width), "k_proj": (kv, width), "v_proj": (kv, width), "o_proj": (width, query)}
    mlp = {"gate_proj": (hidden, width), "up_proj": (hidden, width), "down_proj": (width, hidden)}
    for layer in range(config["num_hidden_layers"]):
        for name, shape in attention.items():
            yield f"model.layers.{layer}.self_attn.{name}.weight", shape, 1
        for name, shape in mlp.items():
            yield f"model.layers.{layer}.mlp.{'experts.0.' if experts else ''}{name}.weight", shape, max(experts, 1)
        if experts:
            yield f"model.layers.{layer}.mlp.gate.weight", (experts, width), 1
    yield "model.embed_tokens.weight", (config["vocab_size"], width), 1
    yield "lm_head.weight", (config["vocab_size"], width), 1


def elements_more(found, shapes):
    """How many elements more the stored tensors have than the model has parameters; the Hub leaves scalars out."""
    return sum(
        copies * (sum(prod(part.shape) for part in found.stored(name, shape) if part.shape) - prod(shape))
        for name, shape, copies in shapes
    )


@pytest.fixture
def published(truth_dir):
    rows = {row["model_id"]: row for row in csv.DictReader((truth_dir / "params.csv").open())}

    def more(model):
        config = json.loads((truth_dir / "configs" / f"{model.replace('/', '--')}.json").read_text())
        return config, int(rows[model]["published_params"]) - int(rows[model]["total_params"])

    return more


@pytest.mark.parametrize("model", ["Qwen/Qwen3-32B-FP8", "Qwen/Qwen3-235B-A22B-FP8"])
def test_fp8_block_scales_as_published(model, published):
    config, more = published(model)
    assert elements_more(scheme_from_config(config), linear_shapes(config)) == more


def test_nvfp4_elements_as_published(published):
    config, more = published("nvidia/Qwen3-235B-A22B-NVFP4")
    own = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}}
    assert elements_more(scheme_from_config(own), linear_shapes(config)) == more


def test_static_fp8_keeps_two_scalars_a_linear_layer(published):
    config, more = published("mistralai/Devstral-Small-2-24B-Instruct-2512")
    found = scheme_from_config(config)
    text = config["text_config"]
    parts = [
        found.stored(name.replace("model.", "model.language_model."), shape) for name, shape, _ in linear_shapes(text)
    ]
    assert sum(part.parameters == 0 for tensor in parts for part in tensor) == more
    assert len(found.stored("model.vision_tower.transformer.layers.0.attention.q_proj.weight", (64, 64))) == 1


def deepseek_v3_linears():
    width = 7168
    attention = {
        "q_a_proj": (1536, width), "q_b_proj": (24576, 1536), "kv_a_proj_with_mqa": (576, width),
        "kv_b_proj": (32768, 512), "o_proj": (width, 16384),
    }  # fmt: skip
    mlps = [
        ("mlp.", 18432, 1, range(3)),
        ("mlp.experts.0.", 2048, 256, range(3, 62)),
        ("mlp.shared_experts.", 2048, 1, range(3, 62)),
    ]
    for layer in range(62):
        for name, shape in attention.items():
            yield f"model.layers.{layer}.self_attn.{name}.weight", shape, 1
    for prefix, hidden, copies, layers in mlps:
        for layer in layers:
            for name, shape in {
                "gate_proj": (hidden, width),
                "up_proj": (hidden, width),
                "down_proj": (width, hidden),
            }.items():
                yield f"model.layers.{layer}.{prefix}{name}.weight", shape, copies
    for layer in range(3, 62):
        yield f"model.layers.{layer}.mlp.gate.weight", (256, width), 1
    yield "model.layers.61.eh_proj.weight", (width, 2 * width), 1
    yield "model.layers.61.shared_head.head.weight", (129280, width), 1
    yield "model.layers.61.embed_tokens.weight", (129280, width), 1
    yield "lm_head.weight", (129280, width), 1


def test_deepseek_v3_has_41540496_block_scales(truth_dir):
    config = json.loads((truth_dir / "configs" / "deepseek-ai--DeepSeek-V3.json").read_text())
    assert elements_more(scheme_from_config(config), deepseek_v3_linears()) == 41_540_496


def test_every_quantization_config_of_the_truth_is_read(truth_dir):
    read = 0
    for path in (truth_dir / "configs").glob("*.json"):
        config = json.loads(path.read_text())
        found = scheme_from_config(config)
        assert (found is not None) == bool(config.get("quantization_config")), path.name
        read += found is not None
    assert read >= 15


def test_modelopt_mixed_precision_and_globs(truth_dir):
    found = scheme_from_config(json.loads((truth_dir / "configs" / "nvidia--Qwen3.6-27B-NVFP4.json").read_text()))
    layer = "model.language_model.layers.0"
    assert found.stored(f"{layer}.linear_attn.out_proj.weight", (64, 64))[0].dtype == "F8_E4M3"
    assert found.stored(f"{layer}.mlp.down_proj.weight", (64, 64))[0].dtype == "U8"
    assert found.stored("mtp.layers.0.mlp.down_proj.weight", (64, 64))[0].dtype == "BF16"
    assert found.stored("lm_head.weight", (64, 64))[0].dtype == "U8"


def test_modelopt_stores_cache_scales_at_the_projections():
    config = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    names = [
        part.name for part in scheme_from_config(config).stored("model.layers.0.self_attn.k_proj.weight", (64, 64))
    ]
    assert [name.rpartition(".")[2] for name in names] == ["weight", "weight_scale", "input_scale", "k_scale"]


def test_mlx_quantizes_the_ends_too():
    config = {"quantization": {"group_size": 64, "bits": 4, "model.layers.0.mlp.gate": {"group_size": 64, "bits": 8}}}
    found = scheme_from_config({**config, "torch_dtype": "float16"})
    assert as_dict(found.stored("layer.weight", (4096, 4096))) == {
        "weight": ("U32", [4096, 512]),
        "scales": ("F16", [4096, 64]),
        "biases": ("F16", [4096, 64]),
    }
    assert len(found.stored("model.embed_tokens.weight", (1000, 64))) == 3


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}, "hqq-4bit"),
        ({"quant_method": "quanto", "weights": "int4"}, "quanto-4bit"),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, "torchao-4bit"),
        ({"quant_method": "aqlm", "nbits_per_codebook": 16, "in_group_size": 8, "num_codebooks": 1}, "aqlm-2bit"),
    ],
)
def test_other_methods_are_named_and_marked_as_generic(config, name):
    found = scheme_from_config({"quantization_config": config})
    assert (found.name, found.exact) == (name, False)
    assert stored_bytes(found.stored(Q_PROJ, (4096, 4096))) >= 4096 * 4096 * 2 // 8


KEPT = [
    ("lm_head.weight", (32000, 4096)),
    ("model.embed_tokens.weight", (32000, 4096)),
    ("transformer.wpe.weight", (1024, 768)),
    ("model.norm.weight", (4096,)),
    ("model.layers.0.mlp.gate.weight", (64, 4096)),
    ("model.layers.0.ffn.router.layer.weight", (16, 4096)),
    ("model.layers.0.mixer.conv1d.weight", (5376, 1, 4)),
    ("model.layers.0.mixer.A_log", (64,)),
    ("visual.patch_embed.proj.weight", (1280, 3, 2, 14, 14)),
    ("model.layers.0.self_attn.q_proj.bias", (4096,)),
]


@pytest.mark.parametrize(
    "name", [name for name in SCHEMES if name not in {"fp32", "bf16", "fp16"} and "mlx" not in name]
)
def test_what_stays_unquantized_stays(name):
    found = scheme(name, dtype="fp16")
    for tensor, shape in KEPT:
        (part,) = found.stored(tensor, shape)
        assert (part.name, part.dtype, part.shape) == (tensor, "F16", shape)
    assert found.stored(Q_PROJ, (4096, 4096))[0].dtype != "F16"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fp32", 4 * 2**24),
        ("bf16", 2 * 2**24),
        ("fp8", 2**24 + 4096 * 2),
        ("fp8-block128", 2**24 + 32 * 32 * 4),
        ("int8", 2**24 + 4096 * 2),
        ("bnb-int8", 2**24 + 4096 * 4 + 1),
        ("awq-4bit-g128", 2**23 + 32 * 512 * 4 + 32 * 4096 * 2),
        ("gptq-4bit-g128", 2**23 + 32 * 512 * 4 + 32 * 4096 * 2 + 4096 * 4),
        ("gptq-8bit", 2**24 + 32 * 1024 * 4 + 32 * 4096 * 2 + 4096 * 4),
        ("nvfp4", 2**23 + 2**20 + 8),
        ("mxfp4", 2**23 + 2**19),
        ("nf4", 2**23 + 2**18 * 4 + 64 + 82),
    ],
)  # fmt: skip
def test_bytes_by_hand(name, expected):
    assert stored_bytes(scheme(name).stored(Q_PROJ, (4096, 4096))) == expected
    assert scheme(name).term(Q_PROJ, (4096, 4096)).value == expected


def test_nf4_with_double_quantization_costs_4_127_bits_a_weight():
    """QLoRA (arXiv 2305.14314) gives 0.5 → 0.127 bits a weight for the constants; the code book and state come on top."""
    count = 8192 * 8192
    size = stored_bytes(scheme("nf4-dq").stored(Q_PROJ, (8192, 8192)))
    assert 8 * size / count == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "hint"), [("awq-5bit-gx", "awq"), ("gptq-9bit", "gptq"), ("zzz", "known"), ("", "known")]
)
def test_unknown_schemes_are_bad_input(name, hint):
    with pytest.raises(BadInput) as caught:
        scheme(name)
    assert hint in caught.value.hint


def test_other_bits_and_groups_by_name():
    assert scheme("gptq-3bit-g32").stored(Q_PROJ, (64, 64))[0].shape == (6, 64)
    assert scheme("awq").name == "awq-4bit-g128"


LISTS = [
    (["lm_head", "model.layers.0"], "model.layers.0.mlp.up_proj", True),
    (["model.layers.1"], "model.layers.11.mlp.up_proj", False),
    (["up_proj"], "model.layers.11.mlp.up_proj", True),
    (["model.layers.*.self_attn"], "model.layers.11.self_attn.q_proj", True),
    (["mlp.gate"], "model.layers.1.mlp.gate_proj", False),
    ([], "model.layers.1.mlp.gate_proj", False),
]


@pytest.mark.parametrize(("names", "module", "kept"), LISTS)
def test_transformers_lists(names, module, kept):
    config = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": names}
    parts = scheme_from_config({"quantization_config": config}).stored(f"{module}.weight", (64, 64))
    assert (len(parts) == 1) == kept


@pytest.mark.parametrize(
    ("ignore", "module", "kept"),
    [
        (["re:.*self_attn.*"], "model.layers.0.self_attn.q_proj", True),
        (["re:.*mlp.gate$"], "model.layers.0.mlp.gate_proj", False),
        (["model.layers.0"], "model.layers.0.self_attn.q_proj", False),
        (["model.layers.0.self_attn.q_proj"], "model.layers.0.self_attn.q_proj", True),
    ],
)
def test_compressed_tensors_lists(ignore, module, kept):
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}
    config = {"quant_method": "compressed-tensors", "config_groups": {"g": group}, "ignore": ignore}
    parts = scheme_from_config({"quantization_config": config}).stored(f"{module}.weight", (64, 64))
    assert (len(parts) == 1) == kept


@pytest.mark.parametrize(
    "section",
    [
        {"quant_method": "unheard-of"},
        {"quant_method": "gptq", "bits": "four"},
        {"quant_method": "gptq", "bits": -4},
        {"quant_method": "gptq", "bits": True},
        {"quant_method": "gptq", "bits": 4, "group_size": 0},
        {"quant_method": "awq", "group_size": float("nan")},
        {"quant_method": "fp8", "weight_block_size": [0, 128]},
        {"quant_method": "fp8", "weight_block_size": "128"},
        {"quant_method": "fp8", "modules_to_not_convert": "lm_head"},
        {"quant_method": "fp8", "modules_to_not_convert": ["((a+)+)+$"]},
        {"quant_method": "fp8", "modules_to_not_convert": ["(unclosed"]},
        {"quant_method": "fp8", "modules_to_not_convert": [".*" * 50]},
        {"quant_method": "modelopt", "quant_algo": "FP1"},
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf5"},
    ],
    ids=str,
)
def test_impossible_configs_are_refused(section):
    with pytest.raises(BadConfig) as caught:
        scheme_from_config({"quantization_config": section})
    assert caught.value.hint


def test_no_quantization_is_none():
    assert scheme_from_config({"model_type": "llama"}) is None
    assert scheme_from_config({"quantization_config": None}) is None
    assert scheme_from_config({}) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
methods = [
    "bitsandbytes",
    "awq",
    "gptq",
    "auto-round",
    "fp8",
    "mxfp4",
    "compressed-tensors",
    "modelopt",
    "mlx",
    "hqq",
    "aqlm",
]
keys = st.sampled_from(
    ["bits", "group_size", "ignore", "config_groups", "quantized_layers", "dynamic", "weight_block_size", "quant_algo",
     "modules_to_not_convert", "load_in_4bit", "bnb_4bit_quant_storage", "extra_config", "quant_config"]
)  # fmt: skip


@given(st.sampled_from(methods), st.dictionaries(keys, json_values, max_size=5))
def test_hostile_configs_never_end_in_a_traceback(method, section):
    try:
        found = scheme_from_config({"quantization_config": {"quant_method": method, **section}})
    except BadConfig as error:
        found = error.hint
    if isinstance(found, CheckpointScheme):
        assert stored_bytes(found.stored(Q_PROJ, (64, 128))) > 0
    else:
        assert found


shapes = st.tuples(st.integers(1, 700), st.integers(1, 700))


@given(st.sampled_from(SCHEMES), shapes)
def test_stored_parts_carry_every_parameter_once_and_hold_its_bits(name, shape):
    found = scheme(name)
    parts = found.stored(Q_PROJ, shape)
    assert sum(part.parameters for part in parts) == prod(shape)
    bits = 4 if any(four in name for four in ("4bit", "nf4", "fp4", "w4")) else 8
    assert 8 * stored_bytes(parts) >= bits * prod(shape)
    assert stored_bytes(found.stored(Q_PROJ, (shape[0] + 128, shape[1]))) > stored_bytes(parts)
