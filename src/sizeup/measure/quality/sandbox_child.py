"""Runs inside the sandbox: limits itself, runs a solution, then its hidden tests, and says so with a token.

    standard input   {"limits": {"memory", "cpu", "processes", "file"}, "solution", "tests", "token"}
    standard output  whatever the solution prints, then TOKEN alone on the last line if every test held

It is given to Python as text (`python -I -S -c`), so it needs no file inside. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import traceback
from typing import Any


def limit(limits: dict[str, int]) -> None:
    """No more than this for each process, and so many of them; nobody inside can raise them again."""
    for name, amount in (
        ("RLIMIT_AS", limits["memory"]),
        ("RLIMIT_CPU", limits["cpu"]),
        ("RLIMIT_FSIZE", limits["file"]),
        ("RLIMIT_NPROC", limits["processes"]),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", 64),
    ):
        with contextlib.suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, name), (amount, amount))


def run(job: dict[str, Any]) -> None:
    """Run the solution and its tests in one name space, then say the token; exit with 1 when anything is raised.

    What is used behind the solution is taken hold of before it, so that replacing `exec`, `print` or a function of this
    program changes nothing.
    """
    execute, flush, write, leave = exec, sys.stdout.flush, os.write, os._exit
    names: dict[str, Any] = {"__name__": "solution"}
    said = f"\n{job.pop('token')}\n".encode()
    try:
        tests = compile(job.pop("tests"), "tests", "exec")
        execute(compile(job.pop("solution"), "solution", "exec"), names)
        execute(tests, names)
    except BaseException:
        text = traceback.format_exc(limit=-3)
        sys.stderr.write(text[-2000:])
        sys.stderr.flush()
        leave(1)
    with contextlib.suppress(OSError, ValueError):
        flush()
    write(1, said)
    leave(0)


def main() -> None:
    """Read the job, obey the limits, run it."""
    job = json.loads(sys.stdin.buffer.read())
    limit(job["limits"])
    run(job)


main()
