"""Published speed rows with what they ask of the device: model names to shapes, hardware names to devices.

Rows that can't be used are kept with the reason. Used by scripts/fit_speed.py and tests/speed.
"""

from __future__ import annotations

import csv
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.traffic import placed_work
from sizeup.engines.llamacpp.weights import assign, file_bytes
from sizeup.engines.mlx.traffic import layout_of as mlx_layout
from sizeup.engines.vllm.traffic import layout_of as vllm_layout
from sizeup.errors import SizeupError
from sizeup.estimate.speed.checkpoint import demands
from sizeup.estimate.speed.work import PACKINGS, Work, family
from sizeup.formats.mixes import mix
from sizeup.machines.catalogue import Entry
from sizeup.machines.words import device_named
from sizeup.models.catalogue import find
from sizeup.models.from_catalogue import model_from_entry
from sizeup.models.from_config import model_from_config
from sizeup.models.model import Model

HERE = Path(__file__).parent
ALIASES: dict[str, str] = json.loads((HERE / "speed_aliases.json").read_text())
SHAPES: dict[str, Any] = json.loads((HERE / "speed_shapes.json").read_text())
_SUFFIX = re.compile(
    r"[-_.:](ud[-_.])?(i?q\d(_[k01])?(_[smlp]|_xl|_xxs|_xs|_nl)?|fp16|f16|mxfp[48]|bf16|[468]bit|awq|nvfp4|gptq(-int\d)?"
    r"|fp8(-dynamic)?|int4|qat|w8a16|bnb-4bit|mlx|gguf|mtp|latest|i1|fast|ud)$",
    re.IGNORECASE,
)
_ENGINES = {"llama.cpp": "llama.cpp", "llamacpp": "llama.cpp", "ollama": "ollama", "lmstudio": "lmstudio",
            "llamafile": "llamafile", "mlx": "mlx", "vllm": "vllm", "sglang": "sglang"}  # fmt: skip
#: A row that moves less than this share of the bytes a second of a smaller pass on the same device contradicts it.
CONTRADICTED = 0.4
HELD_UP = "throttled, shared or partly on the host"
#: LocalScore's nine tests: (prompt, generated).
LOCALSCORE = (
    (1024, 16),
    (4096, 256),
    (2048, 256),
    (2048, 768),
    (1024, 1024),
    (1280, 3072),
    (384, 1152),
    (64, 1024),
    (16, 1536),
)


class Row(msgspec.Struct):
    """One measured row. works: of one decoded token at its depth, by device in order; prompt: of reading the prompt."""

    key: str
    source: str
    hardware: str
    device: Entry
    count: int
    backend: str
    engine: str
    model: str
    format: str
    depth: float
    decode: float | None
    prefill: float | None
    prompt_tokens: int
    generated: int
    work: Work | None = None
    prompt: Work | None = None
    prompt_depth: float = 0.0
    passes: float = 1.0
    old: bool = False
    total_time: bool = False
    flash: bool = True
    file_bytes: int = 0
    dropped: str = ""


def names(name: str) -> list[str]:
    """Spellings to try, the most literal first."""
    text = re.sub(r"\.gguf$", "", name.rsplit("/", 1)[-1], flags=re.IGNORECASE)
    found = [name, text]
    for _ in range(6):
        shorter = _SUFFIX.sub("", text)
        if shorter == text:
            break
        text = shorter
        found.append(text)
        if "_" in text:
            found.append(text.split("_", 1)[1])
    return [*found, text.replace("_", "-"), f"{text}-Instruct", f"{text}-it"]


@cache
def shape(name: str, truth: str) -> Model | None:
    """The model of known shape that a row's name means, or None."""
    alias = ALIASES.get(name)
    if alias and alias.startswith("+"):
        return model_from_config(SHAPES[alias[1:]], name=alias[1:])
    for candidate in [alias] if alias else names(name):
        if entry := find.find(candidate):
            return model_from_entry(entry)
    configs = Path(truth) / "configs"
    for candidate in [alias] if alias else names(name):
        for path in (configs / f"{candidate.replace('/', '--')}.json", *configs.glob(f"*--{candidate}.json")):
            if path.exists():
                return model_from_config(json.loads(path.read_text()), name=path.stem.replace("--", "/"))
    return None


def gguf_format(name: str, model: Model) -> str:
    """The llama.cpp mix that a row's format means."""
    text = re.sub(r"^(UD|UNSLOTH-DYNAMIC)-", "", name.upper()).replace("(OLLAMA DEFAULT)", "")
    text = {"Q4_K_XL": "Q4_K_M", "Q5_K_XL": "Q5_K_M", "Q6_K_XL": "Q6_K", "Q8_K_XL": "Q8_0", "Q3_K_XL": "Q3_K_L",
            "Q2_K_XL": "Q2_K_L", "Q3_K_P": "Q3_K_M", "Q4_K_P": "Q4_K_M", "Q2_K_P": "Q2_K", "MXFP4": "MXFP4_MOE", "INT4": "Q4_0"}.get(text, text)  # fmt: skip  # noqa: E501
    if "gpt-oss" in model.name.lower() and text.startswith(("Q", "MX")):
        return "MXFP4_MOE"
    if text == "Q2_K_L":
        text = "Q2_K"
    return mix(text).name if hasattr(mix(text), "name") else text


def speed_rows(truth: Path) -> list[Row]:
    """The `ok` rows of speed.csv."""
    with (truth / "speed.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["quality"] == "ok"]
    found = [_speed_row(number, row, truth) for number, row in enumerate(rows)]
    drop_contradicted(found)
    for row in found:
        if row.prefill and row.prompt and row.prefill * row.prompt.matrix_flops / row.prompt.tokens > 1.2 * _peak(row):
            row.prefill = None  # faster than the device can compute: the prompt was in the cache
    return found


def _peak(row: Row) -> float:
    """The fastest that any of the devices' units computes, FLOP/s, all devices together."""
    return float(row.count * max(row.device.compute.values(), default=1 << 60))


def bench_rows(truth: Path) -> list[Row]:
    """The rows of llama_bench.csv: decode is tg128, else tg512 or tg1024."""
    with (truth / "llama_bench.csv").open(newline="") as file:
        return [_bench_row(number, row, truth) for number, row in enumerate(csv.DictReader(file))]


def _memory(row: Row) -> float:
    """Bytes of memory of the row's device; any amount for one that shares the host's."""
    return float(row.device.memory_bytes or 1 << 50) if row.device.kind == "gpu" else float(1 << 50)


def drop_contradicted(rows: list[Row]) -> None:
    """Drop rows that another row of the same device, engine and source shows to have been held up by something else.

    A pass that reads more bytes in the same sort of format reaches at least about the same bandwidth. Where one reads
    at least two thirds as much and moves less than 0.4 of the bytes a second, the GPU was throttled or shared, or part
    of the model was on the host.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if not row.dropped and row.work and row.decode and row.work.cache_bytes < 0.3 * row.work.weight_bytes:
            largest = family(PACKINGS[max(range(len(PACKINGS)), key=row.work.values.__getitem__)])
            key = (row.device.id, row.count, row.engine, row.source, largest, row.work.expert_bytes > 0)
            groups.setdefault(key, []).append(row)
    for group in groups.values():
        for row in group:
            moved = row.decode * _bytes(row)  # type: ignore[operator]
            rival = [other for other in group if _bytes(other) <= 1.5 * _bytes(row)]
            best = max(rival, key=lambda other: other.decode * _bytes(other))  # type: ignore[operator]
            if moved < CONTRADICTED * best.decode * _bytes(best):  # type: ignore[operator]
                row.dropped = (
                    f"{HELD_UP}: {moved / 1e9:.0f} GB/s, while {best.model} "
                    f"moved {best.decode * _bytes(best) / 1e9:.0f} GB/s on the same device"  # type: ignore[operator]
                )


def _bytes(row: Row) -> float:
    assert row.work is not None
    return row.work.weight_bytes + row.work.cache_bytes


def _number(text: str) -> float | None:
    return float(text) if text.strip() else None


def _speed_row(number: int, row: dict[str, str], truth: Path) -> Row:
    device = device_named(row["hardware"], bandwidth=int(float(row["mem_bw_gbs"]) * 1e9))
    engine = _ENGINES.get(row["engine"].split()[0].lower(), "")
    lowered = row["model"].lower()
    if engine == "ollama" and (lowered.endswith("-mlx") or "nvfp4" in lowered or "mxfp8" in lowered):
        engine = "mlx"
    backend = row["backend"] or device.backend
    prompt, generated = _number(row["prompt_tokens"]) or None, _number(row["output_tokens"]) or None
    if row["prompt_tokens"] == "1":
        prompt = 1.0
    if engine == "llamafile":
        prompt, generated = 1350, 1000
    at_depth = "16K depth" in row["reason"]
    prompt = 16384 if at_depth else prompt if prompt is not None else 128
    generated = generated or 128
    found = Row(
        f"speed:{number}", row["source"], row["hardware"], device, int(row["gpu_count"] or 1), backend, engine, row["model"],  # noqa: E501
        row["quant"], _depth(row, engine, prompt, generated), _number(row["decode_tok_s"]), _number(row["prefill_tok_s"]),  # noqa: E501
        max(1, int(prompt)), int(generated), total_time="over total time" in row["reason"], old="0.4-0.5" in row["engine"],  # noqa: E501
    )  # fmt: skip
    if found.depth > prompt + generated:
        found.prompt_depth = found.depth
    if not engine:
        found.dropped = f"engine {row['engine'].split()[0]} has kernels and formats of its own"
        return found
    model = shape(row["model"], str(truth))
    if model is None:
        found.dropped = "shape unknown"
        return found
    if int(row["gpu_count"] or 1) > 1 and "split mode unknown" in row["reason"]:
        found.dropped = "several GPUs, split mode unknown"
        return found
    kv = row["kv_dtype"].lower()
    try:
        for cache in [kv] if kv in {"q8_0", "q4_0"} else ["f16", "q8_0", "q4_0"]:
            _fill(found, model, cache)
            if found.work and found.file_bytes + found.work.cache_bytes <= 0.96 * found.count * _memory(found):
                break
    except (SizeupError, ValueError, KeyError) as error:
        found.dropped = f"no estimate: {error}"
    if not found.dropped and found.file_bytes > found.count * _memory(found) * 0.97:
        found.dropped = f"{found.file_bytes / 2**30:.1f} GiB don't fit the GPU: an unknown part ran on the host"
    return found


def _depth(row: dict[str, str], engine: str, prompt: float, generated: float) -> float:
    """Tokens in the cache while decoding. llama-bench's 512 + 128 at `-d` is published with the depth as the context."""  # noqa: E501
    context = _number(row["context"]) or 0.0
    if engine == "llama.cpp" and prompt == 512 and generated in {64, 128} and "localmaxxing" in row["source"]:
        return context
    return prompt + generated / 2


def _bench_row(number: int, row: dict[str, str], truth: Path) -> Row:
    device = device_named(row["hardware"])
    decode = _number(row["tg128"]) or _number(row["tg1024"]) or _number(row["tg512"])
    generated = 128 if row["tg128"] else 1024 if row["tg1024"] else 512
    many = re.search(r"\*\s*(\d+)$", row["hardware"])
    found = Row(
        f"bench:{number}", "llama-bench", row["hardware"], device, int(many[1]) if many else 1, row["backend"].lower(),
        "llama.cpp", row["model"], row["quant"], generated / 2, decode, _number(row["pp512"]), 512, generated,
        flash=row["flash_attn"] == "1",
    )  # fmt: skip
    model = shape(row["model"], str(truth))
    assert model is not None
    _fill(found, model, "f16")
    return found


def _fill(row: Row, model: Model, cache: str) -> None:
    """The row's work. Layers are split, so that the devices together do what one would do."""
    if row.engine in {"vllm", "sglang", "mlx"}:
        name = row.format.split()[0].split("_")[0].upper() if row.format.upper() != "INT8_W8A16" else "INT8"
        name = {"AWQ-INT4": "AWQ", "UD": "4BIT"}.get(name, name).removeprefix("MLX-")
        if row.engine == "mlx":
            name = {"Q4": "4BIT", "INT4": "4BIT", "Q8": "8BIT"}.get(name, name)
        layout = mlx_layout(name) if row.engine == "mlx" else vllm_layout(name)
        if "gpt-oss" in model.name:
            layout = msgspec.structs.replace(layout, experts_only=True)
        asked = demands(model, layout, "f16")
        split = row.count if row.engine != "mlx" else 1
        row.work = asked.work(depth=row.depth, split=split)
        step = min(2048, row.prompt_tokens)
        row.passes = row.prompt_tokens / step
        row.prompt = asked.work(tokens=step, depth=(row.prompt_tokens - step) / 2, split=split)
        row.file_bytes = int(asked.work(tokens=100000).weight_bytes)
        return
    setting = LlamaSetting(format=gguf_format(row.format, model), cache_k=cache, cache_v=cache)
    places = assign(model.layers, -1, (1.0,))
    row.format = setting.format
    row.work = placed_work(model, setting, places, depth=row.depth)[0].work
    step = min(512, row.prompt_tokens)
    row.passes = row.prompt_tokens / step
    before = row.prompt_depth + (row.prompt_tokens - step) / 2
    row.prompt = placed_work(model, setting, places, tokens=step, depth=before)[0].work
    row.file_bytes = file_bytes(model, setting.format)
