"""What `machine calibrate` found on this machine, kept with the user's data, and how predictions use it.

Only the machine at hand is calibrated: a described one keeps its theoretical ceilings.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import msgspec

from sizeup.estimate.speed.ceilings import Ceilings, ceilings
from sizeup.machines.device import Machine


class Fitted(msgspec.Struct, frozen=True):
    """One device's rates as measured, as factors on what the model would say of it.

    bandwidth: bytes/s; operations/s of integers, vectors, matrices of packed and of 16 bit weights, attention.
    """

    bandwidth: float
    integer: float
    packed_matrix: float
    plain_matrix: float
    attention: float
    vector: float


class Calibration(msgspec.Struct, frozen=True):
    """All that a run of `machine calibrate` found. key: of the machine; date: ISO 8601."""

    key: str
    date: str
    devices: dict[str, Fitted]


def machine_key(machine: Machine) -> str:
    """What a calibration belongs to: the devices, threads and memory. It doesn't apply once they change."""
    devices = ",".join(f"{d.name}/{d.identity}" for d in machine.devices)
    return f"{devices}/{machine.cpu_threads}/{machine.cpu.memory_bytes}"


def calibration_file() -> Path:
    """Where it is kept: SIZEUP_CALIBRATION, or the user's data folder."""
    chosen = os.environ.get("SIZEUP_CALIBRATION")
    if chosen:
        return Path(chosen)
    from platformdirs import user_data_path

    return user_data_path("sizeup") / "calibration.json"


def keep(found: Calibration) -> Path:
    """Write a calibration; the file's path."""
    path = calibration_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(found))
    _load.cache_clear()
    return path


@lru_cache(maxsize=4)
def _load(path: Path) -> Calibration | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Calibration)
    except (OSError, msgspec.MsgspecError):
        return None


@lru_cache(maxsize=4)
def _kept(path: Path, key: str) -> Calibration | None:
    found = _load(path)
    return found if found is not None and found.key == key else None


def measured_ceilings(machine: Machine) -> dict[str, Ceilings]:
    """Measured ceilings by device name; empty for a machine that is described or hasn't been calibrated."""
    if machine.evidence != "probed":
        return {}
    found = _kept(calibration_file(), machine_key(machine))
    if found is None:
        return {}
    return {device.name: apply(ceilings(device), found.devices[device.name])
            for device in machine.devices if device.name in found.devices and device.bandwidth}  # fmt: skip


def apply(theory: Ceilings, fitted: Fitted) -> Ceilings:
    """The theoretical ceilings with what was measured in their place."""
    return Ceilings(
        **msgspec.structs.asdict(fitted), generation=theory.generation, stack=theory.stack, source="measured"
    )
