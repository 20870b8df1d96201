"""Trains the demo model, writes it as GGUF and quantizes it: minutes on a CPU, no network."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sizeup.errors import BadInput, MissingPart
from sizeup.measure.demo.gguf import write_gguf
from sizeup.measure.quality.texts import HELD_OUT_MODULES
from sizeup.measure.simulation import worker_python
from sizeup.progress import tell
from sizeup.workers.host import Event, environments_folder, find_python, run_worker

NAME = "sizeup-demo"
QUANTIZED = ("Q8_0", "Q4_K_M", "Q2_K")
#: Every row of every matrix is a multiple of 256 values, so that the k-quants apply to all of them.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "dtype": "float16",
}
VOCABULARY = 4096
#: Beside training: the tokenizer, the conversion, a slow disk.
_MORE_SECONDS = 900


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


def build(folder: Path, *, minutes: float, threads: int, seed: int = 1, again: bool = False) -> Demo:
    """Train, convert and quantize; the folder appears when all of it is done, and replaces an older one.

    What an interrupted call has trained is kept beside it, and the next one goes on from there, unless `again`.
    Raises MissingPart without torch, tokenizers and safetensors, or without llama-cpp-python; BadInput while another
    process trains it, or when the folder holds anything else.
    """
    _refuse_others(folder)
    quantizer = worker_python()
    python = _trainer()
    unfinished = folder.parent / f".{folder.name}-unfinished"
    with _alone(unfinished, again=again):
        new = unfinished / NAME
        new.mkdir(exist_ok=True)
        trained = train(new, python, minutes=minutes, threads=threads, seed=seed)
        convert(new, quantizer, threads=threads)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    shutil.rmtree(unfinished)
    return Demo(str(folder), {name: str(_file(folder, name)) for name in ("F16", *QUANTIZED)}, trained)


def _refuse_others(folder: Path) -> None:
    """A folder with anything but a demo model in it isn't replaced."""
    own = {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        *(f"{NAME}-{name}.gguf" for name in ("F16", *QUANTIZED)),
    }
    others = sorted({path.name for path in folder.iterdir()} - own) if folder.is_dir() else []
    if others:
        raise BadInput(f"{folder} holds {others[0]!r}, which is no part of the demo model", hint="give a new --folder")


@contextlib.contextmanager
def _alone(folder: Path, *, again: bool) -> Iterator[None]:
    """A folder to work in, that no other process works in: the number of whoever does is kept in it."""
    import psutil

    note = folder / "process"
    if note.is_file():
        number = note.read_text().strip()
        if number.isdecimal() and int(number) != os.getpid() and psutil.pid_exists(int(number)):
            raise BadInput(f"process {number} is training the demo model", hint="wait for it, or give another --folder")
    if again:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(str(os.getpid()))
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def train(folder: Path, python: str, *, minutes: float, threads: int, seed: int) -> Trained:
    """Train the checkpoint into a folder."""
    job = {
        "folder": str(folder),
        "minutes": minutes,
        "threads": threads,
        "seed": seed,
        "config": CONFIG,
        "vocabulary": VOCABULARY,
        "held_out": HELD_OUT_MODULES,
    }
    timeout = minutes * 60 + _MORE_SECONDS
    (result,) = run_worker("train_demo.py", job, python=python, timeout=timeout, on_event=_told)
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
        return find_python(("torch", "tokenizers", "safetensors"), "training")
    except MissingPart as missing:
        hint = missing.hint or "install torch, tokenizers and safetensors"
        raise MissingPart("training the demo model needs torch, tokenizers and safetensors", hint=hint) from None


def _told(event: Event) -> None:
    if event["event"] == "progress":
        tell(event["what"], event["done"], event["all"])


def default_threads() -> int:
    """The processors that this process may use."""
    affinity: Any = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
