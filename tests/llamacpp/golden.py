"""What llama.cpp itself says of 15 models: recorded from its allocator, which sizes every buffer without weights.

golden.json holds for each model its configuration and, for several settings, the bytes that llama.cpp 0.5.0 (0c1e570)
reported with `no_alloc`: on a processor with AVX2 (`cpu`), and with one or two GPUs (`gpu`: a backend that lays out
buffers as CUDA does, registered for the purpose). `refused`: llama.cpp doesn't accept the setting.
"""

import json
from pathlib import Path

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.machines.device import Device, Machine
from sizeup.models.from_config import model_from_config

MODELS = json.loads((Path(__file__).parent / "golden.json").read_text())
NAMES = [entry["name"] for entry in MODELS]
MIB = 1 << 20
GIB = 1 << 30


def model(name):
    """One of the models, by a part of its name."""
    found = next(entry for entry in MODELS if name in entry["name"])
    return model_from_config(found["config"], name=found["name"])


def cases(kind):
    """(model's name, setting's changes, what was recorded) of one kind."""
    return [
        (entry["name"], row["setting"], row) for entry in MODELS for row in entry.get(kind, ()) if "refused" not in row
    ]


def refusals():
    """(model's name, setting's changes) that llama.cpp doesn't accept."""
    return [(entry["name"], row["setting"]) for entry in MODELS for row in entry["cpu"] if "refused" in row]


def setting(changes):
    """A setting with those changes."""
    return LlamaSetting(**changes)


def case_id(case):
    """A name for a case."""
    return case if isinstance(case, str) else None


def machine(*gpus, memory=64 * GIB, features=("avx2",)):
    """A machine with GPUs of so many bytes."""
    cards = tuple(
        Device(name=f"card {i}", kind="gpu", vendor="nvidia", memory_bytes=size, free_bytes=size, backend="cuda")
        for i, size in enumerate(gpus)
    )
    host = Device(name="host", kind="cpu", vendor="amd", memory_bytes=memory, free_bytes=memory, features=features)
    return Machine(name="test", cpu=host, gpus=cards, evidence="probed")
