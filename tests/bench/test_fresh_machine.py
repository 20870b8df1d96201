"""A machine without any engine: sizeup is installed, it installs llama.cpp, and a bench ends in its table.

It takes the minutes that compiling takes, and pip's index: only run when asked for.
"""

import os
import subprocess
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.llamacpp, pytest.mark.slow, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parents[2]
MODEL = "layers=4,embedding=256,heads=4,vocabulary=512,context=2048"


@pytest.mark.skipif(not os.environ.get("SIZEUP_FRESH"), reason="set SIZEUP_FRESH=1: it installs packages")
def test_from_nothing_to_predicted_beside_measured(tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python, program = tmp_path / "venv/bin/python", str(tmp_path / "venv/bin/sizeup")
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(ROOT)], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SIZEUP_", "PYTHON"))}
    fresh = kept | {"SIZEUP_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}

    def ask(*arguments):
        return subprocess.run([program, *arguments], capture_output=True, text=True, env=fresh, check=False)

    bare = ask("bench", MODEL, "--offline")
    assert bare.returncode != 0
    assert "sizeup engine install llama.cpp" in bare.stderr

    installed = ask("engine", "install", "llama.cpp")
    assert installed.returncode == 0, installed.stderr

    measured = ask("bench", MODEL, "--prompt", "64", "--generate", "16", "--offline")
    assert measured.returncode == 0, measured.stderr
    assert "predicted" in measured.stdout
    assert "64 + 16" in measured.stdout
    assert "kept in the ledger" in measured.stdout
