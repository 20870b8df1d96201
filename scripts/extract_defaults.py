"""Extract the defaults of transformers' configuration classes into `models/anatomy/defaults.json`.

    python scripts/extract_defaults.py [OUT]

Real config.json files leave out what equals the class's default. The file holds, for every configuration class, what
`sizeup.models.anatomy.defaults` needs to fill the gaps in as transformers does:

    fields    the literal default of every field that can be a size, a switch or a pattern; what a class derives in
              `__post_init__` (head_dim, layer_types …) isn't here, since it depends on the other fields
    aliases   {name: stored name} of older and newer spellings (the class's `attribute_map`)
    parts     {field: {"model_type": …, fields that differ}} of nested configurations when they are absent

Runs in an environment that has transformers; the version is noted in the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "src" / "sizeup" / "models" / "anatomy" / "defaults.json"
#: Fields that say nothing about tensors, caches or work.
IRRELEVANT = re.compile(
    r"token|dropout|drop$|drop_|_drop|^return_|output_(attentions|hidden|router)|initializer|init_|_init|eps|_coef|"
    r"_loss|loss_|^loss|problem_type|label|use_cache|_cost|cost_|jitter|pad_id|classifier_act|summary_|mask_time|mask_feature|"
    r"^architectures$|transformers_version|dtype|gradient_checkpointing|pretraining_tp|temperature|theta|rope_scaling|attn_implementation|"
    r"^(eos|bos|pad|sep|cls|unk)_|_index$|decoder_start|forced_|suppress|begin_|is_decoder|chunk_size_feed|std$|prefix$"
)
KEPT = frozenset({"token_shift", "mm_tokens_per_image", "num_mem_blocks", "type_vocab_size", "classifier_dropout_none"})


def main() -> int:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    transformers.logging.set_verbosity_error()
    classes: dict[str, type] = {}
    for model_type in CONFIG_MAPPING_NAMES:
        try:
            _collect(CONFIG_MAPPING[model_type], model_type, classes)
        except Exception as error:
            print(f"{model_type}: {error}", file=sys.stderr)
    types = {model_type: _entry(config) for model_type, config in sorted(classes.items())}
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(entry, sort_keys=True, allow_nan=False)}" for name, entry in types.items()
    )
    source = f"transformers {transformers.__version__}, by scripts/extract_defaults.py"
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    target.write_text(f'{{"source": {json.dumps(source)}, "types": {{\n{lines}\n}}}}\n')
    print(f"{len(types)} types, {target.stat().st_size:,} bytes", file=sys.stderr)
    return 0


def _collect(config: type, model_type: str, classes: dict[str, type]) -> None:
    if classes.setdefault(model_type, config) is not config:
        return
    for part in (getattr(config, "sub_configs", None) or {}).values():
        name = getattr(part, "model_type", "")
        if name and name not in classes:
            _collect(part, name, classes)


def _entry(config: type) -> dict[str, Any]:
    parts = getattr(config, "sub_configs", None) or {}
    entry: dict[str, Any] = {"fields": {k: v for k, v in _literals(config).items() if k not in parts}}
    if aliases := getattr(config, "attribute_map", None):
        entry["aliases"] = {alias: name for alias, name in aliases.items() if not IRRELEVANT.search(alias)}
    if parts:
        entry["parts"] = _parts(config, parts)
    return {name: value for name, value in entry.items() if value}


def _literals(config: type) -> dict[str, Any]:
    """The fields of a class whose default is a plain value; those whose default is None are left out."""
    found = {}
    for field in dataclasses.fields(config):
        value = field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        if _is_plain(value) and (field.name in KEPT or not IRRELEVANT.search(field.name)):
            found[field.name] = list(value) if isinstance(value, tuple) else value
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, (bool, int, str, list)) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (bool, int, str)) and value != ""


def _parts(config: type, parts: dict[str, type]) -> dict[str, Any]:
    """For every nested configuration: its model type, and the fields that its owner's default changes."""
    try:
        owner = config()
    except Exception as error:
        print(f"{config.__name__}: {error}", file=sys.stderr)
        return {}
    found = {}
    for field in parts:
        part = getattr(owner, field, None)
        if not hasattr(part, "model_type"):
            continue
        if part.model_type:
            plain = _values(type(part)())
            changed = {name: value for name, value in _values(part).items() if plain.get(name) != value}
            found[field] = {"model_type": part.model_type} | changed
        else:
            found[field] = _literals(type(part))
    return found


def _values(part: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in part.to_dict().items()
        if isinstance(value, (bool, int, float, str, list)) and not IRRELEVANT.search(name)
    }


if __name__ == "__main__":
    sys.exit(main())
