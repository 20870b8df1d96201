"""What configurations of other programs have in common: YAML, and refusing what a program has no words for."""

from __future__ import annotations

import json
from typing import Any

from sizeup.errors import BadInput
from sizeup.estimate.training.settings import TrainSetting


def yaml(fields: dict[str, Any], depth: int = 0) -> str:
    """Nested mappings, lists and scalars as YAML. JSON scalars are YAML, but for numbers such as 2e-05."""
    lines = []
    for name, value in fields.items():
        if isinstance(value, dict):
            lines.append(f"{'  ' * depth}{name}:\n{yaml(value, depth + 1)}")
        else:
            written = f"{value:e}" if isinstance(value, float) and "e" in repr(value) else json.dumps(value)
            lines.append(f"{'  ' * depth}{name}: {written}")
    return "\n".join(lines)


def refuse_unsaid(program: str, setting: TrainSetting, known: dict[str, tuple[str, ...]]) -> None:
    """Raise BadInput for the first field whose value the program has no words for."""
    for name, values in known.items():
        value = str(getattr(setting, name))
        if value not in values:
            raise BadInput(f"{program} has no {name} {value!r}", hint=f"set {name}={values[0]}")
