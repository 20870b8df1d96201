"""Reads a `quantization_config`, by method, into a CheckpointScheme.

Sources: transformers 5.23 utils/quantization_config.py and quantizers/; compressed-tensors 0.20 quantization/; the
configs that ModelOpt, AutoAWQ, GPTQModel, AutoRound and MLX write. Configs are foreign: every value is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sizeup.errors import BadConfig, BadInput
from sizeup.formats.checkpoint import CheckpointScheme, Group
from sizeup.formats.checkpoint_layouts import (
    Affine,
    Awq,
    Bnb4bit,
    BnbInt8,
    Generic,
    Gptq,
    Layout,
    Mxfp4,
    Nvfp4,
    PackedInt,
    Scaled,
)
from sizeup.formats.name_patterns import (
    NamePatterns,
    compressed_tensors_patterns,
    expression_pattern,
    glob_patterns,
    transformers_patterns,
)
from sizeup.formats.storage import lookup

Config = Mapping[str, Any]


def scheme_from_config(config: Config) -> CheckpointScheme | None:
    """The scheme of a checkpoint, or None when its config names no quantization.

    config: a model's config.json, its quantization_config alone, or a ModelOpt hf_quant_config.json.
    Raises BadConfig for an unknown method or impossible values.
    """
    section = _section(config)
    if not section:
        return None
    method = str(section.get("quant_method") or _implied_method(section)).lower().replace("_", "-")
    reader = _READERS.get(method)
    if reader is None:
        raise BadConfig(
            f"unknown quantization method: {method[:80]!r}",
            hint=f"known: {', '.join(sorted(_READERS))}; or give the checkpoint's safetensors, whose headers are exact",
        )
    return reader(section, _model_dtype(config), str(config.get("model_type", "")))


def _section(config: Config) -> Config | None:
    """The part of a config that speaks of quantization."""
    text = config.get("text_config")
    for holder in (config, text if isinstance(text, Mapping) else {}):
        for key in ("quantization_config", "compression_config", "quantization"):
            section = holder.get(key)
            if isinstance(section, Mapping) and section:
                return section
    return config if {"quant_method", "quant_algo", "load_in_4bit", "load_in_8bit"} & set(config) else None


def _implied_method(section: Config) -> str:
    if "quant_algo" in section:
        return "modelopt"
    if section.get("load_in_4bit") or section.get("load_in_8bit"):
        return "bitsandbytes"
    if "config_groups" in section:
        return "compressed-tensors"
    return "mlx" if {"bits", "group_size"} <= set(section) else "unnamed"


def _model_dtype(config: Config) -> str:
    text = config.get("text_config")
    for holder in (config, text if isinstance(text, Mapping) else {}):
        name = holder.get("dtype") or holder.get("torch_dtype")
        if isinstance(name, str) and name != "auto":
            return _dtype(name)
    return "BF16"


def _dtype(name: str) -> str:
    try:
        return lookup(name).name
    except BadInput as error:
        raise BadConfig(error.message, hint=error.hint) from None


def _integer(section: Config, key: str, default: int, allowed: Callable[[int], bool]) -> int:
    value = section.get(key, default)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not allowed(value):
        raise BadConfig(f"quantization_config: impossible {key}: {str(value)[:80]!r}", hint=f"{default} is usual")
    return value


def _bits(section: Config, key: str = "bits", default: int = 4) -> int:
    return _integer(section, key, default, lambda bits: 1 <= bits <= 16)


def _group(section: Config, default: int = 128) -> int:
    return _integer(section, "group_size", default, lambda size: size == -1 or 1 <= size <= 1 << 20)


def _entries(section: Config, key: str) -> Config:
    value = section.get(key)
    return value if isinstance(value, Mapping) else {}


def _skipped(section: Config, *keys: str) -> tuple[NamePatterns, bool]:
    """The modules that stay, and whether the list is the config's own (then the head is quantized unless listed)."""
    names = next((section[key] for key in keys if section.get(key) is not None), None)
    return transformers_patterns(names), names is not None


def _bitsandbytes(section: Config, dtype: str, _: str) -> CheckpointScheme:
    ignored, listed = _skipped(section, "llm_int8_skip_modules")
    layout: Layout = BnbInt8()
    name = "bnb-int8"
    if section.get("load_in_4bit", section.get("_load_in_4bit")):
        kind = str(section.get("bnb_4bit_quant_type", "fp4"))
        if kind not in {"nf4", "fp4"}:
            raise BadConfig(f"quantization_config: unknown bnb_4bit_quant_type {kind[:80]!r}", hint="nf4 or fp4")
        storage = _dtype(str(section.get("bnb_4bit_quant_storage") or "uint8"))
        double = bool(section.get("bnb_4bit_use_double_quant"))
        layout = Bnb4bit(kind, double, storage)
        name = kind + "-dq" * double
    return CheckpointScheme(name, "bitsandbytes", dtype, (Group(layout),), ignored, head=listed)


def _awq(section: Config, dtype: str, _: str) -> CheckpointScheme:
    bits = _bits(section, "bits" if "bits" in section else "w_bit")
    group = _integer(
        section, "group_size" if "group_size" in section else "q_group_size", 128, lambda n: n == -1 or n > 0
    )
    ignored, _listed = _skipped(section, "modules_to_not_convert")
    return CheckpointScheme(f"awq-{bits}bit-g{group}", "awq", dtype, (Group(Awq(bits, group)),), ignored)


def _gptq(section: Config, dtype: str, _: str) -> CheckpointScheme:
    bits, group = _bits(section), _group(section)
    inside = section.get("modules_in_block_to_quantize")
    targets = None
    if isinstance(inside, list):
        names = [name for row in inside for name in (row if isinstance(row, list) else [row])]
        targets = NamePatterns(suffixes=tuple(str(name) for name in names))
    groups = (*_gptq_overrides(section, bits, group), Group(Gptq(bits, group), targets))
    head = bool(section.get("lm_head"))
    return CheckpointScheme(f"gptq-{bits}bit-g{group}", "gptq", dtype, groups, head=head)


def _gptq_overrides(section: Config, bits: int, group: int) -> list[Group]:
    """GPTQModel's `dynamic`: `-:expression` leaves modules alone, `+:expression` gives others' bits and groups."""
    groups = []
    for key, value in _entries(section, "dynamic").items():
        pattern = expression_pattern(str(key).removeprefix("+:").removeprefix("-:"))
        if str(key).startswith("-:"):
            groups.append(Group(None, pattern))
        elif isinstance(value, Mapping):
            own = Gptq(_bits(value, default=bits), _group(value, group))
            groups.append(Group(own, pattern))
    return groups


def _auto_round(section: Config, dtype: str, _: str) -> CheckpointScheme:
    bits, group = _bits(section), _group(section)
    packing = str(section.get("packing_format", "auto_round:auto_gptq"))
    layout: Layout = Awq(bits, group) if "awq" in packing else Gptq(bits, group, group_index=":" not in packing)
    kept = [name for name, own in _entries(section, "extra_config").items() if _unquantized(own)]
    ignored = transformers_patterns(kept)
    return CheckpointScheme(f"auto-round-{bits}bit-g{group}", "auto-round", dtype, (Group(layout),), ignored)


def _unquantized(own: object) -> bool:
    return isinstance(own, Mapping) and own.get("bits", 4) in {16, 32}


# Families whose fp8 files keep the block scales in fp32 although the values are powers of two (`scale_fmt: ue8m0`).
_FP32_SCALES = ("deepseek_v3", "deepseek_v32")


def _fp8(section: Config, dtype: str, model_type: str) -> CheckpointScheme:
    ignored, listed = _skipped(section, "modules_to_not_convert", "ignored_layers")
    block = section.get("weight_block_size", [128, 128])
    static = "activation_scale" if section.get("activation_scheme") == "static" else ""
    powers = section.get("scale_fmt") == "ue8m0" and model_type not in _FP32_SCALES
    scale_dtype = "F8_E8M0" if powers else "F32"
    if block is None:
        layout = Scaled(scale="weight_scale_inv", input_scale=static)
        name = "fp8"
    else:
        tile = _tile(block)
        layout = Scaled(scale="weight_scale_inv", scale_dtype=scale_dtype, tile=tile, input_scale=static)
        name = f"fp8-block{tile[1]}"
    groups = [Group(layout)]
    if section.get("expert_dtype") == "fp4":
        experts = Mxfp4((".weight", ".scale"), "F8_E8M0")
        groups.insert(0, Group(experts, expression_pattern(r".*\.experts\.")))
    return CheckpointScheme(name, "fp8", dtype, tuple(groups), ignored, head=listed)


def _tile(block: object) -> tuple[int, int]:
    if isinstance(block, list | tuple) and len(block) == 2:
        rows, columns = block
        if isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0:
            return rows, columns
    raise BadConfig(f"quantization_config: impossible block size {str(block)[:80]!r}", hint="[128, 128] is usual")


def _fbgemm(section: Config, dtype: str, _: str) -> CheckpointScheme:
    ignored, listed = _skipped(section, "modules_to_not_convert")
    return CheckpointScheme("fp8", "fbgemm-fp8", dtype, (Group(Scaled(tile=(1, 0))),), ignored, head=listed)


def _mxfp4(section: Config, dtype: str, _: str) -> CheckpointScheme:
    ignored, listed = _skipped(section, "modules_to_not_convert")
    experts = NamePatterns(suffixes=("experts.gate_up_proj", "experts.down_proj"))
    return CheckpointScheme("mxfp4", "mxfp4", dtype, (Group(Mxfp4(), experts),), ignored, head=listed)


def _compressed_tensors(section: Config, dtype: str, _: str) -> CheckpointScheme:
    ignored = compressed_tensors_patterns(section.get("ignore"))
    groups, formats = [], []
    for group in _entries(section, "config_groups").values():
        if not isinstance(group, Mapping) or not isinstance(group.get("weights"), Mapping):
            continue
        style = str(group.get("format") or section.get("format") or "")
        layout, name = _compressed_layout(group, style)
        formats.append(name)
        groups.append(Group(layout, _targets(group)))
    named = [group for group in groups if group.targets is not None]
    general = [group for group in groups if group.targets is None]
    scales = dtype if _static_kv(section) else ""
    name = "+".join(dict.fromkeys(formats)) or "none"
    return CheckpointScheme(name, "compressed-tensors", dtype, (*named, *general), ignored, head=True, kv_scales=scales)


def _targets(group: Config) -> NamePatterns | None:
    """The modules of a group; None for the class `Linear`, which is every linear layer."""
    targets = group.get("targets", ["Linear"])
    return None if isinstance(targets, list) and "Linear" in targets else compressed_tensors_patterns(targets)


def _static_kv(section: Config) -> bool:
    kv = section.get("kv_cache_scheme")
    return isinstance(kv, Mapping) and not kv.get("dynamic")


def _compressed_layout(group: Config, style: str) -> tuple[Layout, str]:
    weights, inputs = group["weights"], group.get("input_activations")
    bits = _bits(weights, "num_bits", 8)
    floating = weights.get("type") == "float"
    size = _group(weights, -1)
    if floating and bits == 4:
        return _packed_floats(size, inputs)
    if not floating and (bits < 8 or style == "pack-quantized"):
        span = {"channel": 0, "tensor": -1}.get(str(weights.get("strategy")), max(size, 0))
        zeros, ordered = weights.get("symmetric") is False, weights.get("actorder") == "group"
        return PackedInt(bits, span, zeros, ordered), f"w{bits}a16"
    return _eight_bits(weights, inputs, size, floating=floating), "fp8" if floating else "int8"


def _packed_floats(size: int, inputs: object) -> tuple[Layout, str]:
    if size == 32:
        return Mxfp4((".weight_packed", ".weight_scale")), "mxfp4"
    keeps_input = isinstance(inputs, Mapping) and inputs.get("dynamic") is not True
    activation = "input_global_scale" if keeps_input else ""
    return Nvfp4(("weight_packed", "weight_scale", "weight_global_scale", activation), (1,)), "nvfp4"


def _eight_bits(weights: Config, inputs: object, size: int, *, floating: bool) -> Scaled:
    strategy = str(weights.get("strategy") or ("group" if size > 0 else "tensor"))
    tile = {"channel": (1, 0), "group": (1, max(size, 0))}.get(strategy)
    if strategy == "block":
        tile = _tile(weights.get("block_structure"))
    scale_dtype = weights.get("scale_dtype")
    return Scaled(
        dtype="F8_E4M3" if floating else "I8",
        scale_dtype=_dtype(scale_dtype) if isinstance(scale_dtype, str) else "",
        tile=tile,
        single=(1,),
        zeros=weights.get("symmetric") is False,
        input_scale="input_scale" if isinstance(inputs, Mapping) and not inputs.get("dynamic") else "",
    )


_MODELOPT: dict[str, Layout] = {
    "FP8": Scaled(input_scale="input_scale"),
    "FP8_PER_CHANNEL_PER_TOKEN": Scaled(tile=(1, 0)),
    "FP8_PB_WO": Scaled(tile=(128, 128)),
    "NVFP4": Nvfp4(),
    "NVFP4_AWQ": Nvfp4(),
    "W4A16_NVFP4": Nvfp4(("weight", "weight_scale", "weight_scale_2", "")),
    "MXFP8": Scaled(scale_dtype="U8", tile=(1, 32)),
    "MXFP4": Mxfp4((".weight", ".weight_scale")),
    "INT8_SQ": Scaled(dtype="I8", tile=(1, 0)),
}


def _modelopt(section: Config, dtype: str, _: str) -> CheckpointScheme:
    ignored = glob_patterns(section.get("ignore") or section.get("exclude_modules"))
    own = {
        str(name): str(layer.get("quant_algo"))
        for name, layer in _entries(section, "quantized_layers").items()
        if isinstance(layer, Mapping)
    }
    groups = [Group(_modelopt_layout(algorithm), names) for algorithm, names in _by_value(own).items()]
    algorithm = str(section.get("quant_algo") or "NVFP4")
    if algorithm != "MIXED_PRECISION":
        groups.append(Group(_modelopt_layout(algorithm)))
    cache = section.get("kv_cache_quant_algo") or section.get("kv_cache_scheme")
    kv_scales = "F32" if cache else ""
    return CheckpointScheme(
        algorithm.lower(), "modelopt", dtype, tuple(groups), ignored, head=True, kv_scales=kv_scales
    )


def _by_value(names: dict[str, str]) -> dict[str, NamePatterns]:
    """Modules of one setting together: thousands of names cost one look-up each."""
    return {
        value: NamePatterns(exact=frozenset(name for name, own in names.items() if own == value))
        for value in dict.fromkeys(names.values())
    }


def _modelopt_layout(algorithm: str) -> Layout:
    layout = _MODELOPT.get(algorithm)
    if layout is None:
        raise BadConfig(f"unknown ModelOpt quant_algo: {algorithm[:80]!r}", hint=f"known: {', '.join(_MODELOPT)}")
    return layout


def _mlx(section: Config, dtype: str, _: str) -> CheckpointScheme:
    bits, group = _bits(section), _group(section, 64)
    layouts: dict[str, Layout | None] = {"": None}
    own: dict[str, str] = {}
    for name, setting in section.items():
        if setting is False:
            own[name] = ""
        elif isinstance(setting, Mapping):
            layout = Affine(_bits(setting, default=bits), _group(setting, group))
            own[name] = f"{layout.bits} {layout.group}"
            layouts[own[name]] = layout
    groups = [Group(layouts[key], names) for key, names in _by_value(own).items()]
    groups.append(Group(Affine(bits, group)))
    return CheckpointScheme(f"mlx-{bits}bit-g{group}", "mlx", dtype, tuple(groups), head=True, embeddings=True)


# (the key of the bits, their default, the default group): methods modelled by bits and groups only.
_GENERIC = {
    "hqq": ("nbits", 4, 64), "quanto": ("bits", 8, 128), "torchao": ("bits", 4, 128), "eetq": ("bits", 8, 1 << 20),
    "higgs": ("bits", 4, 256), "aqlm": ("nbits_per_codebook", 2, 8), "vptq": ("bits", 2, 128), "spqr": ("bits", 3, 16),
    "bitnet": ("bits", 2, 1 << 20), "quark": ("bits", 8, 128), "fp-quant": ("bits", 4, 16), "sinq": ("nbits", 4, 64),
}  # fmt: skip


def _generic(section: Config, dtype: str, _: str) -> CheckpointScheme:
    method = str(section.get("quant_method", "")).lower().replace("_", "-")
    key, bits, size = _GENERIC[method]
    hqq = _entries(_entries(section, "quant_config"), "weight_quant_params")
    details = hqq or section
    if method == "aqlm":
        width = _integer(section, "in_group_size", 8, lambda n: n > 0)
        codebooks = _integer(section, "num_codebooks", 1, lambda n: n > 0)
        bits = max(1, _bits(section, key, 16) * codebooks // width)
    elif method in {"quanto", "torchao"}:
        named = str(section.get("weights") or section.get("quant_type") or "").lower()
        bits = next((n for n in (2, 4, 8) if f"int{n}" in named or f"float{n}" in named), bits)
    else:
        bits = _bits(details, key, bits)
    ignored, listed = _skipped(section, "modules_to_not_convert", "skip_modules", "linear_weights_not_to_quantize")
    layout = Generic(bits, max(_group(details, size), 1), zeros=method in {"hqq", "torchao", "sinq"} and bits < 8)
    return CheckpointScheme(f"{method}-{bits}bit", method, dtype, (Group(layout),), ignored, head=listed, exact=False)


_READERS: dict[str, Callable[[Config, str, str], CheckpointScheme]] = {
    "bitsandbytes": _bitsandbytes,
    "awq": _awq,
    "gptq": _gptq,
    "auto-round": _auto_round,
    "intel/auto-round": _auto_round,
    "fp8": _fp8,
    "fbgemm-fp8": _fbgemm,
    "mxfp4": _mxfp4,
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
    "mlx": _mlx,
    **dict.fromkeys(_GENERIC, _generic),
}
