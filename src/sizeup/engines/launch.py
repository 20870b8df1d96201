"""Servers that sizeup starts: on a free port of this machine, watched until they are ready, ended with their own.

The server hangs on a leash (`leash.py`): when this process ends, however it ends, the server does too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

import msgspec

from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.protocol import Endpoint
from sizeup.errors import MissingPart, SizeupError
from sizeup.progress import tell

LOCAL = "127.0.0.1"
READY_SECONDS = 900.0
GRACE_SECONDS = 12.0
_POLL_SECONDS = 0.05
_LOG_BYTES = 4000
_LEASH = Path(__file__).with_name("leash.py")
_running: list[Server] = []


class Launch(msgspec.Struct, frozen=True):
    """What to start. model: a file's path, or the name that the engine knows.

    setting: what llama.cpp is told. python: of the environment that holds the engine, where it is a Python package.
    tokens_only: it will be given token ids, not text. port: 0, any free one.
    """

    model: str
    setting: LlamaSetting = LlamaSetting()
    python: str = ""
    host: str = LOCAL
    port: int = 0
    threads: int | None = None
    tokens_only: bool = False
    ready_seconds: float = READY_SECONDS


class Server:
    """A server that was started here."""

    def __init__(self, endpoint: Endpoint, process: subprocess.Popen[bytes], log: IO[bytes], how: str) -> None:
        self.endpoint, self.how = endpoint, how
        self._process, self._log = process, log
        self.pid = _told_pid(process)
        _running.append(self)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def last_words(self, size: int = _LOG_BYTES) -> str:
        """The end of what it has printed."""
        with contextlib.suppress(OSError, ValueError):
            end = os.fstat(self._log.fileno()).st_size
            return os.pread(self._log.fileno(), size, max(0, end - size)).decode(errors="replace").strip()
        return ""

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait until it ends: its status, or None when it still runs after so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End it, politely first; twice does no harm."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
        with contextlib.suppress(ValueError):
            _running.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    command: Sequence[str],
    endpoint: Endpoint,
    healthy: Callable[[], bool],
    *,
    how: str,
    environment: Mapping[str, str] | None = None,
    seconds: float = READY_SECONDS,
) -> Server:
    """Start a server and wait until it is healthy.

    Raises MissingPart when the program isn't there, and SizeupError with its last words when it ends or takes longer
    than `seconds`; nothing of it is left then.
    """
    log = tempfile.TemporaryFile(prefix="sizeup-server-")  # noqa: SIM115  the server owns it
    process = subprocess.Popen(
        [sys.executable, str(_LEASH), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    server = Server(endpoint, process, log, how)
    try:
        _wait_until(healthy, server, command[0], seconds)
    except BaseException:
        server.stop()
        raise
    return server


def free_port(host: str = LOCAL) -> int:
    """A port that nothing listens at now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def local_url(host: str, port: int) -> str:
    """The address to reach a server by that listens at this host: wildcards are reached by loopback."""
    reached = {"0.0.0.0": LOCAL, "::": "::1"}.get(host, host)  # noqa: S104  what a user may have asked for
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _wait_until(healthy: Callable[[], bool], server: Server, program: str, seconds: float) -> None:
    since = time.monotonic()
    while not healthy():
        waited = time.monotonic() - since
        if (status := server.wait(_POLL_SECONDS)) is not None:
            raise _ended(server, program, status)
        if waited > seconds:
            raise SizeupError(
                f"{server.how} wasn't ready after {seconds:g} s: {_last_line(server)}",
                hint="give it more time, or a smaller model",
            )
        tell("loading the model", waited)


def _ended(server: Server, program: str, status: int) -> SizeupError:
    if status == 127:
        return MissingPart(_last_line(server) or f"cannot start {program}", hint="run sizeup engine install llama.cpp")
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    hint = "it may have run out of memory" if status in {-signal.SIGKILL, 137} else "look at its last words"
    return SizeupError(f"{server.how} {how} before it was ready: {_last_line(server)}", hint=hint)


def _last_line(server: Server) -> str:
    """The last line that says something, an error before anything else."""
    lines = [line.strip() for line in server.last_words().splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
    return (errors or lines or ["it said nothing"])[-1][:300]


def _told_pid(process: subprocess.Popen[bytes]) -> int:
    """The server's own process id, as the leash says it; the leash's when it says none."""
    line: Any = process.stdout.readline() if process.stdout is not None else b""
    return int(line) if line.strip().isdigit() else process.pid


@atexit.register
def _stop_all() -> None:
    for server in _running:
        server.stop()
