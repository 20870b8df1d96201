"""What the llama.cpp workers share: parameters by name, the log, and llama.cpp's own account of its memory.

It runs where llama-cpp-python is installed and sizeup's own dependencies may not be: standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from pathlib import Path
from typing import Any

from sizeup.workers.protocol import Refused

GGML_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30,
}  # fmt: skip
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
_NAMED = {"type_k": GGML_TYPES, "type_v": GGML_TYPES, "flash_attn_type": FLASH_ATTENTION}
BREAKDOWN_SYMBOL = "_Z26llama_get_memory_breakdownPK13llama_context"
RESERVE_SYMBOL = "_Z19llama_graph_reserveP13llama_contextjjj"
LEVEL_ERROR = 4
MIB = 1 << 20
_MOST_BUFFER_TYPES = 1024


class Log:
    """llama.cpp's log lines, kept instead of printed: they explain failures and name what nothing else does."""

    def __init__(self, binding: Any) -> None:
        self.lines: list[str] = []
        self._errors: list[str] = []
        self._pending = ""

        def keep(level: int, text: bytes, _data: Any) -> None:
            *whole, self._pending = (self._pending + text.decode(errors="replace")).split("\n")
            self.lines.extend(whole)
            if level == LEVEL_ERROR:
                self._errors.extend(line.strip() for line in whole)

        self._keep = binding.llama_log_callback(keep)
        binding.llama_log_set(self._keep, ctypes.c_void_p(0))

    def clear(self) -> None:
        """Forget what has been said so far."""
        self.lines.clear()
        self._errors.clear()

    def failure(self) -> str:
        """The errors it has reported, else its last words."""
        return "; ".join(self._errors or self.lines[-2:]) or "llama.cpp gave no reason"

    def buffer_bytes(self, kind: str) -> int | None:
        """Sum over the lines `… KIND buffer size = N MiB`; None without such a line."""
        pattern = re.compile(kind + r" buffer size\s*=\s*([\d.]+) MiB")
        found = [float(m[1]) for line in self.lines if (m := pattern.search(line))]
        return round(sum(found) * MIB) if found else None

    def graph(self) -> dict[str, int]:
        """What it says of the compute graph: nodes and splits; empty when it says nothing."""
        for line in self.lines:
            if m := re.search(r"nodes = (\d+).*?splits = (\d+)", line):
                return {"nodes": int(m[1]), "splits": int(m[2])}
        return {}


def started(library: str = "", version: str = "") -> tuple[Any, str]:
    """The binding, ready, and its version: of the package, or of a libllama that was named.

    A failed assertion says its line, without a backtrace and without leaving a core file.
    """
    os.environ["GGML_NO_BACKTRACE"] = "1"
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if library:
        from sizeup.workers.llamacpp_library import Library

        found: tuple[Any, str] = Library(library), version
    else:
        import llama_cpp

        found = llama_cpp.llama_cpp, llama_cpp.__version__
    found[0].llama_backend_init()
    return found


def fill(params: Any, values: dict[str, Any]) -> Any:
    """Set fields of a parameter struct by name; an unknown name is an error, not a silent default."""
    known = {field for field, *_ in params._fields_}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"this llama.cpp has no parameter {name!r}")
        setattr(params, name, _NAMED[name][value] if name in _NAMED else value)
    return params


def load(binding: Any, path: str, params: Any, log: Log) -> Any:
    """Load a model file. Raises Refused with llama.cpp's own words."""
    model = binding.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise Refused("file", f"llama.cpp can't load {Path(path).name}: {log.failure()}")
    return model


class _Map(ctypes.Structure):
    """A std::map as the C++ library returns it by value; only its root and size are read."""

    _fields_ = (
        [("begin", ctypes.c_void_p), ("root", ctypes.c_void_p), ("size", ctypes.c_size_t)]
        if sys.platform == "darwin"
        else [
            ("compare", ctypes.c_void_p),
            ("color", ctypes.c_void_p),
            ("root", ctypes.c_void_p),
            ("leftmost", ctypes.c_void_p),
            ("rightmost", ctypes.c_void_p),
            ("size", ctypes.c_size_t),
        ]
    )


# Where a tree node keeps left child, right child and value, in words: libc++ on macOS, libstdc++ elsewhere.
_LEFT, _RIGHT, _VALUE = (0, 1, 4) if sys.platform == "darwin" else (2, 3, 4)


class Memory:
    """llama.cpp's own account of a context's memory, by buffer type.

    llama_get_memory_breakdown (src/llama-ext.h) returns a std::map from buffer type to three sizes: model, context
    and compute. It is the only exact account: the log rounds to 0.01 MiB, and is silent on buffers that `no_alloc`
    doesn't allocate. The map's tree is walked from its root; a map that doesn't add up is an error.
    """

    def __init__(self, binding: Any) -> None:
        try:
            self._breakdown = getattr(binding._lib, BREAKDOWN_SYMBOL)  # noqa: SLF001  the loaded library itself
        except AttributeError as error:
            raise RuntimeError("this llama.cpp gives no account of its memory (llama_get_memory_breakdown)") from error
        self._breakdown.restype, self._breakdown.argtypes = _Map, [ctypes.c_void_p]
        base = _ggml(binding._lib, "ggml-base")  # noqa: SLF001
        self._name = _typed(base, "ggml_backend_buft_name", ctypes.c_char_p)
        self._host = _typed(base, "ggml_backend_buft_is_host", ctypes.c_bool)
        self._device = _typed(base, "ggml_backend_buft_get_device", ctypes.c_void_p)
        self._device_name = _typed(base, "ggml_backend_dev_name", ctypes.c_char_p)

    def of(self, context: Any) -> list[dict[str, Any]]:
        """Each buffer type with its name, device, whether it is host memory, and its sizes in bytes."""
        tree = self._breakdown(context)
        rows: list[list[int]] = []
        nodes = [tree.root]
        while nodes and len(rows) <= _MOST_BUFFER_TYPES:
            if node := nodes.pop():
                words = ctypes.cast(node, ctypes.POINTER(ctypes.c_size_t))
                rows.append([words[_VALUE + place] for place in range(4)])
                nodes += [words[_LEFT], words[_RIGHT]]
        if len(rows) != tree.size:
            raise RuntimeError(f"llama.cpp's account has {len(rows)} buffer types and says {tree.size}")
        return [self._described(*row) for row in rows]

    def _described(self, kind: int, model: int, context: int, compute: int) -> dict[str, Any]:
        device = self._device(kind)
        return {
            "name": self._name(kind).decode(),
            "device": self._device_name(device).decode() if device else "CPU",
            "host": bool(self._host(kind)),
            "model": model,
            "context": context,
            "compute": compute,
        }


class _Plan(ctypes.Structure):
    """The head of ggml_cplan (ggml-cpu.h); the rest is only room for what the library writes."""

    _fields_ = (("work_size", ctypes.c_size_t), ("rest", ctypes.c_void_p * 7))


class WorkBuffer:
    """What the CPU backend allocates while it computes, beside the graph's own buffer: quantized activations mostly.

    The graph is built anew by llama_graph_reserve (src/llama-ext.h) and planned by ggml_graph_plan (ggml-cpu.h).
    """

    def __init__(self, binding: Any) -> None:
        self._binding = binding
        self._reserve = getattr(binding._lib, RESERVE_SYMBOL)  # noqa: SLF001
        self._reserve.restype = ctypes.c_void_p
        self._reserve.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32]
        self._plan = _ggml(binding._lib, "ggml-cpu").ggml_graph_plan  # noqa: SLF001
        self._plan.restype, self._plan.argtypes = _Plan, [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]

    def bytes(self, context: Any, tokens: int, sequences: int, outputs: int) -> int:
        """Bytes for a graph of so many tokens, sequences and outputs, with the context's own threads."""
        threads = self._binding.llama_n_threads_batch(context)
        return int(self._plan(self._reserve(context, tokens, sequences, outputs), threads, None).work_size)


def _ggml(library: Any, stem: str) -> Any:
    folder = Path(library._name).parent  # noqa: SLF001  where the library was loaded from
    found = (folder / name for name in (f"lib{stem}.so", f"lib{stem}.dylib", f"{stem}.dll"))
    path = next((path for path in found if path.exists()), None)
    return ctypes.CDLL(str(path)) if path else library


def _typed(library: Any, name: str, result: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = result, [ctypes.c_void_p]
    return function
