"""The cheapest of the catalogue's GPUs that hold a training step, alone or several with the model sharded."""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.architectures.programs import Shape
from sizeup.estimate.training.estimate import training_peak
from sizeup.estimate.training.process import process_range
from sizeup.estimate.training.settings import TrainSetting
from sizeup.machines.catalogue import Entry, entries

#: Over how many devices a step that asks for one may be sharded.
SHARDED = (2, 4, 8)


class CheapestDevice(msgspec.Struct, frozen=True):
    """Devices of the catalogue that hold the step, by their price at launch.

    memory_bytes: of each. count: how many the setting takes. sharding: what was set so that they suffice; empty when
    the setting is the one asked for. price_usd: of all of them.
    """

    name: str
    memory_bytes: int
    price_usd: int
    count: int = 1
    sharding: str = ""


def cheapest_devices(shape: Shape, setting: TrainSetting) -> tuple[CheapestDevice, ...]:
    """The cheapest for the setting as it is; and before it, when it costs less, the cheapest with FSDP over several."""
    alone = _cheapest(shape, setting, "")
    found = [] if alone is None else [alone]
    if setting.world == 1 and setting.method != "qlora":
        for count in SHARDED:
            spread = msgspec.structs.replace(setting, sharding="fsdp", data_parallel=count)
            several = _cheapest(shape, spread, f"sharding=fsdp over {count}")
            if several is not None and all(several.price_usd < other.price_usd for other in found):
                found.insert(0, several)
    return tuple(found)


def _cheapest(shape: Shape, setting: TrainSetting, sharding: str) -> CheapestDevice | None:
    wanted = process_range(training_peak(shape, setting), devices=setting.world).expected
    number = "fp8" if setting.precision == "fp8" else "bf16" if "bf16" in setting.precision else ""
    fitting = [entry for entry in entries() if _trains(entry, wanted, number, several=setting.world > 1)]
    best = min(fitting, key=lambda entry: (entry.price_usd or 0, entry.memory_bytes or 0), default=None)
    if best is None:
        return None
    price = (best.price_usd or 0) * setting.world
    return CheapestDevice(best.name, best.memory_bytes or 0, price, setting.world, sharding)


def _trains(entry: Entry, wanted: int, number: str, *, several: bool) -> bool:
    """Whether it is a GPU with CUDA or ROCm, a price, the memory and the number format; several are no laptops."""
    usable = entry.kind == "gpu" and entry.backend in {"cuda", "rocm"} and entry.price_usd
    card = entry.klass != "laptop" or not several
    return bool(usable) and card and (entry.memory_bytes or 0) >= wanted and (not number or number in entry.compute)
