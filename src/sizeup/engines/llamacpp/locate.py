"""Where llama-cpp-python is: the Python that runs the llama.cpp workers."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from sizeup.errors import MissingPart

#: Names the Python of an environment with llama-cpp-python.
VARIABLE = "SIZEUP_LLAMACPP_PYTHON"


def worker_python() -> str:
    """The Python that has llama-cpp-python: the one that SIZEUP_LLAMACPP_PYTHON names, else this one.

    Raises MissingPart when neither has it.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise MissingPart(f"{VARIABLE} names {named!r}, which isn't there", hint=f"correct or unset {VARIABLE}")
        return named
    if find_spec("llama_cpp"):
        return sys.executable
    raise MissingPart(
        "llama-cpp-python is not installed here",
        hint=f"pip install llama-cpp-python, or set {VARIABLE} to the Python of an environment that has it",
    )
