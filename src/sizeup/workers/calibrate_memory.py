"""Worker: how fast memory is read, by the number of threads, and how fast matrices are multiplied, by number type.

    job      {"threads": [counts …], "bytes": of the buffer that each thread reads, "repeat": times}
    results  {"part": "read", "threads", "bytes_per_s"}    the best of `repeat`
             {"part": "multiply", "type", "flop_per_s"}    only where NumPy is installed

Reading is the C library's memchr for a byte that isn't there: it touches every byte once, with vector instructions, and
lets other threads run.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
import time
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.protocol import Say, answer

_SIDE = 1024


def c_library() -> Any:
    """The C library of this system."""
    name = "msvcrt" if sys.platform == "win32" else ctypes.util.find_library("c")
    library = ctypes.CDLL(name)
    library.memchr.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    library.memchr.restype = ctypes.c_void_p
    return library


def read_rate(library: Any, buffers: list[Any], size: int, repeat: int) -> float:
    """Bytes/s that as many threads as there are buffers read together, each its own."""
    best = float("inf")
    for _ in range(repeat):
        gate = Barrier(len(buffers) + 1)

        def run(buffer: Any, gate: Barrier = gate) -> None:
            gate.wait()
            library.memchr(ctypes.addressof(buffer), 1, size)

        threads = [Thread(target=run, args=(buffer,)) for buffer in buffers]
        for thread in threads:
            thread.start()
        gate.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        best = min(best, time.perf_counter() - started)
    return len(buffers) * size / best


def multiply_rates(repeat: int) -> dict[str, float]:
    """FLOP/s of square matrix products by number type; empty without NumPy."""
    try:
        import numpy as np
    except ImportError:
        return {}
    found = {}
    for name in ("float32", "float64"):
        one = np.ones((_SIDE, _SIDE), name)
        one @ one
        best = float("inf")
        for _ in range(repeat):
            started = time.perf_counter()
            one @ one
            best = min(best, time.perf_counter() - started)
        found[name] = 2.0 * _SIDE**3 / best
    return found


def work(job: dict[str, Any], say: Say) -> None:
    """Do one job."""
    library = c_library()
    size = job["bytes"]
    buffers = [ctypes.create_string_buffer(size) for _ in range(max(job["threads"]))]
    for count in job["threads"]:
        say("result", part="read", threads=count, bytes_per_s=read_rate(library, buffers[:count], size, job["repeat"]))
    for name, rate in multiply_rates(job["repeat"]).items():
        say("result", part="multiply", type=name, flop_per_s=rate)


if __name__ == "__main__":
    sys.exit(answer(work))
