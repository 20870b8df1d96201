"""What the sandbox stops: each hostile program is counted as failed, and nothing outside of it changes."""

import time
from pathlib import Path

import psutil
import pytest

from sizeup.errors import MissingPart
from sizeup.measure.quality import sandboxes
from sizeup.measure.quality.sandbox import Limits, run
from sizeup.measure.quality.sandboxes import Bare, Bubblewrap, Container, find_sandbox

QUICK = Limits(seconds=2.0, cpu=1, total=300 << 20)
FORK_BOMB = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
ALLOCATE = "held = []\nfor _ in range(50):\n    held.append(b'x' * (1 << 30))"
ALLOCATE_TOGETHER = (
    "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        held = b'x' * (100 << 20)\n        time.sleep(60)\n"
    "time.sleep(60)"
)
OPEN_A_SOCKET = "import socket\nsocket.create_connection(('127.0.0.1', PORT), 1)"
RESOLVE = "import socket\nsocket.getaddrinfo('localhost.example', 80)"
READ_HOME = "import os\nfor root in ('/root', '/home', '/Users'):\n    if os.path.exists(root):\n        print(os.listdir(root))\n        break\nelse:\n    raise OSError('no home')"
LOOP = "while True:\n    pass"
SLEEP = "import time\ntime.sleep(600)"
FILL_DISK = "for n in range(1000):\n    with open(f'/tmp/{n}', 'wb') as file:\n        file.write(b'x' * (4 << 20))"
WRITE_SYSTEM = "open('/usr/lib/x', 'wb')"
PRINT_FOR_EVER = "while True:\n    print('x' * 4096)"
LEAVE_EARLY = "import os\nos._exit(0)"
CLAIM = "import sys\nprint('passed')\nsys.exit(0)"
READ_THE_JOB = "import os\ndata = b''\nfor path in ('/proc/self/fd/0', '/proc/1/fd/0'):\n    data += open(path, 'rb').read()\nassert b'token' in data"
KILL_ALL = "import os\nos.kill(-1, 9)"
RAISE_LIMITS = "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))"
ESCAPE = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(300)\n    os._exit(0)\nos.wait()\nraise ValueError"

KILL_PARENT = "import os\nos.kill(os.getppid(), 9)\nos.kill(1, 9)\nraise RuntimeError('still here')"
WRITE_HARNESS = "import os\nopen(f'/proc/{os.getppid()}/mem', 'r+b').write(b'x')\nraise RuntimeError('written')"
REPLACE_PYTHON = "import sys\nopen(sys.executable, 'wb').write(b'')"
LINK_TO_HOME = "import os\nos.symlink('/root', '/tmp/link')\nprint(os.listdir('/tmp/link'))\nraise ValueError"
LINK_TO_SECRETS = "import os\nos.symlink('/etc/shadow', '/tmp/link')\nprint(open('/tmp/link').read())"
LINK_OVER_SYSTEM = "import os\nos.symlink('/tmp', '/usr/lib/python3')"
LINK_OUT = "import os\nos.symlink('../../../../../../../../home', '/tmp/up')\nopen('/tmp/up/written', 'w')"

HOSTILE = {name.lower(): value for name, value in globals().items() if name.isupper() and isinstance(value, str)}


@pytest.fixture(scope="module")
def sandbox():
    try:
        return find_sandbox()
    except MissingPart as missing:
        pytest.skip(str(missing))


@pytest.fixture
def unchanged():
    """Nothing of a run is left: neither processes nor files."""
    home = sorted(Path.home().iterdir())
    yield
    assert psutil.Process().children(recursive=True) == []
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if "nobody inside can raise them again" in str(p.info["cmdline"])
    ]
    assert sorted(Path.home().iterdir()) == home


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_solution_is_stopped_and_counted_as_failed(name, sandbox, unchanged, listening_port):
    began = time.monotonic()
    outcome = run(sandbox, HOSTILE[name].replace("PORT", str(listening_port)), "assert True", QUICK)

    assert outcome.status in {"failed", "out of time", "out of memory"}
    assert time.monotonic() - began < QUICK.seconds + 4


#: Programs that try to pass without solving anything: f(1) is not 2.
WRONG = "def f(x):\n    return x\n"
CHEATS = {
    "leaves in the middle": "import sys\ndef f(x):\n    sys.exit(0)",
    "leaves hard in the middle": "import os\ndef f(x):\n    os._exit(0)",
    "prints what is expected": WRONG + "print('2')\nprint('passed')\nprint('OK')",
    "prints a token": WRONG + "import secrets, os\nprint(secrets.token_hex(16), flush=True)\nos._exit(0)",
    "replaces exec": WRONG + "import builtins\nbuiltins.exec = lambda *_: None\nbuiltins.compile = lambda *_: ''",
    "replaces the grader": WRONG + "import __main__\n__main__.run = lambda *_: True\n__main__.limit = print",
    "replaces AssertionError": WRONG + "import builtins\nbuiltins.AssertionError = StopIteration",
    "replaces every exception": WRONG
    + "import builtins\nclass Quiet(BaseException):\n    pass\nbuiltins.BaseException = Quiet\nbuiltins.Exception = Quiet",
    "replaces unittest": WRONG
    + "import unittest\nunittest.TestCase.assertEqual = lambda *_: None\nunittest.main = lambda *_: None",
    "replaces traceback and exit": WRONG
    + "import sys, os, traceback\ntraceback.format_exc = lambda **_: ''\nsys.exit = os._exit = lambda *_: None",
    "leaves well at the end": WRONG + "import atexit, os\natexit.register(os._exit, 0)",
    "optimizes asserts away": WRONG + "import sys\nsys.flags = None\n__debug__ = False",
    "kills the grader's parent": WRONG + "import os\nos.kill(os.getppid(), 9)",
    "says nothing any more": WRONG + "import os\nos.close(1)\nos.close(2)",
}


@pytest.mark.parametrize("how", CHEATS)
def test_a_program_that_cheats_fails(how, sandbox, unchanged):
    assert run(sandbox, CHEATS[how], "assert f(1) == 2", QUICK).status == "failed"


def test_much_output_neither_fills_memory_nor_hides_the_end(sandbox):
    code = "def f(x):\n    print('x' * (1 << 20))\n    return x + 1"

    assert run(sandbox, code, "assert f(1) == 2", QUICK).passed
    assert not run(sandbox, code, "for n in range(20):\n    f(n)", QUICK).passed


@pytest.fixture
def listening_port():
    """A server outside that would answer."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_what_a_group_holds_together_counts(sandbox, unchanged):
    limits = Limits(seconds=20.0, cpu=10, total=300 << 20)

    assert run(sandbox, ALLOCATE_TOGETHER, "", limits).status == "out of memory"


def test_an_honest_solution_passes_and_says_nothing(sandbox):
    assert run(sandbox, "def f(x):\n    return x + 1", "assert f(1) == 2").status == "passed"


def test_a_failure_tells_its_last_line(sandbox):
    outcome = run(sandbox, "def f(x):\n    return x", "assert f(1) == 2, 'one too few'")

    assert (outcome.status, outcome.detail) == ("failed", "AssertionError: one too few")


def test_what_is_not_python_fails(sandbox):
    assert run(sandbox, "def f(x:\n", "").status == "failed"


def test_the_sandbox_shows_a_python_and_nothing_of_the_user(sandbox):
    if not isinstance(sandbox, Bubblewrap):
        pytest.skip("only bubblewrap's view is known")
    code = "import os\nfound = sorted(os.listdir('/'))\nnames = sorted(os.environ)\nuser = os.getuid()"
    tests = (
        "assert set(found) <= {'dev', 'etc', 'lib', 'lib32', 'lib64', 'proc', 'tmp', 'usr', 'opt', 'Library', 'root', 'home'}\n"
        "assert set(names) <= {'LANG', 'PATH', 'PWD', 'LC_CTYPE'}\nassert os.listdir('/tmp') == []\n"
        "assert len([p for p in os.listdir('/proc') if p.isdigit()]) <= 3"
    )

    assert run(sandbox, code, tests).detail == ""


def test_without_a_sandbox_nothing_runs(monkeypatch):
    monkeypatch.setattr(sandboxes, "_candidates", lambda: iter(()))
    find_sandbox.cache_clear()
    try:
        with pytest.raises(MissingPart, match="neither bwrap nor a container") as refused:
            find_sandbox()
    finally:
        find_sandbox.cache_clear()

    assert refused.value.exit_code == 6
    assert "bubblewrap" in refused.value.hint


def test_a_sandbox_that_does_not_work_is_passed_over_with_its_reason(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'no permission for name spaces' >&2\nexit 1\n")
    broken.chmod(0o755)
    tmp_path.chmod(0o755)
    for folder in (tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    monkeypatch.setattr(sandboxes, "_candidates", lambda: iter([Bubblewrap(str(broken), "/usr/bin/python3")]))
    find_sandbox.cache_clear()
    try:
        with pytest.raises(MissingPart, match="no permission for name spaces"):
            find_sandbox()
    finally:
        find_sandbox.cache_clear()


def test_a_container_has_no_network_and_is_removed(tmp_path):
    log = tmp_path / "log"
    engine = tmp_path / "podman"
    engine.write_text(f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" = rm ] || exec sleep 60\n')
    engine.chmod(0o755)

    outcome = run(Container(str(engine)), "x = 1", "", Limits(seconds=0.5))

    started, removed = log.read_text().splitlines()[0], log.read_text().splitlines()[-1]
    assert outcome.status == "out of time"
    for option in ("--network none", "--read-only", "--cap-drop ALL", "--pull never", "--pids-limit 32"):
        assert option in started
    assert removed.startswith("rm --force sizeup-")


def test_the_unsafe_way_still_has_limits():
    assert run(Bare(), "x = 1", "assert x == 1").passed
    assert run(Bare(), LOOP, "", QUICK).status == "out of time"
    assert not run(Bare(), ALLOCATE, "", QUICK).passed


@pytest.mark.parametrize("limits", [Limits(seconds=0.5, cpu=5), Limits(seconds=8.0, cpu=1)])
def test_a_loop_is_told_the_same_whichever_limit_ends_it(sandbox, limits):
    outcome = run(sandbox, LOOP, "", limits)

    assert (outcome.status, outcome.detail) == ("out of time", "")
