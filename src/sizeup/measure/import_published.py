"""Published measurements as rows: what somebody else measured, with the citation and the setting as they gave it.

A CSV file with the columns `kind, model, method, setting, hardware, n_gpus, measured, unit, metric, source`; several
lines of one run (same model, setting and source) become one row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sizeup.errors import BadFile
from sizeup.measure.rows import Row, checked
from sizeup.quantity.units import GB, GIB, KIB, MB, MIB

COLUMNS = ("kind", "model", "method", "setting", "hardware", "n_gpus", "measured", "unit", "metric", "source")
_UNITS = {"b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "mb": MB, "gb": GB}
#: Words of a metric → component of a row, and the device when the metric names one; the first match counts.
_METRICS = (
    (re.compile(r"\bKV\b", re.IGNORECASE), "cache"),
    (re.compile(r"compute buffer", re.IGNORECASE), "compute"),
    (re.compile(r"model buffer", re.IGNORECASE), "weights"),
)
_HOST = re.compile(r"\bhost\b|CUDA_Host|^CPU\b", re.IGNORECASE)
_DEVICE = re.compile(r"CUDA(\d)")
_SETTINGS = (
    (re.compile(r"n_ctx (?:<?= ?)?(\d+)"), "context", int),
    (re.compile(r"\bubatch (\d+)"), "ubatch", int),
    (re.compile(r"n_batch (\d+)"), "batch", int),
    (re.compile(r"\bFA (on|off)\b"), "flash_attention", str),
)


def read_published(lines: Iterable[str], methods: frozenset[str] | None = None) -> list[Row]:
    """The rows of a CSV file; `methods` keeps only those. Raises BadFile with the line for what can't be read."""
    reader = csv.DictReader(lines)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise BadFile(f"published measurements lack the column {missing[0]!r}", hint=f"columns: {', '.join(COLUMNS)}")
    runs: dict[tuple[str, ...], dict[str, Any]] = {}
    for number, entry in enumerate(reader, 2):
        if methods is None or entry["method"] in methods:
            key = (entry["model"], entry["method"], entry["setting"], entry["source"])
            run = runs.setdefault(key, {"first": entry, "components": {}})
            name, amount = _amount(entry, number)
            run["components"][name] = run["components"].get(name, 0) + amount
    return [checked(_row(run["first"], run["components"])) for run in runs.values()]


def _amount(entry: Mapping[str, str], number: int) -> tuple[str, int]:
    unit = _UNITS.get(entry["unit"].partition("(")[0].strip().lower())
    try:
        value = float(entry["measured"])
    except ValueError:
        value = -1.0
    if unit is None or value < 0:
        raise BadFile(
            f"line {number}: {entry['measured']!r} {entry['unit']!r} is no amount of memory",
            hint=f"units: {', '.join(_UNITS)}",
        )
    return _component(entry["metric"], entry["hardware"]), round(value * unit)


def _component(metric: str, hardware: str) -> str:
    """`compute.GPU0`, `compute.host`, `cache`, `weights`; a metric that names none of them is the total."""
    component = next((name for pattern, name in _METRICS if pattern.search(metric)), "total")
    if component == "cache" or "+" in metric:
        return component
    if _HOST.search(f"{metric} {hardware}" if component == "compute" else hardware):
        return f"{component}.host"
    device = _DEVICE.search(metric) or _DEVICE.search(hardware)
    return f"{component}.GPU{device[1] if device else 0}" if component != "total" else component


def _row(entry: Mapping[str, str], components: dict[str, float | int]) -> Row:
    gpus = int(entry["n_gpus"] or 0)
    return Row(
        kind="measure",
        model=entry["model"],
        engine=entry["method"],
        components=components,
        source=entry["source"],
        machine=entry["hardware"],
        machine_class="several gpus" if gpus > 1 else "gpu",
        gpus=("cuda",) * gpus if "CUDA" in entry["hardware"] else (),
        setting=dict(_told(entry["setting"])),
        workload={"as published": entry["setting"]},
        method="published",
    )


def _told(setting: str) -> Iterator[tuple[str, Any]]:
    for pattern, name, kind in _SETTINGS:
        if found := pattern.search(setting):
            yield name, kind(found[1])
