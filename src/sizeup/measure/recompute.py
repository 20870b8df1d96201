"""The estimate that belongs to a row of the ledger: the same model, setting and machine, computed again."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.engines.llamacpp.footprint import footprint
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.errors import BadFile, NotFound
from sizeup.estimate.footprint import DeviceFootprint, Footprint
from sizeup.machine.device import Device, Machine
from sizeup.measure.rows import ModelRecord, Row
from sizeup.models.from_config import model_from_config
from sizeup.models.model import Model

#: Devices whose memory is no question: what a row holds is already known to have fitted.
_AMPLE_BYTES = 1 << 50


class Models:
    """The models that rows refer to, each built once, when it is first asked for."""

    def __init__(self, records: dict[str, ModelRecord]) -> None:
        self._records = records
        self._built: dict[str, Model] = {}

    def of(self, row: Row) -> Model:
        """The model of a row. Raises NotFound when the ledger doesn't say how it is built."""
        if row.shape not in self._built:
            record = self._records.get(row.shape)
            if record is None or not record.config:
                raise NotFound(f"the ledger doesn't say how {row.model} is built")
            self._built[row.shape] = model_from_config(record.config, record.model)
        return self._built[row.shape]


def estimate_of(row: Row, models: Models) -> dict[str, float]:
    """Component → amount, in the row's unit. Raises NotFound when the row doesn't say enough to compute it."""
    engine = ENGINES.get(row.engine)
    if engine is None:
        raise NotFound(f"no estimate for engine {row.engine!r} yet")
    return engine(row, models.of(row))


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


def _llamacpp(row: Row, model: Model) -> dict[str, float]:
    if not row.setting:
        raise NotFound(f"a row of {row.model} doesn't say how llama.cpp was started")
    try:
        setting = msgspec.convert(row.setting, LlamaSetting)
    except msgspec.ValidationError as error:
        raise BadFile(f"the setting of a row of {row.model} can't be read: {error}") from error
    found = footprint(model, setting, machine_of(row))
    if row.gpus:
        return _by_device(found)
    return _buffers(found.devices[0]) if row.kind == "simulate" else _process(found, mmap=setting.mmap)


def _items(device: DeviceFootprint) -> dict[str, int]:
    """Component, or the name where a component has several → bytes, on one device."""
    amounts = dict.fromkeys(("weights", "cache", "compute", "overhead", "output buffer", "repacked weights"), 0)
    for item in device.items:
        amounts[item.name if item.name == "output buffer" else item.component] += item.bytes
        if item.name == "repacked weights":
            amounts[item.name] += item.bytes
    return amounts


def _buffers(device: DeviceFootprint) -> dict[str, float]:
    """What llama.cpp's allocator accounts for on the host: its buffers, without what the process takes beside."""
    amounts = _items(device)
    parts = {component: amounts[component] for component in ("weights", "cache", "compute")}
    return {**parts, "total": sum(parts.values()) + amounts["output buffer"]}


def _by_device(found: Footprint) -> dict[str, float]:
    """Compute buffers device by device, as engines print them; the cache as a whole."""
    *gpus, host = found.devices
    compute = {f"compute.GPU{number}": _items(gpu)["compute"] for number, gpu in enumerate(gpus)}
    return {
        "weights": found.component("weights"),
        "cache": found.component("cache"),
        **compute,
        "compute.host": _items(host)["compute"],
    }


def _process(found: Footprint, *, mmap: bool) -> dict[str, float]:
    """What the process holds: with mmap the whole file is mapped, and repacked weights are there twice."""
    amounts = _items(found.devices[0])
    weights, repacked = amounts["weights"], amounts["repacked weights"]
    mapped = weights if mmap and weights > repacked else 0
    buffers = amounts["cache"] + amounts["compute"] + amounts["output buffer"]
    own = amounts["overhead"] + buffers + repacked + (0 if mapped else weights - repacked)
    return {"mapped": mapped, "overhead": amounts["overhead"], "anonymous": own, "total": mapped + own}


ENGINES: dict[str, Callable[[Row, Model], dict[str, float]]] = {"llama.cpp": _llamacpp}
