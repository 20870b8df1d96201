"""Starts workers, listens to them and leaves nothing of them behind.

A worker is a script of this package that runs in an environment of its own. The host finds that environment's Python,
hands the job over on standard input, passes the events on, and ends the whole process group when the job is done,
fails, is cancelled or takes too long.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sizeup.errors import BadConfig, BadFile, MissingPart, NotFound, SizeupError

#: Names the Python of an environment that has what workers need.
VARIABLE = "SIZEUP_WORKER_PYTHON"

WORKERS = Path(__file__).parent
GRACE_SECONDS = 3.0
SILENCE_SECONDS = 120.0
MAX_EVENT_BYTES = 256 * 2**20

#: Environment → what `sizeup engine install` calls it.
INSTALLED = {"llamacpp": "llama.cpp", "transformers": "transformers"}

Event = dict[str, Any]

_FAILURES: dict[str, type[SizeupError]] = {
    "missing": MissingPart,
    "unknown": NotFound,
    "config": BadConfig,
    "file": BadFile,
}


class WorkerDied(SizeupError):
    """A worker ended without a word: killed, or aborted by the library it drives."""


def find_python(packages: Sequence[str], environment: str = "") -> str:
    """The Python for a worker that needs these packages.

    SIZEUP_WORKER_PYTHON names it; else the environment of that name that `create_environment` made; else this Python,
    when it has the packages. Raises MissingPart when none does.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise MissingPart(f"{VARIABLE} names {named!r}, which isn't there", hint=f"correct or unset {VARIABLE}")
        return named
    made = _python_in(environments_folder() / environment) if environment else None
    if made is not None and made.is_file():
        return str(made)
    if all(find_spec(package) for package in packages):
        return sys.executable
    raise MissingPart(
        f"a worker needs {' and '.join(packages)}, which are not installed here",
        hint=_way_out(environment, packages),
    )


def _way_out(environment: str, packages: Sequence[str]) -> str:
    """How to get what is missing: the command that installs it, where there is one."""
    named = f"set {VARIABLE} to the Python of an environment with {' '.join(packages)}"
    engine = INSTALLED.get(environment)
    return f"run sizeup engine install {engine}, or {named}" if engine else named


def environments_folder() -> Path:
    """Where environments for workers are made: `workers` in the data folder (SIZEUP_HOME moves it)."""
    home = os.environ.get("SIZEUP_HOME")
    if home:
        return Path(home) / "workers"
    from platformdirs import user_data_path

    return user_data_path("sizeup") / "workers"


def create_environment(name: str, packages: Sequence[str]) -> str:
    """Make an environment and install packages into it; the Python of it. It replaces one of the same name.

    Raises SizeupError with pip's last words when that fails, and leaves no half of an environment behind.
    """
    import shutil
    import venv

    folder = environments_folder() / name
    try:
        venv.create(folder, with_pip=bool(packages), clear=True)
        python = str(_python_in(folder))
        if packages:
            command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SizeupError(
                    f"pip could not install {' '.join(packages)}: {done.stderr.strip()[-500:]}",
                    hint="check the network and the package index, then try again",
                )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return python


def run_worker(
    script: str,
    job: Mapping[str, Any],
    *,
    python: str,
    timeout: float = 600.0,
    silence: float = SILENCE_SECONDS,
    on_event: Callable[[Event], None] | None = None,
) -> list[Event]:
    """Run a worker to its end: its results.

    timeout: seconds for the whole job. silence: seconds without any event, heartbeats included. on_event: hears every
    event as it comes. Raises MissingPart, NotFound, BadConfig, BadFile or SizeupError when the worker says so, dies or
    takes too long; KeyboardInterrupt cancels it first.
    """
    results: list[Event] = []
    for event in worker_events(script, job, python=python, timeout=timeout, silence=silence):
        if on_event:
            on_event(event)
        if event["event"] == "error":
            raise _failure(event, script, python)
        if event["event"] == "cancelled":
            raise SizeupError(f"the worker {script} was cancelled")
        if event["event"] == "result":
            results.append(event)
    return results


def worker_events(
    script: str, job: Mapping[str, Any], *, python: str, timeout: float, silence: float = SILENCE_SECONDS
) -> Iterator[Event]:
    """The events of a worker as they come. Closing the iterator ends the worker."""
    with tempfile.TemporaryFile() as errors:
        process = _started(script, python, errors)
        try:
            yield from _listened(process, job, script, timeout, silence)
            with contextlib.suppress(subprocess.TimeoutExpired):
                if code := process.wait(GRACE_SECONDS):
                    raise _died(script, code, errors)
        except KeyboardInterrupt:
            _signal(process, signal.SIGINT)
            raise
        finally:
            _end(process)


def _started(script: str, python: str, errors: Any) -> subprocess.Popen[bytes]:
    path = WORKERS / script
    if not path.is_file():
        raise SizeupError(f"no worker {script}", hint="install sizeup again")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    try:
        return subprocess.Popen(
            [python, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise MissingPart(f"cannot start {python}: {error.strerror}", hint=f"correct or unset {VARIABLE}") from None


def _listened(
    process: subprocess.Popen[bytes], job: Mapping[str, Any], script: str, timeout: float, silence: float
) -> Iterator[Event]:
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_write, args=(process, json.dumps(job).encode()), daemon=True).start()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    end = time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        try:
            line = lines.get(timeout=max(0.0, min(left, silence)))
        except queue.Empty:
            late = f"took longer than {timeout:g} s" if left <= silence else f"said nothing for {silence:g} s"
            raise SizeupError(f"the worker {script} {late} and was ended", hint="try again with more time") from None
        if line is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if process.wait(GRACE_SECONDS) == 0:
                    raise SizeupError(f"the worker {script} ended without an answer")
            return
        event = _event(line, script)
        yield event
        if event["event"] in {"done", "error", "cancelled"}:
            return


def _write(process: subprocess.Popen[bytes], job: bytes) -> None:
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.write(job)
            process.stdin.close()


def _read(process: subprocess.Popen[bytes], lines: queue.Queue[bytes | None]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while process.stdout is not None and (line := process.stdout.readline(MAX_EVENT_BYTES)):
            lines.put(line)
    lines.put(None)


def _event(line: bytes, script: str) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise SizeupError(f"the worker {script} said something that is not an event: {line[:200]!r}")
    return event


def _failure(event: Event, script: str, python: str) -> SizeupError:
    message, kind = str(event.get("message") or "it gave no reason"), str(event.get("kind"))
    hint = f"set {VARIABLE} to the Python of an environment that has it" if kind == "missing" else ""
    return _FAILURES.get(kind, SizeupError)(f"the worker {script} ({python}): {message}", hint=hint)


def _died(script: str, code: int, errors: Any) -> WorkerDied:
    errors.seek(0)
    last = errors.read()[-2000:].decode(errors="replace").strip().rpartition("\n")[2][:300]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    hint = "it may have run out of memory" if code == -signal.SIGKILL else ""
    return WorkerDied(f"the worker {script} {how}{f': {last}' if last else ''}", hint=hint)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group, politely first, and close the pipes."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _python_in(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
