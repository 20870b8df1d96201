"""Install an engine into an environment of its own, in sizeup's data folder; nothing else on the machine changes.

llama.cpp comes as the package llama-cpp-python, which is compiled here: that takes some minutes and needs a C++
compiler and cmake. transformers comes with torch. Ollama, vLLM, LM Studio and MLX have installers of their own.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sizeup.engines.signals import interruptible
from sizeup.measure.simulation import ENVIRONMENT
from sizeup.operations.serving import TRANSFORMERS
from sizeup.progress import tell
from sizeup.workers.host import create_environment

#: Engine → its environment, its package in the version that was checked, and what it needs besides.
PACKAGES = {
    "llama.cpp": (ENVIRONMENT, "llama-cpp-python", "0.3.36", ()),
    TRANSFORMERS: (TRANSFORMERS, "transformers", "5.23.0", ("torch", "safetensors", "tokenizers", "jinja2")),
}
_TICK_SECONDS = 1.0


class EngineInstallRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which engine, in which version."""

    engine: Annotated[
        Literal["llama.cpp", "transformers"], Meta(description="The engine: llama.cpp or transformers.")
    ] = "llama.cpp"
    version: Annotated[
        str, Meta(description="Of llama-cpp-python or transformers; `latest` for the newest; default: the checked one.")
    ] = ""


class EngineInstallReport(msgspec.Struct, frozen=True):
    """What was installed. python: of its environment."""

    engine: str
    package: str
    python: str
    seconds: float
    schema: str = "sizeup.engine_install/1"


def engine_install(request: EngineInstallRequest) -> EngineInstallReport:
    """Make the environment and install the engine into it."""
    environment, name, checked, others = PACKAGES[request.engine]
    package = name if request.version == "latest" else f"{name}=={request.version or checked}"
    since = time.monotonic()
    compiled = ", which is compiled here" if request.engine == "llama.cpp" else " and torch"
    with interruptible(), _ticking(f"installing {package}{compiled}"):
        python = create_environment(environment, [package, *others])
    return EngineInstallReport(request.engine, package, python, time.monotonic() - since)


@contextlib.contextmanager
def _ticking(what: str) -> Iterator[None]:
    """Tell that it goes on, every second: pip doesn't say how far it is."""
    stop = threading.Event()
    since = time.monotonic()

    def tick() -> None:
        while not stop.wait(_TICK_SECONDS):
            tell(f"{what} ({time.monotonic() - since:.0f} s)")

    tell(what)
    thread = threading.Thread(target=contextvars.copy_context().run, args=(tick,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
