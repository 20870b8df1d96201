"""Trains the demo model, writes it as GGUF and quantizes it: minutes on a CPU, no network."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from sizeup.errors import MissingPart
from sizeup.measure.demo.gguf import write_gguf
from sizeup.measure.quality.texts import HELD_OUT_MODULES
from sizeup.measure.simulation import worker_python
from sizeup.progress import tell
from sizeup.workers.host import Event, environments_folder, find_python, run_worker

NAME = "sizeup-demo"
QUANTIZED = ("Q8_0", "Q4_K_M", "Q2_K")
#: Every row of every matrix is a multiple of 256 values, so that the k-quants apply to all of them.
SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
VOCABULARY = 2048


class Trained(msgspec.Struct, frozen=True):
    """How the training went. loss: nats a token on files that were held out. files: how many were trained on."""

    loss: float
    steps: int
    tokens: int
    parameters: int
    files: int


class Demo(msgspec.Struct, frozen=True):
    """The model's folder and its files by format (`F16`, `Q4_K_M` …). trained: None when it was there already."""

    folder: str
    files: dict[str, str]
    trained: Trained | None = None


def demo_folder() -> Path:
    """Where it is kept: `models/sizeup-demo` in sizeup's data folder (SIZEUP_HOME moves it)."""
    return environments_folder().parent / "models" / NAME


def found(folder: Path) -> Demo | None:
    """The demo model in a folder, when all its files are there."""
    files = {name: str(_file(folder, name)) for name in ("F16", *QUANTIZED)}
    return Demo(str(folder), files) if all(Path(path).is_file() for path in files.values()) else None


def build(folder: Path, *, minutes: float, threads: int, seed: int = 1) -> Demo:
    """Train, convert and quantize; the folder appears when all of it is done, and replaces an older one.

    Raises MissingPart without torch and transformers, or without llama-cpp-python.
    """
    quantizer = worker_python()
    python = _trainer()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=folder.parent) as temporary:
        new = Path(temporary, NAME)
        new.mkdir()
        trained = train(new, python, minutes=minutes, threads=threads, seed=seed)
        convert(new, quantizer, threads=threads)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    return Demo(str(folder), {name: str(_file(folder, name)) for name in ("F16", *QUANTIZED)}, trained)


def train(folder: Path, python: str, *, minutes: float, threads: int, seed: int) -> Trained:
    """Train the checkpoint into a folder."""
    job = {
        "folder": str(folder),
        "minutes": minutes,
        "threads": threads,
        "seed": seed,
        "config": SHAPE,
        "vocabulary": VOCABULARY,
        "held_out": HELD_OUT_MODULES,
    }
    (result,) = run_worker("train_demo.py", job, python=python, timeout=minutes * 60 + 900, on_event=_told)
    return msgspec.convert({name: result[name] for name in Trained.__struct_fields__}, Trained)


def convert(folder: Path, python: str, *, threads: int) -> None:
    """Write the checkpoint in a folder as GGUF in half precision, and quantize that."""
    plain = _file(folder, "F16")
    tell("writing GGUF")
    write_gguf(folder, plain)
    targets = {name: str(_file(folder, name)) for name in QUANTIZED}
    job = {"gguf": str(plain), "targets": targets, "threads": threads}
    run_worker("llamacpp_quantize.py", job, python=python, on_event=_told)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{NAME}-{name}.gguf"


def _trainer() -> str:
    try:
        return find_python(("torch", "transformers", "tokenizers"), "training")
    except MissingPart as missing:
        hint = missing.hint or "install torch and transformers"
        raise MissingPart("training the demo model needs torch and transformers", hint=hint) from None


def _told(event: Event) -> None:
    if event["event"] == "progress":
        tell(event["what"], event["done"], event["all"])


def default_threads() -> int:
    """The processors that this process may use."""
    affinity: Any = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
