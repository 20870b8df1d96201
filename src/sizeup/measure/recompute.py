"""The estimate that belongs to a row of the ledger: the same model, setting and machine, computed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from sizeup.engines.llamacpp.footprint import footprint
from sizeup.engines.llamacpp.overhead import host_overhead
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.errors import BadFile, NotFound
from sizeup.estimate.footprint import DeviceFootprint, Footprint
from sizeup.machines.device import Device, Machine
from sizeup.measure.rows import ModelRecord, Row
from sizeup.models.from_config import model_from_config
from sizeup.models.model import Model

#: Devices whose memory is no question: what a row holds is already known to have fitted.
_AMPLE_BYTES = 1 << 50
_ACCOUNTED = ("weights", "cache", "compute")


class Models:
    """The models that rows refer to, each built once, when it is first asked for."""

    def __init__(self, records: dict[str, ModelRecord]) -> None:
        self._records = records
        self._built: dict[str, Model] = {}

    def record(self, row: Row) -> ModelRecord | None:
        """What the ledger holds of the model of a row."""
        return self._records.get(row.shape)

    def of(self, row: Row) -> Model:
        """The model of a row. Raises NotFound when the ledger doesn't say how it is built."""
        if row.shape not in self._built:
            record = self.record(row)
            if record is None or not record.config:
                raise NotFound(f"the ledger doesn't say how {row.model} is built")
            self._built[row.shape] = model_from_config(record.config, record.model)
        return self._built[row.shape]


def estimate_of(row: Row, models: Models) -> dict[str, float]:
    """Component → amount, in the row's unit. Raises NotFound when the row doesn't say enough to compute it."""
    engine = ENGINES.get(row.engine)
    if engine is None:
        raise NotFound(f"no estimate for engine {row.engine!r} yet")
    return engine(row, models)


def machine_of(row: Row) -> Machine:
    """The machine of a row: instruction sets are the words after the colon, `gpus` names each GPU's backend."""
    name, _, features = row.machine.partition(":")
    cpu = _device(name, "cpu", "cpu", tuple(features.split()))
    gpus = tuple(_device(f"{name} {number}", "gpu", backend) for number, backend in enumerate(row.gpus))
    return Machine(name=name, cpu=cpu, gpus=gpus, evidence="file")


def _device(name: str, kind: str, backend: str, features: tuple[str, ...] = ()) -> Device:
    return Device(
        name=name,
        kind=kind,
        vendor="",
        backend=backend,
        memory_bytes=_AMPLE_BYTES,
        free_bytes=_AMPLE_BYTES,
        features=features,
    )


def _torch(row: Row, models: Models) -> dict[str, float]:
    from sizeup.measure.torch_rows import train_estimate

    return train_estimate(row, models.record(row))


def _llamacpp(row: Row, models: Models) -> dict[str, float]:
    model = models.of(row)
    if not row.setting:
        raise NotFound(f"a row of {row.model} doesn't say how llama.cpp was started")
    try:
        setting = msgspec.convert(row.setting, LlamaSetting)
    except msgspec.ValidationError as error:
        raise BadFile(f"the setting of a row of {row.model} can't be read: {error}") from error
    found = footprint(model, setting, machine_of(row))
    if row.gpus:
        return _by_device(found, setting)
    if row.kind == "simulate":
        return _buffers(found.devices[0])
    texts = row.workload.get("weights") != "random"
    overhead = host_overhead(model, setting.ubatch_tokens, setting.format, texts).value
    return _process(found.devices[0], setting, overhead)


def _items(device: DeviceFootprint) -> Counter[str]:
    """Bytes on one device by component, and of the items that are looked at on their own."""
    amounts: Counter[str] = Counter()
    for item in device.items:
        amounts[item.component] += item.bytes
        if item.name == "repacked weights":
            amounts[item.name] += item.bytes
        if item.name == "output buffer":
            amounts["output compute"] += item.bytes
    return amounts


def _buffers(device: DeviceFootprint) -> dict[str, float]:
    """What llama.cpp's allocator accounts for on the host; the output buffer is not in its account."""
    amounts = _items(device)
    parts = {component: amounts[component] - amounts[f"output {component}"] for component in _ACCOUNTED}
    return {**parts, "total": sum(parts.values())}


def _by_device(found: Footprint, setting: LlamaSetting) -> dict[str, float]:
    """Compute buffers device by device, as engines print them; weights, where the format is known, and cache in all."""
    *gpus, host = found.devices
    parts = {"weights": found.component("weights")} if setting.format else {}
    compute = {f"compute.GPU{number}": _items(gpu)["compute"] for number, gpu in enumerate(gpus)}
    return {**parts, "cache": found.component("cache"), **compute, "compute.host": _items(host)["compute"]}


def _process(device: DeviceFootprint, setting: LlamaSetting, overhead: float) -> dict[str, float]:
    """What the process holds: with mmap the whole file is mapped, and repacked weights are there twice."""
    amounts = _items(device)
    weights, repacked = amounts["weights"], amounts["repacked weights"]
    mapped = weights if setting.mmap and weights > repacked else 0
    own = repacked + (0 if mapped else weights - repacked) + amounts["cache"] + amounts["compute"]
    return {
        "cache": amounts["cache"],
        "compute": amounts["compute"] - amounts["output compute"],
        "overhead": overhead,
        "mapped": mapped,
        "total": mapped + own + overhead,
    }


ENGINES: dict[str, Callable[[Row, Models], dict[str, float]]] = {"llama.cpp": _llamacpp, "torch": _torch}
