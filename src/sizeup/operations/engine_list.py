"""The engines that are on this machine: their programs, sizeup's own environments, and servers that are listening."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import msgspec

from sizeup.engines.protocol import Found
from sizeup.engines.registry import ENGINES
from sizeup.errors import MissingPart
from sizeup.measure.simulation import worker_python
from sizeup.operations.serving import TRANSFORMERS, transformers_python
from sizeup.progress import tell

_VERSION_SECONDS = 30
_ASK_VERSION = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"


class EngineListRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing to choose."""


class EngineListReport(msgspec.Struct, frozen=True):
    """What was found, and the engines that weren't."""

    found: tuple[Found, ...]
    missing: tuple[str, ...]
    schema: str = "sizeup.engine_list/1"


def engine_list(request: EngineListRequest) -> EngineListReport:  # noqa: ARG001  an operation's signature
    """Look for every engine."""
    found = [*_environment("llama.cpp", "llama-cpp-python", worker_python)]
    found += _environment(TRANSFORMERS, TRANSFORMERS, transformers_python)
    for number, engine in enumerate(ENGINES.values()):
        tell(f"looking for {engine.name}", number, len(ENGINES))
        found += engine.detect()
    names = {each.engine for each in found}
    return EngineListReport(tuple(found), tuple(name for name in ENGINES if name not in names and name != "openai"))


def _environment(engine: str, package: str, find: Callable[[], str]) -> tuple[Found, ...]:
    """An engine that is a package, where sizeup would start it."""
    try:
        python = find()
        done = subprocess.run(
            [python, "-c", _ASK_VERSION, package], capture_output=True, text=True, check=True, timeout=_VERSION_SECONDS
        )
    except (MissingPart, OSError, subprocess.SubprocessError):
        return ()
    return (Found(engine, package, done.stdout.strip(), python),)
