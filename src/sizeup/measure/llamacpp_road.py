"""Which llama.cpp is asked when something is simulated: a setting, its Python package, or one on the path."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sizeup.errors import MissingPart
from sizeup.progress import tell
from sizeup.workers.host import find_python

#: Names the Python of an environment with llama-cpp-python, before SIZEUP_WORKER_PYTHON.
PYTHON_VARIABLE = "SIZEUP_LLAMACPP_PYTHON"
#: Names a libllama, or a folder or program of llama.cpp beside which there is one.
LIBRARY_VARIABLE = "SIZEUP_LLAMACPP_LIBRARY"
ENVIRONMENT = "llamacpp"
PROGRAMS = ("llama-server", "llama-cli", "llama-bench")
_NAMES = ("libllama.so", "libllama.dylib", "llama.dll", "libllama.so.0")
_BESIDE = (".", "../lib", "../lib64", "lib")


class Road(msgspec.Struct, frozen=True):
    """A Python to run the worker with, and the libllama it opens; without one it has llama-cpp-python.

    version: of the library, as its program says. steps: what was looked for, in order, and what was there.
    """

    python: str
    library: str = ""
    version: str = ""
    steps: tuple[str, ...] = ()


def find_road() -> Road:
    """An explicit setting, then the package, then a llama.cpp on the path; every step is told.

    Raises MissingPart for a setting that names nothing, and when there is no llama.cpp at all.
    """
    steps: list[str] = []
    for variable in (PYTHON_VARIABLE, LIBRARY_VARIABLE):
        if named := os.environ.get(variable):
            _note(steps, f"{variable} names {named}")
            return _named_python(named, steps) if variable == PYTHON_VARIABLE else _named_library(named, steps)
    try:
        python = find_python(("llama_cpp",), ENVIRONMENT)
    except MissingPart as missing:
        _note(steps, f"llama-cpp-python: {missing.message}")
        missing_package = missing
    else:
        _note(steps, f"llama-cpp-python: with {python}")
        return Road(python, steps=tuple(steps))
    for program in PROGRAMS:
        if found := shutil.which(program):
            library = next(_libraries(Path(found)), None)
            _note(steps, f"{program} on the path: {library or 'no libllama beside it, built as one file'}")
            if library is not None:
                return Road(sys.executable, str(library), _version(found), tuple(steps))
    _note(steps, f"none of {', '.join(PROGRAMS)} with a libllama on the path")
    raise MissingPart(
        f"no llama.cpp to ask: {'; '.join(steps)}",
        hint=f"run sizeup engine install llama.cpp, or set {LIBRARY_VARIABLE}",
    ) from missing_package


def worker_python() -> str:
    """The Python that has llama-cpp-python. Raises MissingPart when there is none."""
    named = os.environ.get(PYTHON_VARIABLE)
    return _named_python(named, []).python if named else find_python(("llama_cpp",), ENVIRONMENT)


def _note(steps: list[str], text: str) -> None:
    steps.append(text)
    tell(f"looking for llama.cpp: {text}")


def _named_python(named: str, steps: list[str]) -> Road:
    if not Path(named).is_file():
        raise MissingPart(
            f"{PYTHON_VARIABLE} names {named!r}, which isn't there", hint=f"correct or unset {PYTHON_VARIABLE}"
        )
    return Road(named, steps=tuple(steps))


def _named_library(named: str, steps: list[str]) -> Road:
    path = Path(named)
    library = path if path.is_file() and path.name.startswith(_NAMES) else next(_libraries(path), None)
    if library is None:
        raise MissingPart(
            f"{LIBRARY_VARIABLE} names {named!r}, where there is no libllama",
            hint=f"correct or unset {LIBRARY_VARIABLE}",
        )
    program = next((p for p in PROGRAMS if (library.parent / p).is_file()), None)
    version = _version(str(library.parent / program)) if program else ""
    return Road(sys.executable, str(library.resolve()), version, tuple(steps))


def _libraries(place: Path) -> Iterator[Path]:
    """The libllamas of a folder, or beside a program (where it really lies, not where a link to it does)."""
    folder = place.resolve() if place.is_dir() else place.resolve().parent
    for beside in _BESIDE:
        for name in _NAMES:
            if (found := folder / beside / name).is_file():
                yield found.resolve()


def _version(program: str) -> str:
    from sizeup.engines.llamacpp.server import program_version

    return program_version(program)
