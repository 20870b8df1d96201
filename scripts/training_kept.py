"""Every simulated training step that is kept under tests/data: small models of all kinds, and what each step sets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import training_decoders
import training_encoders
import training_layers
import training_towers
from training_grid import DEFAULT, SETTINGS, load

DATA = Path(__file__).parents[1] / "tests" / "data"
#: Model, configuration, what the step sets, simulated peak.
Case = tuple[str, dict[str, Any], dict[str, Any], int]
RANK = {"sharding": "fsdp", "data_parallel": 8}


def every() -> Iterator[Case]:
    """All of them but the ranks of pipelines and of DeepSpeed, which are judged rank by rank."""
    grid = load(DATA / "training_grid")
    configs = grid["configs"]
    for name, label, peak in grid["rows"]:
        yield _case(name, configs[name], SETTINGS[label], peak)
    for name, changes, peak in grid["sharded"]:
        yield _case(name, configs[name], RANK | changes, peak)
    for name, changes, peak in json.loads((DATA / "training_grid" / "methods.json").read_text())["cases"]:
        yield _case(name, configs[name], changes, peak)
    splits = training_decoders.SPLIT_SETTINGS
    yield from _folder("training_decoders", lambda _name, label: (training_decoders.SETTINGS | splits)[label])
    for name, label, peak in json.loads((DATA / "training_layers.json").read_text())["rows"]:
        yield _case(f"{name}, few words", training_layers.config_of(name), training_layers.setting_of(label), peak)
    yield from _folder("training_encoders", lambda name, label: training_encoders.cases(name)[label])
    yield from _folder("training_towers", _with_images)


def _with_images(name: str, label: str) -> dict[str, Any]:
    """What a case of a model with a tower sets."""
    first, _, rest = label.partition(" ")
    seen = training_towers.IMAGES | training_towers.SEEN.get(name, {})
    changes = {"images": seen, "frozen": seen | {"train_vision": False}}.get(first)
    return SETTINGS[label] if changes is None else SETTINGS[rest] | changes


def _folder(folder: str, changes: Any) -> Iterator[Case]:
    for path in sorted((DATA / folder).glob("*.json")):
        found = json.loads(path.read_text())
        for label, peak in found["peaks"].items():
            yield _case(path.stem, found["config"], changes(path.stem, label), peak)


def _case(name: str, config: dict[str, Any], changes: dict[str, Any], peak: int) -> Case:
    made = DEFAULT | changes
    tuples = {key: tuple(made[key]) for key in ("lora_targets", "modules_to_save") if key in made}
    return name, config, made | tuples, peak
