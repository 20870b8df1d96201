"""Reading a local file must not cost the import of an HTTP stack."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "http.client",
    "urllib.request",
    "ssl",
    "json",
    "numpy",
    "gguf",
    "safetensors",
    "concurrent.futures",
)


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_resolve_imports_nothing_heavy() -> None:
    assert modules_after("import sizeup.models.sources.resolve") & set(HEAVY) == set()


def test_the_test_above_can_fail() -> None:
    assert "http.client" in modules_after("import sizeup.models.sources.resolve, http.client")
