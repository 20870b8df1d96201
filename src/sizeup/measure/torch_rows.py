"""Training steps as rows of the ledger, and the estimate of such a row.

Components of a row, in bytes: `peak` (torch.cuda.max_memory_allocated), `reserved` (max_memory_reserved, or a replay of
the caching allocator), `process` (what the driver shows), `resident` (the process's pages, for a step on a CPU).
`setting` holds the fields of TrainSetting that differ from their defaults.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import msgspec

from sizeup.errors import BadFile, NotFound
from sizeup.estimate.training.checks import check
from sizeup.estimate.training.estimate import training_peak
from sizeup.estimate.training.models import Subject, subject_of
from sizeup.estimate.training.process import Range, process_range, reserved_bytes
from sizeup.estimate.training.settings import TrainSetting
from sizeup.measure.rows import ModelRecord, Row
from sizeup.models.config import Config
from sizeup.models.model_type import model_type_of

ENGINE = "torch"
#: What a simulated row was made with; changes when its numbers would.
SIMULATION = "fake tensors 1"
MEASUREMENT = "steady step 1"


def train_key(config: dict[str, Any]) -> str:
    """A digest of a configuration: a step depends on what its modules keep, not only on shapes."""
    return "train-" + hashlib.sha256(msgspec.json.encode(config, order="sorted")).hexdigest()[:16]


def train_record(config: dict[str, Any], name: str, parameters: int = 0) -> ModelRecord:
    """The model that training rows refer to."""
    return ModelRecord(train_key(config), name, model_type_of(Config(config, name)), parameters, config)


def changed(setting: TrainSetting) -> dict[str, Any]:
    """The fields of a setting that differ from their defaults."""
    given, plain = (msgspec.json.decode(msgspec.json.encode(each)) for each in (setting, TrainSetting()))
    return {name: value for name, value in given.items() if value != plain[name]}


def train_row(record: ModelRecord, setting: TrainSetting, components: dict[str, float | int], **fields: Any) -> Row:
    """A simulated or measured step as a row; fields: the rest of the row."""
    return Row(
        **{"kind": "simulate", "source": "sizeup", "machine_class": "gpu", "method": SIMULATION} | fields,
        model=record.model,
        engine=ENGINE,
        components=components,
        shape=record.key,
        family=record.family,
        setting=changed(setting),
    )


def setting_of_row(row: Row) -> TrainSetting:
    """The setting of a row. Raises BadFile when it can't be one."""
    try:
        return msgspec.convert(row.setting, TrainSetting)
    except msgspec.ValidationError as error:
        raise BadFile(f"the setting of a row of {row.model} can't be read: {error}") from error


def train_estimate(row: Row, record: ModelRecord | None) -> dict[str, float]:
    """Component → bytes. Raises NotFound when the ledger doesn't hold the model."""
    if record is None or not record.config:
        raise NotFound(f"the ledger doesn't say how {row.model} is built")
    peak = _peak(msgspec.json.encode(record.config), setting_of_row(row))
    return {name: train_range(name, peak).expected for name in ("peak", "reserved", "process")}


@lru_cache(maxsize=8192)
def _peak(config: bytes, setting: TrainSetting) -> int:
    """The estimated peak; a row is looked at for several reasons, and estimated once."""
    shape = _subject(config).shape
    check(setting, shape, None)
    return training_peak(shape, setting)


@lru_cache(maxsize=512)
def _subject(config: bytes) -> Subject:
    return subject_of(msgspec.json.decode(config))


def train_range(component: str, peak: int) -> Range:
    """The interval in which a component of a step lies whose allocator peaks at `peak`."""
    if component == "reserved":
        return reserved_bytes(peak)
    return process_range(peak) if component == "process" else Range(peak, peak, peak)
