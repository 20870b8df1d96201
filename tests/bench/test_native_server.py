"""A real `llama-server` on the path, the road that most people have: run, chat, bench, watch, tune, a missing model."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sizeup.engines.http import get_json, get_text
from sizeup.engines.launch import Launch
from sizeup.engines.llamacpp.server import LlamaCpp
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.protocol import Ask
from sizeup.engines.registry import attach
from sizeup.errors import NetworkError, SizeupError
from sizeup.measure.watch.servers import Servers
from sizeup.operations.bench import BenchRequest, bench
from sizeup.operations.chat import ChatRequest, chat
from sizeup.operations.engine_list import EngineListRequest, engine_list
from sizeup.operations.run import RunRequest, run

pytestmark = pytest.mark.llamacpp
FOLDER = os.environ.get("SIZEUP_LLAMA_SERVER", "")
PROGRAM = shutil.which("llama-server", path=str(Path(FOLDER).parent) if FOLDER else None)


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch):
    if not PROGRAM:
        pytest.skip("no llama-server: put it on the path, or set SIZEUP_LLAMA_SERVER to the program")
    monkeypatch.setenv("PATH", f"{Path(PROGRAM).parent}:/usr/bin:/bin")


def test_it_is_listed_with_its_version():
    (found,) = [each for each in engine_list(EngineListRequest()).found if each.how == "llama-server on the path"]
    assert found.path == PROGRAM
    assert found.version


def test_run_serves_and_leaves_nothing_behind(home, tiny):
    with run(RunRequest(model=str(tiny), context=512, users=2, threads=1, offline=True)) as report:
        assert report.how == "llama-server"
        assert report.version
        assert len(get_json(report.url, "/slots")) == 2
        assert "llamacpp:tokens_predicted_total" in get_text(report.url, "/metrics")
        kind, endpoint = attach(report.url)
        assert (kind.name, endpoint.model) == ("llama.cpp", "tiny.gguf")
    assert not psutil.pid_exists(report.pid)


def test_chat_has_a_template_and_ends_its_server(home, tiny):
    report = chat(ChatRequest(model=str(tiny), prompt="hello", tokens=6, temperature=0.0, context=512, threads=1))
    with pytest.raises(NetworkError):
        get_json(report.url, "/health")


def test_bench_reads_its_clock_and_fills_its_cache(home, tiny):
    report = bench(
        BenchRequest(model=str(tiny), prompt="64", depth="0,256", generate=32, repetitions=3, concurrency="1,2",
                     threads=1, offline=True)
    )  # fmt: skip
    assert report.how == "llama-server"
    assert [result.prompt for result in report.results] == [64, 64, 64]
    assert all(result.generated == 32 and result.engine_decode for result in report.results)
    assert all(result.usage.resident > 10_000_000 for result in report.results)
    assert all(result.predicted.decode is not None for result in report.results)


def test_watch_counts_tokens_before_a_request_ends(tiny):
    """llama-server counts them when it ends; until then they are in its slots."""
    engine = LlamaCpp()
    with engine.launch(Launch(str(tiny), LlamaSetting(context=4096), threads=1)) as server:
        servers = Servers([server.endpoint.url], search=False)
        servers.now()
        stream = engine.stream(server.endpoint, [Ask((1, 2, 3), tokens=4000, exact=True)])
        for _ in range(50):
            next(stream)
        (load,) = servers.now()
        stream.close()
    assert (load.running, load.slots) == (1, 1)
    assert load.tokens_per_s > 0
    assert 0 < load.cache_used < 1


def test_a_server_that_is_killed_in_the_middle(home, tiny):
    engine = LlamaCpp()
    with engine.launch(Launch(str(tiny), LlamaSetting(context=4096), threads=1)) as server:
        stream = engine.stream(server.endpoint, [Ask((1, 2, 3), tokens=4000, exact=True)])
        next(stream)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(NetworkError, match=r"lost http://127.0.0.1:\d+ after \d+ tokens"):
            list(stream)
        assert server.wait(5) is not None


def test_a_damaged_file_is_a_clear_error(tiny, tmp_path):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(tiny.read_bytes()[:40_000])
    with pytest.raises(SizeupError, match="llama-server ended with status 1 before it was ready"):
        LlamaCpp().launch(Launch(str(damaged), LlamaSetting(context=512)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_command_line_leaves_nothing_behind(home, tiny, number):
    command = [sys.executable, "-m", "sizeup", "run", str(tiny), "--context", "512", "--threads", "1", "--offline"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            said = next(line for line in process.stdout if "http://" in line)
            (child,) = [c for c in psutil.Process(process.pid).children(recursive=True) if c.name() == "llama-server"]
            assert "ready" in said
            process.send_signal(number)
            process.wait(20)
        finally:
            process.kill()
    end = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
