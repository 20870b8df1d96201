"""Workers are started, heard and ended; whatever goes wrong is a clear error, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from sizeup.errors import BadConfig, MissingPart, NotFound, SizeupError
from sizeup.workers import host

SOURCE = Path(__file__).parents[2] / "src"
HEAD = f"import sys, os, time, signal\nsys.path.insert(0, {str(SOURCE)!r})\nfrom sizeup.workers.protocol import *\n"


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Write a worker whose work is the given body, and run it."""
    monkeypatch.setattr(host, "WORKERS", tmp_path)

    def run(body, job=None, raw="", **options):
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        text = raw or f"{HEAD}def work(job, say):\n{lines}\nsys.exit(answer(work, heartbeat=0.05))\n"
        (tmp_path / "it.py").write_text(text)
        return host.run_worker("it.py", job or {}, python=sys.executable, **({"timeout": 20.0} | options))

    return run


def test_a_job_comes_back_as_results(worker):
    heard = []
    results = worker(
        'say("progress", done=1, all=2, what="x")\nsay("result", twice=2 * job["number"])',
        {"number": 21},
        on_event=heard.append,
    )

    assert [event["twice"] for event in results] == [42]
    assert [event["event"] for event in heard if event["event"] != "heartbeat"] == ["progress", "result", "done"]


def test_a_large_job_and_a_large_answer_pass(worker):
    (result,) = worker('say("result", text=job["text"])', {"text": "x" * 3_000_000})

    assert len(result["text"]) == 3_000_000


def test_heartbeats_keep_a_silent_worker_alive(worker):
    heard = []
    worker("time.sleep(0.5)", silence=0.4, on_event=heard.append)

    assert sum(event["event"] == "heartbeat" for event in heard) >= 2


def test_what_a_library_prints_is_not_an_event(worker):
    (result,) = worker('print("chatter"); os.system("echo more"); say("result", fine=True)')

    assert result["fine"]


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        ("import no_such_package", MissingPart, "no_such_package"),
        ('raise Refused("unknown", "no such class")', NotFound, "no such class"),
        ('raise Refused("config", "bad field")', BadConfig, "bad field"),
        ('raise ValueError("broken")', SizeupError, "ValueError: broken"),
        ("os._exit(3)", SizeupError, "ended with status 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", SizeupError, "killed by signal 9"),
        ("raise KeyboardInterrupt", SizeupError, "cancelled"),
    ],
)
def test_failures_become_errors(worker, body, error, says):
    with pytest.raises(error, match=says):
        worker(body)


def test_the_last_words_of_a_dying_worker_are_kept(worker):
    with pytest.raises(SizeupError, match="the disk is on fire"):
        worker("", raw='import sys; sys.exit("the disk is on fire")')


def test_noise_instead_of_events_is_refused(worker):
    with pytest.raises(SizeupError, match="not an event"):
        worker("", raw='print("hello")')


def test_a_worker_that_ends_without_an_answer_is_an_error(worker):
    with pytest.raises(SizeupError, match="without an answer"):
        worker("", raw="import sys; sys.exit(0)")


def test_a_worker_that_takes_too_long_is_ended(worker):
    started = time.monotonic()
    with pytest.raises(SizeupError, match=r"took longer than 0\.5 s"):
        worker("time.sleep(60)", timeout=0.5)

    assert time.monotonic() - started < 10


def test_a_worker_that_falls_silent_is_ended(worker):
    with pytest.raises(SizeupError, match=r"said nothing for 0\.5 s"):
        worker("", raw="import time; time.sleep(60)", silence=0.5)


def test_children_of_a_worker_end_with_it(worker, tmp_path):
    """The whole process group goes, not the worker alone."""
    note = tmp_path / "child"
    body = f'import subprocess\nchild = subprocess.Popen(["sleep", "60"])\nopen({str(note)!r}, "w").write(str(child.pid))\n'
    with pytest.raises(SizeupError, match="took longer"):
        worker(f"{body}time.sleep(60)", timeout=2.0)
    child = int(note.read_text())

    assert _gone(child)


def _gone(pid: int) -> bool:
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    return False


def test_a_worker_that_ignores_sigterm_is_killed(worker):
    with pytest.raises(SizeupError, match="took longer"):
        worker("signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)", timeout=1.0)


def test_closing_the_events_ends_the_worker(worker, tmp_path):
    note = tmp_path / "pid"
    body = f'open({str(note)!r}, "w").write(str(os.getpid()))\nsay("result", a=1)\ntime.sleep(60)'
    with pytest.raises(ZeroDivisionError):
        worker(body, on_event=lambda _: 1 // 0)

    assert _gone(int(note.read_text()))


def test_no_such_worker():
    with pytest.raises(SizeupError, match=r"no worker nothing\.py"):
        host.run_worker("nothing.py", {}, python=sys.executable)


def test_a_python_that_is_not_there_is_missing(worker, monkeypatch):
    (host.WORKERS / "it.py").write_text("")
    with pytest.raises(MissingPart, match="cannot start"):
        host.run_worker("it.py", {}, python="/no/such/python")


def test_the_variable_names_the_python(monkeypatch):
    monkeypatch.setenv(host.VARIABLE, sys.executable)

    assert host.find_python(["no_such_package"]) == sys.executable


def test_a_wrong_variable_is_said(monkeypatch):
    monkeypatch.setenv(host.VARIABLE, "/no/such/python")
    with pytest.raises(MissingPart, match="isn't there"):
        host.find_python([])


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.delenv(host.VARIABLE, raising=False)
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    with pytest.raises(MissingPart, match="no_such_package") as caught:
        host.find_python(["no_such_package"], "some")

    assert host.VARIABLE in caught.value.hint
    assert host.find_python(["msgspec"]) == sys.executable


def test_an_environment_is_made_on_request(monkeypatch, tmp_path):
    """Without packages here: nothing is downloaded."""
    monkeypatch.delenv(host.VARIABLE, raising=False)
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    python = host.create_environment("bare", [])

    assert Path(python).is_file()
    assert host.find_python(["no_such_package"], "bare") == python


def test_half_an_environment_is_removed(monkeypatch, tmp_path):
    monkeypatch.setenv("SIZEUP_HOME", str(tmp_path))
    monkeypatch.setattr("venv.create", lambda folder, **_: Path(folder).mkdir(parents=True))
    with pytest.raises(OSError):  # its Python is missing, so pip can't be started
        host.create_environment("half", ["anything"])

    assert not (tmp_path / "workers" / "half").exists()
