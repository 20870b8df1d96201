"""What a worker and its host say to each other, on the worker's side. Standard library only: it runs anywhere.

    job      one JSON object on standard input, or in the file that the first argument names
    events   JSON lines on standard output, each with "event":
             heartbeat                   still alive; every HEARTBEAT_SECONDS
             progress  {done, all, what}
             result    {…}               what was asked for; there may be several
             error     {kind, message}   the job failed: missing, unknown, config, file, failed
             cancelled                   after SIGINT
             done                        the last line of a job that didn't fail

Whatever the work prints goes to standard error, so that a library's chatter can't be taken for an event.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEARTBEAT_SECONDS = 5.0
MAX_JOB_BYTES = 64 * 2**20

Say = Callable[..., None]


class Refused(Exception):
    """The job can't be done; kind: `unknown` (no such class), `config`, `file`, `missing`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def answer(work: Callable[[dict[str, Any], Say], None], *, heartbeat: float = HEARTBEAT_SECONDS) -> int:
    """Read a job and do it; whatever goes wrong becomes an event. work: called with the job and `say`."""
    say = _speaker()
    stop = threading.Event()
    threading.Thread(target=_beat, args=(say, stop, heartbeat), daemon=True).start()
    try:
        work(_job(), say)
        say("done")
    except KeyboardInterrupt:
        say("cancelled")
    except Refused as refused:
        say("error", kind=refused.kind, message=str(refused))
    except ImportError as error:
        say("error", kind="missing", message=f"not installed there: {error}")
    except Exception as error:
        say("error", kind="failed", message=f"{type(error).__name__}: {error}"[:2000])
    finally:
        stop.set()
    return 0


def _speaker() -> Say:
    """A function that writes events, and keeps standard output to itself."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def say(event: str, **fields: Any) -> None:
        with lock, contextlib.suppress(BrokenPipeError):
            channel.write(json.dumps({"event": event, **fields}, default=str) + "\n")
            channel.flush()

    return say


def _beat(say: Say, stop: threading.Event, seconds: float) -> None:
    while not stop.wait(seconds):
        say("heartbeat")


def _job() -> dict[str, Any]:
    raw = Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else sys.stdin.buffer.read(MAX_JOB_BYTES)
    try:
        job = json.loads(raw)
    except ValueError as error:
        raise Refused("config", f"the job isn't JSON: {error}") from None
    if not isinstance(job, dict):
        raise Refused("config", "the job isn't a JSON object")
    return job
