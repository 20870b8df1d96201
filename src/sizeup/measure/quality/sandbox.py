"""Runs code that nobody has read: in bubblewrap, else in a container, else not at all.

Inside there is a Python, its standard library and an empty folder of 32 MiB; no network, no home, no other process.
Every process has limits on memory, CPU time, files and children; a watcher outside adds up what they all hold, and
ends the whole group when that or the time is too much. Whoever kills the caller kills the sandbox with it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

from sizeup.errors import MissingPart

_CHILD = Path(__file__).with_name("sandbox_child.py")
_POLL_SECONDS = 0.03
_KEPT_BYTES = 4000
_GRACE_SECONDS = 3.0


class Limits(msgspec.Struct, frozen=True):
    """What a solution may take. seconds: of wall time. memory: bytes of one process; total: of all together.

    cpu: seconds of one process. file: bytes of one file. scratch: bytes of the folder.
    """

    seconds: float = 10.0
    cpu: int = 5
    memory: int = 1 << 30
    total: int = 3 << 29
    processes: int = 32
    file: int = 8 << 20
    scratch: int = 32 << 20


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended. status: passed, failed, `out of time`, `out of memory`. detail: a failed one's last line."""

    status: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every test held."""
        return self.status == "passed"


class Sandbox(Protocol):
    """A way to run Python where it harms nothing. name: for the report."""

    name: str

    def command(self, python_arguments: Sequence[str], limits: Limits) -> tuple[list[str], dict[str, Any]]:
        """The command that runs Python with these arguments, and more arguments for `subprocess.Popen`."""

    def ended(self, command: Sequence[str]) -> None:
        """Clean up what the command may have left outside its own processes."""


def run(sandbox: Sandbox, solution: str, tests: str, limits: Limits | None = None) -> Outcome:
    """Run a solution and its hidden tests. It passes only if the tests ran to their end."""
    limits = limits or Limits()
    token = secrets.token_hex(16)
    job = {
        "limits": {name: getattr(limits, name) for name in ("memory", "cpu", "file", "processes")},
        "solution": solution,
        "tests": tests,
        "token": token,
    }
    command, options = sandbox.command(["-I", "-S", "-B", "-c", _CHILD.read_text(encoding="utf-8")], limits)
    began = time.monotonic()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        process = _started(command, options, said, errors)
        try:
            _tell(process, msgspec.json.encode(job))
            stopped = _watched(process, limits, began)
        finally:
            _end(process)
            sandbox.ended(command)
        seconds = time.monotonic() - began
        if stopped:
            return Outcome(stopped, seconds=seconds)
        if process.returncode == 0 and _tail(said).rstrip().endswith(token):
            return Outcome("passed", seconds=seconds)
        return _failed(process.returncode, _tail(errors), seconds)


def works(sandbox: Sandbox) -> str:
    """Empty when a trivial program passes in it; else why it doesn't."""
    try:
        outcome = run(sandbox, "x = 1", "assert x == 1")
    except MissingPart as missing:
        return missing.message
    return "" if outcome.passed else outcome.detail or outcome.status


def _started(
    command: Sequence[str], options: dict[str, Any], said: IO[bytes], errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=said, stderr=errors, start_new_session=True, cwd="/", **options
        )
    except OSError as error:
        raise MissingPart(f"cannot start {command[0]}: {error.strerror}", hint="install bubblewrap") from error


def _tell(process: subprocess.Popen[bytes], job: bytes) -> None:
    """Hand the job over by a pipe: unlike a file it can't be read again from inside."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.write(job)
            process.stdin.close()


def _watched(process: subprocess.Popen[bytes], limits: Limits, began: float) -> str:
    """Wait for its end; why it has to be stopped, or empty when it ended by itself."""
    while True:
        try:
            process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if time.monotonic() - began > limits.seconds:
                return "out of time"
            if _held_bytes(process.pid) > limits.total:
                return "out of memory"
        else:
            return ""


def _below(pid: int) -> list[Any]:
    """All processes below this one."""
    import psutil

    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []


def _held_bytes(pid: int) -> int:
    """Resident bytes of all below a process."""
    import psutil

    held = 0
    for child in _below(pid):
        with contextlib.suppress(psutil.Error):
            held += child.memory_info().rss
    return held


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole group, and wait until the sandbox's own children are gone with it."""
    import psutil

    left = _below(process.pid) if process.poll() is None else []
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(left, _GRACE_SECONDS)


def _failed(code: int, said: str, seconds: float) -> Outcome:
    """Why a run failed. Of time and memory there is no detail: which of two limits comes first is chance."""
    lines = said.strip().splitlines()
    detail = lines[-1][:300] if lines else f"ended with status {code} before its tests did"
    if "MemoryError" in detail:
        return Outcome("out of memory", seconds=seconds)
    ended_by_cpu = code in {-signal.SIGXCPU, 128 + signal.SIGXCPU}
    killed = code in {-signal.SIGKILL, 128 + signal.SIGKILL}
    return Outcome("out of time", seconds=seconds) if ended_by_cpu or killed else Outcome("failed", detail, seconds)


def _tail(file: IO[bytes]) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), _KEPT_BYTES, max(0, size - _KEPT_BYTES)).decode(errors="replace")
