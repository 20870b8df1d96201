"""The house rules that a linter doesn't know: what start-up may import and cost, and how long a file may grow."""

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "sizeup"
FORBIDDEN_AT_START = {
    "torch", "transformers", "numpy", "rich", "pynvml", "psutil", "platformdirs", "gguf", "safetensors",
    "llama_cpp", "sqlite3", "asyncio", "http.client", "urllib.request", "dataclasses",
}  # fmt: skip


def modules_after(statement: str) -> set[str]:
    """The modules loaded in a fresh interpreter after a statement."""
    code = f"{statement}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def seconds(statement: str, runs: int = 7) -> float:
    """The least wall time of a fresh interpreter running a statement."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", statement], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)


def test_import_loads_nothing_heavy():
    """`import sizeup` loads neither heavy libraries nor its own packages."""
    loaded = modules_after("import sizeup")

    assert not loaded & FORBIDDEN_AT_START
    assert {m for m in loaded if m.startswith("sizeup.")} == set()


def test_command_line_loads_nothing_heavy():
    """The command line's frame needs click and msgspec, and nothing heavy."""
    loaded = modules_after("import sizeup.cli.main")

    assert not loaded & (FORBIDDEN_AT_START - {"dataclasses"})


def test_the_check_for_heavy_modules_can_fail():
    """A heavy module would be seen."""
    assert "sqlite3" in modules_after("import sqlite3")


def test_import_is_quick():
    """`import sizeup` takes at most 60 ms more than the bare interpreter."""
    assert seconds("import sizeup") - seconds("pass") <= 0.060


def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_stay_readable(path):
    """No file over 500 lines, no function over 60 (soft limits are 400 and 40)."""
    text = path.read_text()
    longest = [
        (node.end_lineno - node.lineno + 1, node.name)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    assert text.count("\n") <= 500
    assert [found for found in longest if found[0] > 60] == []


def test_nothing_unpickles():
    """Foreign files are hostile: no module imports pickle or its relatives."""
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            )
            if isinstance(node, ast.Import | ast.ImportFrom) and {"pickle", "shelve", "marshal", "dill"} & set(names):
                found.append(path)

    assert found == []


def test_core_does_not_print():
    """Only faces, workers and the entry point write to stdout."""
    allowed = {"cli", "workers", "web", "__main__.py"}
    found = [
        path
        for path in sources()
        if path.relative_to(SOURCE).parts[0] not in allowed
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]

    assert found == []


def test_test_files_have_names_of_their_own():
    """pytest imports test files by their base names."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py"]

    assert sorted({name for name in names if names.count(name) > 1}) == []
