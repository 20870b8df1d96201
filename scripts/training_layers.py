"""Simulated steps of small models whose layers hold more than their vocabulary, so that a layer's mistake shows.

    python scripts/training_layers.py tests/data/training_layers.json           with torch, transformers and peft

Every architecture of the grid with 512 words and short sequences, in six settings; what is in the file isn't simulated
again, and what a library refuses (adapters on Mamba's projections) is left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]
from training_grid import AUTOCAST, DEFAULT  # noqa: E402

GRID = ROOT / "tests" / "data" / "training_grid"
WORDS, MOST = 512, 8192
SETTINGS: dict[str, dict[str, Any]] = {
    "bf16": {}, "bf16 ckpt": {"checkpointing": "full"},
    "autocast ckpt": {"precision": AUTOCAST, "checkpointing": "full"}, "lora": {"method": "lora"},
    "lora ckpt": {"method": "lora", "checkpointing": "full"},
    "qlora ckpt": {"method": "qlora", "checkpointing": "full"},
}  # fmt: skip


def setting_of(label: str) -> dict[str, Any]:
    """The setting of that label, in full."""
    return DEFAULT | {"batch": 2, "sequence": 256} | SETTINGS[label]


def config_of(name: str) -> dict[str, Any]:
    """The grid's configuration of that architecture, with few words."""
    found: dict[str, Any] = json.loads((GRID / f"{name}.json").read_text())["config"]
    inner = found["text_config"] if isinstance(found.get("text_config"), dict) else found
    if isinstance(inner.get("vocab_size"), int) and inner["vocab_size"] <= MOST:
        inner["vocab_size"] = WORDS
    for key in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        if isinstance(inner.get(key), int) and inner[key] >= WORDS:
            inner[key] = 1
    return found


def names() -> list[str]:
    """Architectures of the grid."""
    return [path.stem for path in sorted(GRID.glob("*.json")) if "config" in json.loads(path.read_text())]


def write(path: Path, versions: dict[str, str], rows: list[list[Any]]) -> None:
    """One row a line."""
    lines = ",\n".join(json.dumps(row) for row in sorted(rows))
    path.write_text(f'{{"versions": {json.dumps(versions)}, "rows": [\n{lines}\n]}}\n')


def main(path: Path) -> None:
    """Simulate what is missing."""
    from sizeup.workers.training_simulate import simulated

    known = json.loads(path.read_text()) if path.exists() else {"versions": {}, "rows": []}
    versions, rows = known["versions"], known["rows"]
    done = {(name, label) for name, label, _ in rows}
    for name in names():
        for label in SETTINGS:
            if (name, label) in done:
                continue
            try:
                found = simulated({"config": config_of(name)}, setting_of(label))
            except Exception as error:
                print(name, label, repr(error)[:150], file=sys.stderr, flush=True)
                continue
            versions = found["versions"]
            rows.append([name, label, found["peak_bytes"]])
        write(path, versions, rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
