"""Judge the estimate by random steps that nobody chose: draw, simulate, and write what came out.

    python scripts/training_draws.py tests/data/training_draws.json COUNT SEED      with torch, transformers and peft
    python scripts/training_draws.py tests/data/training_draws.json                 judge what is there

A draw takes a small model of the grid, or one of the truth's real ones with few of its layers, changes sizes that can
be changed in any family, and takes a random setting. The code must be frozen before it is run: rows are judged as they
fall, and a row that showed a defect stays.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]
from training_grid import DEFAULT  # noqa: E402  its folder is put on the path above

GRID = ROOT / "tests" / "data" / "training_grid"
TRUTH = Path(os.environ.get("SIZEUP_TRUTH", ROOT.parent / "shared" / "truth")) / "configs"

AUTOCAST = ("bf16-autocast-fp32-weights", "fp16-autocast-fp32-weights")
OPTIMIZERS = ("adamw_fused", "adamw_foreach", "adamw_loop", "sgd", "sgd_momentum", "adafactor", "adam8bit")


def small(name: str) -> dict[str, Any]:
    return json.loads((GRID / f"{name}.json").read_text())["config"]


def real(name: str) -> dict[str, Any]:
    return json.loads((TRUTH / f"{name}.json").read_text())


def bases() -> list[tuple[str, str]]:
    """(Where from, name): the grid's architectures, and real configurations whose class transformers has."""
    grid = [("grid", path.stem) for path in sorted(GRID.glob("*.json")) if "config" in json.loads(path.read_text())]
    truth = [("truth", path.stem) for path in sorted(TRUTH.glob("*.json")) if "auto_map" not in real(path.stem)]
    return grid + truth


def config_of(origin: str, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    found = small(name) if origin == "grid" else real(name)
    inner = next((found[key] for key in ("text_config", "thinker_config") if isinstance(found.get(key), dict)), found)
    inner |= {key: value for key, value in changes.items() if key in inner}
    for key in ("layer_types", "mlp_layer_types"):
        if isinstance(inner.get(key), list) and "num_hidden_layers" in inner:
            inner[key] = inner[key][: inner["num_hidden_layers"]]
    return found


def changes_of(origin: str, config: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Sizes that any family lets change: words, layers, feed-forward."""
    inner = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    made: dict[str, Any] = {}
    if origin == "truth":
        for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers",
                    "num_decoder_layers"):  # fmt: skip
            if isinstance(inner.get(key), int):
                made[key] = min(inner[key], draw.choice((2, 3, 4)))
        return made
    if isinstance(inner.get("vocab_size"), int) and inner["vocab_size"] <= 8192:
        made["vocab_size"] = inner["vocab_size"] + 64 * draw.randrange(0, 200)
    for key in ("intermediate_size", "ffn_dim", "n_inner", "d_ff"):
        if isinstance(inner.get(key), int):
            made[key] = inner[key] + 32 * draw.randrange(0, 40)
    return made


def setting_of(draw: random.Random) -> dict[str, Any]:
    """A setting that someone might choose."""
    made: dict[str, Any] = {
        "method": draw.choices(("full", "lora", "qlora"), (6, 3, 1))[0],
        "precision": draw.choices(("bf16", AUTOCAST[0], "fp32", "fp16", AUTOCAST[1]), (5, 4, 2, 1, 1))[0],
        "optimizer": draw.choice(OPTIMIZERS),
        "batch": draw.choice((1, 1, 2, 3, 4, 8)),
        "sequence": draw.choice((64, 100, 128, 256, 384, 512, 777, 1024)),
        "checkpointing": draw.choices(("none", "full", "2"), (5, 4, 1))[0],
        "attention": draw.choices(("sdpa", "eager"), (3, 1))[0],
        "padding": draw.random() < 0.2,
        "accumulating": draw.random() < 0.2,
        "keeps_outputs": draw.random() < 0.15,
        "gradient_clip": draw.random() < 0.3,
    }
    if made["method"] != "full":
        made |= {
            "lora_rank": draw.choice((4, 8, 16, 64)),
            "lora_dropout": draw.choice((0.0, 0.0, 0.05)),
            "adapter_precision": draw.choice(("fp32", "fp32", "bf16")),
        }
    return made


def drawn(count: int, seed: int) -> list[dict[str, Any]]:
    draw, choices = random.Random(seed), bases()
    rows = []
    while len(rows) < count:
        origin, name = draw.choice(choices)
        config = small(name) if origin == "grid" else real(name)
        rows.append(
            {"from": origin, "name": name, "changes": changes_of(origin, config, draw), "setting": setting_of(draw)}
        )
    return rows


def simulate(path: Path, count: int, seed: int) -> None:
    from sizeup.workers.training_simulate import simulated

    rows = []
    for number, row in enumerate(drawn(count, seed)):
        config = config_of(row["from"], row["name"], row["changes"])
        try:
            found = simulated({"config": config}, DEFAULT | row["setting"])
        except Exception as error:
            print(number, row["name"], row["setting"], repr(error)[:150], file=sys.stderr, flush=True)
            continue
        rows.append(row | {"peak": found["peak_bytes"]})
        path.write_text(json.dumps({"seed": seed, "drawn": number + 1, "rows": rows}, indent=0) + "\n")
    print(len(rows), "of", count, "simulated")


def errors(path: Path) -> list[tuple[float, dict[str, Any], float]]:
    """(Relative error, row, what the estimate says of its own error) of every row; those it refuses are left out."""
    import sizeup
    from sizeup.errors import SizeupError

    found = []
    for row in json.loads(path.read_text())["rows"]:
        given = {key: value for key, value in (DEFAULT | row["setting"]).items() if key != "reshard"}
        if given["method"] == "full":
            given = {key: value for key, value in given.items() if not key.startswith(("lora_", "adapter_", "double_"))}
        else:
            given["lora_targets"] = ",".join(given["lora_targets"])
        try:
            report = sizeup.train(config_of(row["from"], row["name"], row["changes"]), **given)
        except SizeupError as error:
            print("refused:", row["name"], row["setting"], str(error)[:100], file=sys.stderr)
            continue
        found.append((report.footprint.peak_bytes / row["peak"] - 1, row, report.uncertainty))
    return found


def judge(path: Path) -> None:
    found = errors(path)
    for label, part in (("all", found), ("known", [entry for entry in found if not entry[2]])):
        sizes = sorted(abs(error) for error, _, _ in part)
        high = sizes[len(sizes) * 95 // 100]
        print(
            f"{label}: {len(part)} steps, median {statistics.median(sizes):.4%}, p95 {high:.3%}, "
            f"lowest {min(error for error, _, _ in part):.2%}, highest {max(error for error, _, _ in part):+.2%}"
        )
    for error, row, sure in sorted(found, key=lambda entry: -abs(entry[0]))[:40]:
        plain = {key: value for key, value in row["setting"].items() if DEFAULT[key] != value}
        print(f"{error:+8.2%} ±{sure:.0%} {row['name']} {plain}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        simulate(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    else:
        judge(Path(sys.argv[1]))
