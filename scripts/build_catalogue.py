"""Checks `src/sizeup/models/catalogue/models/*.toml` and compiles them into `catalogue.json`.

Run it after editing a TOML file: `python scripts/build_catalogue.py`. With `--check` it writes nothing and fails when
the JSON is out of date. Refuses unknown fields, facts without a source, and two models of one name.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from sizeup.models.catalogue.entry import Entry

FOLDER = Path(__file__).parents[1] / "src" / "sizeup" / "models" / "catalogue"


class Checked(Entry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry that has no field by a wrong name."""


def build(folder: Path = FOLDER / "models") -> bytes:
    """The compiled catalogue. Raises ValueError that names the model and what is wrong with it."""
    found: dict[str, Entry] = {}
    for path in sorted(folder.glob("*.toml")):
        for raw in tomllib.loads(path.read_text(encoding="utf-8"))["model"]:
            try:
                entry = msgspec.convert(raw, Checked)
            except msgspec.ValidationError as error:
                raise ValueError(f"{path.name}: {raw.get('id', 'a model without id')}: {error}") from error
            entry = msgspec.structs.replace(entry, config=with_nulls(entry.config))
            if not entry.source:
                raise ValueError(f"{path.name}: {entry.id} has no source")
            if entry.id.lower() in found:
                raise ValueError(f"{path.name}: {entry.id} is there twice")
            found[entry.id.lower()] = entry
    return msgspec.json.encode(list(found.values()))


def with_nulls(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the fields that it sets to null: TOML has none, so `null` lists their names."""
    names = config.get("null", [])
    fields = {name: with_nulls(value) if isinstance(value, dict) else value for name, value in config.items()}
    fields.pop("null", None)
    return {**fields, **dict.fromkeys(names)}


def main() -> int:
    text = build()
    target = FOLDER / "catalogue.json"
    if "--check" in sys.argv[1:]:
        if target.read_bytes() != text:
            print("catalogue.json is out of date: run scripts/build_catalogue.py", file=sys.stderr)
            return 1
        return 0
    target.write_bytes(text)
    print(f"{len(msgspec.json.decode(text))} models, {len(text):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
