"""Our figures beside those of `llama-bench` on the same file, threads and depth, run in turn."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from talking import write_talking

from sizeup.engines.launch import Launch
from sizeup.engines.llamacpp.server import LlamaCpp
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.measure.bench.cells import Cell
from sizeup.measure.bench.client import Client

pytestmark = [pytest.mark.llamacpp, pytest.mark.slow]
PROGRAM = os.environ.get("SIZEUP_LLAMA_BENCH") or shutil.which("llama-bench")
MODEL, VOCABULARY = "layers=16,embedding=1536,heads=12,vocabulary=64000,context=4096", 64000
CELL = Cell(prompt=512, generate=32)
ROUNDS, WITHIN = 7, 0.05


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """A file large enough that a token costs tens of milliseconds, as with models that people use."""
    return write_talking(tmp_path_factory.mktemp("models") / "ordinary.gguf", MODEL)


def llama_bench(file, prompt, generate, depth):
    """Tokens per second of one run."""
    sizes = {"-p": prompt, "-n": generate, "-d": depth, "-t": 1, "-r": 1}
    arguments = [str(part) for pair in sizes.items() for part in pair]
    done = subprocess.run([PROGRAM, "-m", str(file), *arguments, "-o", "json"], capture_output=True, check=True)
    return json.loads(done.stdout)[0]["avg_ts"]


@pytest.mark.timeout(600)
@pytest.mark.skipif(not PROGRAM, reason="no llama-bench: put it on the path, or set SIZEUP_LLAMA_BENCH")
@pytest.mark.parametrize("way", ["llama-server", "llama-cpp-python"])
def test_our_figures_agree_with_llama_bench(llamacpp, ordinary, monkeypatch, way):
    """The fastest of several turns: whatever else the machine does only ever slows a run.

    What llama-bench generates begins at a depth, ours behind a prompt of that length.
    """
    beside = Path(PROGRAM).parent
    if way == "llama-server" and not shutil.which(way, path=beside):
        pytest.skip("no llama-server beside llama-bench")
    monkeypatch.setenv("PATH", f"{beside}:/usr/bin:/bin" if way == "llama-server" else "/usr/bin:/bin")
    read, written = [], []
    with LlamaCpp().launch(Launch(str(ordinary), LlamaSetting(context=1024), python=llamacpp, threads=1)) as server:
        assert server.how == way
        client = Client(LlamaCpp(), server.endpoint, VOCABULARY)
        client.run(Cell(prompt=32, generate=8), seed=0)
        for turn in range(ROUNDS):
            reply = client.run(CELL, seed=1 + turn).replies[0]
            read.append((reply.prefill, llama_bench(ordinary, CELL.prompt, 0, 0)))
            written.append((reply.decode, llama_bench(ordinary, 0, CELL.generate, CELL.prompt)))
    for pairs in (read, written):
        ours, theirs = (max(figures) for figures in zip(*pairs, strict=True))
        assert ours == pytest.approx(theirs, rel=WITHIN), pairs
