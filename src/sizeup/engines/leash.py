"""A program that holds a server: when its standard input ends, whatever ended its owner, the server ends too.

    python leash.py PROGRAM ARGUMENTS …

It says the server's process id on its own output, passes SIGTERM on, gives the server ten seconds and ends with its
status. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Any

GRACE_SECONDS = 10.0


def main(command: list[str]) -> int:
    """Run the command until it ends or the owner is gone."""
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno())
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        return 127
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=_end, args=(server,), daemon=True).start())
    threading.Thread(target=_watch_owner, args=(server,), daemon=True).start()
    return server.wait()


def _watch_owner(server: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    _end(server)


def _end(server: subprocess.Popen[Any]) -> None:
    server.terminate()
    try:
        server.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
