"""Train a small code model on this machine, so that everything can be tried without a download.

It learns for some minutes from the Python standard library's source, with a tokenizer trained on the same files, and
is kept in sizeup's data folder as GGUF in F16, Q8_0, Q4_K_M and Q2_K. When it is stopped, the next call goes on from
what was saved last. Training needs torch, tokenizers and safetensors in a worker's environment, quantizing needs
llama-cpp-python (`sizeup engine install llama.cpp`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from sizeup.engines.signals import interruptible
from sizeup.measure.demo.build import Demo, Trained, build, default_threads, demo_folder, found


class DemoRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How long to train, and where to keep the model."""

    minutes: Annotated[float, Meta(description="Minutes of training; fewer make a worse model.", gt=0)] = 9.0
    threads: Annotated[int | None, Meta(description="Threads on the CPU; default: all that may be used.")] = None
    folder: Annotated[str, Meta(description="Where to keep it; default: sizeup's data folder.")] = ""
    again: Annotated[bool, Meta(description="Train it from the beginning, even if it is there.")] = False


class DemoReport(msgspec.Struct, frozen=True):
    """The model's folder and files by format. trained: how the training went; None when it was there already."""

    folder: str
    files: dict[str, str]
    trained: Trained | None = None
    schema: str = "sizeup.demo/1"


def demo(request: DemoRequest) -> DemoReport:
    """The demo model; trained when it isn't there."""
    folder = Path(request.folder).expanduser() if request.folder else demo_folder()
    there: Demo | None = None if request.again else found(folder)
    if there is None:
        with interruptible():
            threads = request.threads or default_threads()
            there = build(folder, minutes=request.minutes, threads=threads, again=request.again)
    return DemoReport(there.folder, there.files, there.trained)
