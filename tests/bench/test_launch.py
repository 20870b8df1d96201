"""Servers that sizeup starts, with a stand-in for llama-server: ready, refused, killed at either end, never left behind."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sizeup.engines.launch import Launch, local_url
from sizeup.engines.llamacpp.server import LlamaCpp
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.errors import AnswerIsNo, MissingPart, NotFound, SizeupError
from sizeup.measure.ledger import Ledger
from sizeup.operations.bench import BenchRequest, bench
from sizeup.operations.run import RunRequest, run

SMALL = LlamaSetting(context=512)


@contextlib.contextmanager
def running(*arguments, **options):
    """A process that is killed when the test fails, so that nobody waits for it."""
    with subprocess.Popen(*arguments, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


@pytest.fixture
def fake_path(tmp_path, monkeypatch):
    """A path with nothing but a stand-in `llama-server`."""
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    script = Path(__file__).with_name("fake_llama_server.py")
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(script))} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_LLAMA", "well")
    return program


def servers():
    """Stand-ins that run."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any("fake_llama_server.py" in part for part in process.info["cmdline"] or ())
    ]


def gone(seconds=10.0):
    """Whether all stand-ins end in time."""
    end = time.monotonic() + seconds
    while servers() and time.monotonic() < end:
        time.sleep(0.05)
    return servers() == []


def test_it_is_ready_and_then_gone(fake_path, tiny):
    with LlamaCpp().launch(Launch(str(tiny), SMALL)) as server:
        assert server.alive
        assert server.how == "llama-server"
        assert server.endpoint.version == "b9 fake"
        assert server.pid in servers()
    assert servers() == []


def test_one_that_dies_says_its_last_words(fake_path, tiny, monkeypatch):
    monkeypatch.setenv("FAKE_LLAMA", "dies")
    with pytest.raises(SizeupError, match="status 1 before it was ready: error: no memory for this model"):
        LlamaCpp().launch(Launch(str(tiny), SMALL))
    assert servers() == []


def test_one_that_is_never_ready_is_ended(fake_path, tiny, monkeypatch):
    monkeypatch.setenv("FAKE_LLAMA", "never")
    with pytest.raises(SizeupError, match="wasn't ready after 1 s"):
        LlamaCpp().launch(Launch(str(tiny), SMALL, ready_seconds=1))
    assert servers() == []


def test_without_an_engine(tmp_path, monkeypatch, tiny):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPart, match="no llama") as caught:
        LlamaCpp().launch(Launch(str(tiny), SMALL))
    assert caught.value.hint == "run sizeup engine install llama.cpp"


def test_wildcards_are_reached_by_loopback():
    assert local_url("0.0.0.0", 5) == "http://127.0.0.1:5"
    assert local_url("::", 5) == "http://[::1]:5"


def test_run_in_python_is_a_with_block(home, fake_path, tiny):
    with run(RunRequest(model=str(tiny), context=512, offline=True)) as report:
        assert report.url.startswith("http://127.0.0.1:")
        assert report.pid in servers()
    assert servers() == []


def test_run_refuses_what_doesnt_fit_unless_forced(home, fake_path):
    with pytest.raises(AnswerIsNo, match="does not fit") as caught:
        run(RunRequest(model="deepseek-v3", random=True, format="F16", context=512, offline=True))
    assert "--force" in caught.value.hint


def test_run_downloads_nothing(home, fake_path):
    with pytest.raises(NotFound, match="not on this machine"):
        run(RunRequest(model="Qwen/Qwen3-0.6B", context=512, offline=True))
    with pytest.raises(NotFound):
        run(RunRequest(model="no-such-file.gguf", offline=True))


def command(*arguments):
    return [sys.executable, "-m", "sizeup", *arguments]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_run_leaves_nothing_behind(home, fake_path, tiny, number):
    """However sizeup ends: Ctrl-C, SIGTERM, or killed without a chance to clean up."""
    with running(
        command("run", str(tiny), "--context", "512"), stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert "ready" in process.stdout.readline()
        assert len(servers()) == 1
        process.send_signal(number)
        process.wait(20)
    assert gone()
    # a signal may also come just before it begins to wait
    assert process.returncode in {signal.SIGINT: {0, 130}, signal.SIGTERM: {0, -15}, signal.SIGKILL: {-9}}[number]


def test_run_ends_when_its_server_does(home, fake_path, tiny):
    with running(
        command("run", str(tiny), "--context", "512"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    ) as process:  # fmt: skip
        assert "ready" in process.stdout.readline()
        os.kill(servers()[0], signal.SIGKILL)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "the server ended" in said
    assert gone()


def test_the_leash_itself_may_be_killed(home, fake_path, tiny):
    """Its server is in its group, which sizeup ends."""
    with LlamaCpp().launch(Launch(str(tiny), SMALL)) as server:
        os.kill(server._process.pid, signal.SIGKILL)
        server.wait(5)
    assert gone()


QUICK = {"prompt": "8,16", "generate": 4, "repetitions": 2, "offline": True}


def test_bench_starts_measures_predicts_and_ends(home, fake_path, tiny):
    report = bench(BenchRequest(model=str(tiny), **QUICK))

    assert (report.weights, report.how, report.version) == ("file", "llama-server", "b9 fake")
    assert len(report.results) == 2
    first = report.results[0]
    assert first.predicted.decode is not None
    assert 0 < first.share_of_ceiling < 1
    assert first.usage.resident > 1_000_000
    assert servers() == []
    with Ledger() as ledger:
        rows = ledger.rows()
    assert {row.unit for row in rows} == {"tokens/s", "seconds", "bytes"}
    assert all(row.shape and row.setting["context"] == 256 for row in rows)


def test_bench_of_a_server_that_falls_keeps_what_was_finished(home, fake_path, tiny, monkeypatch):
    monkeypatch.setenv("FAKE_LLAMA", "falls")
    with pytest.raises(SizeupError, match="the server ended in the middle with the words 'error: the fake fell'"):
        bench(BenchRequest(model=str(tiny), **{**QUICK, "repetitions": 1}))
    with Ledger() as ledger:
        assert {row.workload["prompt"] for row in ledger.rows()} == {8}
    assert servers() == []


def test_a_killed_bench_leaves_no_server_and_a_whole_ledger(home, fake_path, tiny, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "0.02")
    with running(command("bench", str(tiny), "--generate", "8", "--repetitions", "2"), env=os.environ,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # fmt: skip
        end = time.monotonic() + 30
        while time.monotonic() < end:
            time.sleep(0.1)
            if (home / "ledger.db").exists():
                break
        process.kill()
    assert gone()
    with Ledger() as ledger:
        assert len(ledger.rows()) in {0, 3, 6}


def test_bench_refuses_what_doesnt_fit(home, fake_path):
    done = subprocess.run(
        command("bench", "deepseek-v3", "--offline"), capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 3
    assert "does not fit" in done.stderr
    assert "hint:" in done.stderr


def test_other_engines_are_given_the_models_own_name(home, tmp_path, monkeypatch):
    """`ollama serve` and `vllm serve` take no GGUF file; what isn't installed says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for engine in ("ollama", "vllm", "mlx"):
        with pytest.raises(MissingPart, match="not installed here"):
            run(RunRequest(model="Qwen/Qwen3-0.6B", engine=engine, context=512, offline=True))


def test_a_disk_too_small_for_random_weights_is_a_clear_error(home, fake_path, tmp_path):
    """No file may grow past a megabyte, as on a full disk; what was begun is removed."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    done = subprocess.run(
        ["prlimit", "--fsize=1000000", *command("bench", "layers=4,embedding=256,heads=4,vocabulary=32000", "--offline")],
        capture_output=True, text=True, env=os.environ | {"TMPDIR": str(folder)}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hint:" in done.stderr
    assert list(folder.iterdir()) == []
    assert servers() == []
