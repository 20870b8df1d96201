"""Runs inside the sandbox: limits itself, runs a solution, then its hidden tests, and says so with a token.

    standard input   {"limits": {"memory", "cpu", "processes", "file"}, "solution", "tests", "token"}
    standard output  whatever the solution prints, then TOKEN alone on the last line if every test held

It is given to Python as text (`python -I -S -c`), so it needs no file inside. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
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


def run(job: dict[str, Any]) -> bool:
    """Run the solution and its tests in one name space; True when nothing was raised."""
    names: dict[str, Any] = {"__name__": "solution"}
    try:
        exec(compile(job["solution"], "solution", "exec"), names)  # noqa: S102  what the sandbox is for
        exec(compile(job["tests"], "tests", "exec"), names)  # noqa: S102
    except BaseException:
        text = traceback.format_exc(limit=-3)
        sys.stderr.write(text[-2000:])
        return False
    return True


def main() -> None:
    """Read the job, obey the limits, run it."""
    job = json.loads(sys.stdin.buffer.read())
    limit(job["limits"])
    if not run(job):
        sys.exit(1)
    sys.stdout.write("\n" + job["token"] + "\n")
    sys.stdout.flush()


main()
