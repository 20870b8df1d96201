"""Errors of the speed model on hardware it had not seen: published rows predicted by a fit without their device.

`data/speed_held_back.json` is written by scripts/fit_speed.py, which takes out one device after the other (for vLLM and
SGLang, which were measured on few devices, one model after the other), fits the rest and predicts what was taken out.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import msgspec

from sizeup.measure.accuracy import Comparison

BY_DEVICE, BY_MODEL = "held back by device", "held back by model"


class HeldBack(msgspec.Struct, frozen=True):
    """Rows that a fit without them predicted.

    parameters: a digest of the parameters that shipped when it was made; when they change, it must be made again.
    rows: device, engine, model, `decode` or `prompt`, measured tokens/s, predicted tokens/s.
    """

    parameters: str
    rows: tuple[tuple[str, str, str, str, float, float], ...]


def parameters_digest() -> str:
    """A digest of the speed model's parameters as they ship."""
    from sizeup.estimate import speed

    return hashlib.sha256((Path(speed.__file__).parent / "parameters.json").read_bytes()).hexdigest()[:16]


@lru_cache(maxsize=1)
def held_back() -> HeldBack:
    """The file that comes with the package."""
    path = Path(__file__).parent / "data" / "speed_held_back.json"
    return msgspec.json.decode(path.read_bytes(), type=HeldBack)


def speed_comparisons() -> tuple[Comparison, ...]:
    """Each held-back row beside its prediction, in tokens/s."""
    return tuple(
        Comparison(
            row=f"{device} {engine} {model} {quantity}",
            model=model,
            family="",
            engine=engine,
            machine_class="gpu",
            evidence=BY_MODEL if engine.partition("<")[0] in {"vllm", "sglang"} else BY_DEVICE,
            component=quantity,
            known=measured,
            estimated=predicted,
            unit="tokens/s",
        )
        for device, engine, model, quantity, measured, predicted in held_back().rows
    )
