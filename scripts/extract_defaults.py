"""Extract the defaults of transformers' configuration classes into `models/anatomy/defaults.json`.

    PYTHONPATH=src python scripts/extract_defaults.py [OUT]

Real config.json files leave out what equals the class's default. The file holds, for every configuration class, what
`sizeup.models.anatomy.defaults` needs to fill the gaps in as transformers does:

    fields    the literal default of every field that can be a size, a switch or a pattern; what a class derives in
              `__post_init__` (head_dim, layer_types …) isn't here, since it depends on the other fields
    aliases   {name: stored name} of older and newer spellings (the class's `attribute_map`)
    parts     {field: {"model_type": …, fields that differ}} of nested configurations when they are absent

Kept are the model types that have an anatomy, with their parts, and the fields that an anatomy or a family of training
steps names: run it again after adding one. Runs in an environment that has transformers and msgspec; the version is
noted in the file.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import sys
from functools import cache
from pathlib import Path
from typing import Any

ANATOMY = Path(__file__).parents[1] / "src" / "sizeup" / "models" / "anatomy"
TARGET = ANATOMY / "defaults.json"
TRAINING = ANATOMY.parents[1] / "estimate" / "training" / "families"
#: What every configuration has and no anatomy reads.
IRRELEVANT = frozenset(
    {"architectures", "dtype", "id2label", "is_encoder_decoder", "transformers_version", "add_cross_attention"}
)


def main() -> int:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    from sizeup.models.anatomy import registry

    transformers.logging.set_verbosity_error()
    classes: dict[str, type] = {}
    for model_type in CONFIG_MAPPING_NAMES:
        try:
            _collect(CONFIG_MAPPING[model_type], model_type, classes)
        except Exception as error:
            print(f"{model_type}: {error}", file=sys.stderr)
    wanted = _with_parts(registry.known_types(), classes)
    types = {model_type: _entry(classes[model_type]) for model_type in sorted(wanted)}
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


def _with_parts(known: list[str], classes: dict[str, type]) -> set[str]:
    """The known model types that have a class, and those of their nested configurations."""
    wanted: set[str] = set()
    left = [name for name in known if name in classes]
    while left:
        name = left.pop()
        if name not in wanted:
            wanted.add(name)
            nested = getattr(classes[name], "sub_configs", None) or {}
            left += [part["model_type"] for part in _parts(classes[name], nested).values() if "model_type" in part]
            left += [part.model_type for part in nested.values() if getattr(part, "model_type", "")]
            left = [name for name in left if name in classes]
    return wanted


@cache
def _named() -> tuple[frozenset[str], tuple[str, ...]]:
    """The strings in anatomies and families: whole ones, and the pieces that names are put together of."""
    whole, pieces = set(), set()
    for file in (*ANATOMY.glob("*.py"), *TRAINING.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                pieces |= {part.value for part in node.values if isinstance(part, ast.Constant)}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                whole.add(node.value)
    return frozenset(whole), tuple(piece for piece in pieces if piece.strip("_").isidentifier() and "_" in piece)


def _is_read(name: str) -> bool:
    """Whether an anatomy may read a field of that name."""
    whole, pieces = _named()
    return name not in IRRELEVANT and (name in whole or name.startswith(pieces) or name.endswith(pieces))


def _entry(config: type) -> dict[str, Any]:
    parts = getattr(config, "sub_configs", None) or {}
    entry: dict[str, Any] = {"fields": {k: v for k, v in _literals(config).items() if k not in parts}}
    if "tie_word_embeddings" in entry["fields"] and (owner := _instance(config)):
        entry["fields"]["tie_word_embeddings"] = owner.tie_word_embeddings
    if aliases := getattr(config, "attribute_map", None):
        entry["aliases"] = {a: name for a, name in aliases.items() if _is_read(a) or _is_read(name)}
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
        if _is_plain(value) and _is_read(field.name):
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
    owner = _instance(config)
    if owner is None:
        return {}
    found = {}
    for field in parts:
        part = getattr(owner, field, None)
        if not hasattr(part, "model_type"):
            continue
        literals = _literals(type(part))
        found[field] = literals
        if part.model_type:
            changed = {name: value for name, value in _values(part).items() if literals.get(name) != value}
            found[field] = {"model_type": part.model_type} | changed
    return found


@cache
def _instance(config: type) -> Any:
    """The configuration with all defaults; None when they are incomplete."""
    try:
        return config()
    except Exception as error:
        print(f"{config.__name__}: {error}", file=sys.stderr)
        return None


def _values(part: Any) -> dict[str, Any]:
    """The fields of a nested configuration as it stands, nulls included."""
    fields = {field.name for field in dataclasses.fields(part)}
    return {
        name: value
        for name, value in part.to_dict().items()
        if name in fields and _is_read(name) and isinstance(value, (bool, int, float, str, list, dict, type(None)))
    }


if __name__ == "__main__":
    sys.exit(main())
