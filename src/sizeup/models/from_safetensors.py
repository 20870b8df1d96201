"""From safetensors headers to a model: every tensor of the files, to the byte, with an anatomy's roles if there is one.

Names that an anatomy describes take its roles, parts, mixers and layer kinds, also under another prefix
(`language_model.model.layers…` for `model.language_model.layers…`); all others are told by `name_rules`.
"""

from __future__ import annotations

from typing import Any

from sizeup.errors import SizeupError
from sizeup.formats.checkpoint import CheckpointScheme
from sizeup.formats.checkpoint_configs import scheme_from_config
from sizeup.models.config import Config
from sizeup.models.from_config import ASSUMPTION, model_from_config, storage_dtype
from sizeup.models.generic import text_part
from sizeup.models.model import Facts, Model
from sizeup.models.model_type import model_type_of
from sizeup.models.packed import Logical, PackingHints, unpack
from sizeup.models.sources.header import Header
from sizeup.models.tensor_reader import TensorReader

_PLAIN = frozenset({"BF16", "F16", "F32", "F64"})
_QUANTIZATION = frozenset({"quantization_config", "quantization", "compression_config"})


def model_from_safetensors(header: Header, config: dict[str, Any] | Config | None = None, name: str = "") -> Model:
    """The model that safetensors headers describe, with the configuration beside them when there is one.

    The bytes of its tensors, tied ones left out, are the header's `data_bytes`.
    """
    origin = header.files[0].name if header.files else "the safetensors header"
    cfg = config if isinstance(config, Config) else Config(config or {}, "the configuration")
    plan = plan_of(cfg)
    scheme = scheme_from_config(cfg.data)
    logical = unpack(header.tensors, packing_hints(scheme))
    reader = TensorReader(logical, plan, text_part(cfg))
    blocks = reader.blocks()
    absent = () if header.complete else ("the file holds no tensor data: sizes are those its header declares",)
    return Model(
        name=name or cfg.optional_str("_name_or_path") or origin,
        family=_family(cfg),
        blocks=blocks,
        hidden=reader.hidden,
        vocabulary=reader.vocabulary,
        context=plan.context if plan else None,
        road="safetensors header",
        dtype=storage_dtype(cfg) or _main_dtype(logical),
        scheme=scheme.name if scheme else _packed_format(logical),
        architecture=plan.architecture if plan else "",
        origin=origin,
        notes=(*plan_notes(plan), *reader.notes, *absent),
        facts=plan.facts if plan else Facts(),
    )


def plan_of(cfg: Config) -> Model | None:
    """What the configuration alone gives, without quantization; None when it gives nothing."""
    data = {key: value for key, value in cfg.data.items() if key not in _QUANTIZATION}
    try:
        return model_from_config(Config(data, cfg.origin)) if data else None
    except SizeupError:
        return None


def plan_notes(plan: Model | None) -> tuple[str, ...]:
    """What a reader should know of the plan: the anatomy's own notes, or that there is none."""
    if plan is None:
        return ("no configuration describes these tensors: roles are told from names",)
    if plan.road == "generic":
        return (f"model type {plan.family!r} has no anatomy: roles are told from names",)
    return tuple(note for note in plan.notes if note != ASSUMPTION)


def packing_hints(scheme: CheckpointScheme | None) -> PackingHints:
    """Bits and group of the first packed layout that a scheme names."""
    layouts = [group.layout for group in scheme.groups if group.layout] if scheme else []
    bits = [getattr(layout, "bits", 0) for layout in layouts]
    groups = [getattr(layout, "group", 0) for layout in layouts]
    return PackingHints(
        next((count for count in bits if count), None), next((size for size in groups if size > 0), None)
    )


def _family(cfg: Config) -> str:
    try:
        return model_type_of(cfg)
    except SizeupError:
        return "unknown"


def _main_dtype(logical: list[Logical]) -> str:
    """The plain format of the most tensors."""
    plain = [item.stored for item in logical if not item.side and item.stored in _PLAIN]
    return max(sorted(set(plain)), key=plain.count).lower() if plain else "bf16"


def _packed_format(logical: list[Logical]) -> str | None:
    """The packed format of the most matrices, for files without a configuration; None when nothing is packed."""
    packed = [item.stored for item in logical if item.stored not in _PLAIN and not item.side and len(item.shape) > 1]
    if not packed or not any(item.side for item in logical):
        return None
    return max(sorted(set(packed)), key=packed.count).lower()
