"""What `machine calibrate` found on this machine, and the user's own runs beside it, and how predictions use both.

Only the machine at hand is calibrated: a described one keeps its theoretical ceilings.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from sizeup.estimate.speed.ceilings import Ceilings, ceilings
from sizeup.estimate.speed.parameters import digest
from sizeup.estimate.speed.tighten import tightened
from sizeup.machines.device import Machine
from sizeup.measure.own_runs import OwnRuns, own_runs, stamp


class Fitted(msgspec.Struct, frozen=True):
    """One device as measured. corrections: factors on the seconds of single parts (`sizeup.estimate.speed.tighten`)."""

    corrections: dict[str, float]


class Calibration(msgspec.Struct, frozen=True):
    """All that a run of `machine calibrate` found. key: of the machine; date: ISO 8601; schema: of this file."""

    key: str
    date: str
    devices: dict[str, Fitted]


def machine_key(machine: Machine) -> str:
    """What a calibration belongs to: devices, threads, memory, fitted model. It applies until one of them changes."""
    devices = ",".join(f"{d.name}/{d.identity}" for d in machine.devices)
    return f"{devices}/{machine.cpu_threads}/{machine.cpu.memory_bytes}/{digest()}"


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
    _kept.cache_clear()
    _LAST.clear()
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


#: What the last answer rests on, and the answer: a machine, a calibration and a ledger as they were then.
_LAST: dict[str, Any] = {}


def measured_ceilings(machine: Machine) -> dict[str, Ceilings]:
    """Ceilings by device name, where `machine calibrate` or the user's own runs speak; none of a described machine.

    The runs pull what calibration left, each towards its own parts and packings. Worked out once while files stay.
    """
    if machine.evidence != "probed":
        return {}
    state = (calibration_file(), machine_key(machine), stamp())
    if _LAST.get("state") != state:
        _LAST.update(state=state, tops=_tops(machine, _kept(*state[:2])))
    found: dict[str, Ceilings] = _LAST["tops"]
    return found


def _tops(machine: Machine, found: Calibration | None) -> dict[str, Ceilings]:
    tops, runs = {}, own_runs(machine)
    for device in machine.devices:
        fitted = found.devices.get(device.name) if found else None
        own = runs.get(device.name)
        if device.bandwidth and (fitted or own):
            top = apply(ceilings(device), fitted) if fitted else ceilings(device)
            tops[device.name] = pulled(top, own) if own else top
    return tops


def pulled(top: Ceilings, runs: OwnRuns) -> Ceilings:
    """A device with the user's runs on it."""
    return msgspec.structs.replace(
        tightened(top, runs.decode + runs.prompt), decode_runs=len(runs.decode), prompt_runs=len(runs.prompt)
    )


def apply(theory: Ceilings, fitted: Fitted) -> Ceilings:
    """The theoretical ceilings with what calibration measured to correct them."""
    return msgspec.structs.replace(theory, corrections=tuple(fitted.corrections.items()), calibrated=True)
