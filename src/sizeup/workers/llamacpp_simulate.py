"""Worker: llama.cpp's own allocator, run dry on a GGUF file without weights.

It runs in an environment with llama-cpp-python and imports nothing of sizeup. One job comes in as a JSON object on
standard input (or in the file named by the first argument), answers go out as JSON lines:

    job      {"gguf": path, "model": {llama_model_params …}, "contexts": [{llama_context_params …}, …]}
    answers  {"event": "engine", "engine", "version", "system"}
             {"event": "model", "seconds", "parameters", "bytes", "description"}
             {"event": "context", "index", "seconds", "buffers": [{"name", "device", "host", "model", "context",
              "compute"}], "output", "graph"}
             {"event": "failed", "index", "message"}     one context; the others go on
             {"event": "error", "message"}               the whole job
             {"event": "done"}

Bytes of a buffer are what llama_get_memory_breakdown returns (llama.cpp src/llama-ext.h); the output buffer is not
in it and comes from the log, to 0.01 MiB.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import sys
import time

GGML_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30,
}  # fmt: skip
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
LOAD_MODE_NONE = 0
BREAKDOWN_SYMBOL = "_Z26llama_get_memory_breakdownPK13llama_context"
MIB = 1 << 20


class BadModelFile(Exception):
    """llama.cpp refuses the file."""


def say(event, **fields):
    """Write one answer."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


class Log:
    """llama.cpp's log lines, kept instead of printed; the last warning or error explains a failure."""

    def __init__(self, binding):
        self.lines = []
        self._pending = ""

        @binding.llama_log_callback
        def keep(_level, text, _data):
            self._pending += text.decode(errors="replace")
            *whole, self._pending = self._pending.split("\n")
            self.lines.extend(whole)

        self._keep = keep
        binding.llama_log_set(keep, ctypes.c_void_p(0))

    def clear(self):
        """Forget what has been said so far."""
        self.lines.clear()

    def failure(self):
        """The lines that tell what went wrong."""
        told = [line for line in self.lines if re.search(r"error|fail|invalid|missing|not |unknown", line, re.IGNORECASE)]
        return "; ".join(line.strip() for line in (told or self.lines)[-3:]) or "llama.cpp gave no reason"

    def mebibytes(self, kind):
        """Sum over the lines `… KIND buffer size = N MiB`, in bytes; None without such a line."""
        found = [float(m[1]) for line in self.lines if (m := re.search(kind + r" buffer size\s*=\s*([\d.]+) MiB", line))]
        return round(sum(found) * MIB) if found else None

    def graph(self):
        """What llama.cpp says of its compute graph: nodes and splits."""
        for line in self.lines:
            if m := re.search(r"nodes = (\d+).*?splits = (\d+)", line):
                return {"nodes": int(m[1]), "splits": int(m[2])}
        return {}


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


# Offsets in a tree node, in words: left child, right child, value. libc++ on macOS, libstdc++ elsewhere.
_NODE = (0, 1, 4) if sys.platform == "darwin" else (2, 3, 4)
_MOST_BUFFER_TYPES = 1024


def breakdown(binding, context):
    """llama_get_memory_breakdown: [(buffer type, model, context, compute)], in bytes.

    The function returns a std::map from buffer type to three sizes; its tree is walked from the root.
    """
    function = getattr(binding._lib, BREAKDOWN_SYMBOL)
    function.restype, function.argtypes = _Map, [ctypes.c_void_p]
    tree = function(context)
    if tree.size > _MOST_BUFFER_TYPES:
        raise RuntimeError(f"memory breakdown of {tree.size} buffer types: this llama.cpp returns something else")
    rows, nodes = [], [tree.root]
    while nodes:
        node = nodes.pop()
        if node:
            words = ctypes.cast(node, ctypes.POINTER(ctypes.c_size_t))
            left, right, value = _NODE
            rows.append(tuple(words[value + i] for i in range(4)))
            nodes += [words[left], words[right]]
    if len(rows) != tree.size:
        raise RuntimeError(f"memory breakdown has {len(rows)} of {tree.size} buffer types: unknown layout")
    return rows


class Backends:
    """Names of buffer types and devices, from libggml."""

    def __init__(self, binding):
        base = self._library(binding, "ggml-base")
        self._name = self._function(base, "ggml_backend_buft_name", ctypes.c_char_p)
        self._host = self._function(base, "ggml_backend_buft_is_host", ctypes.c_bool)
        self._device = self._function(base, "ggml_backend_buft_get_device", ctypes.c_void_p)
        self._device_name = self._function(base, "ggml_backend_dev_name", ctypes.c_char_p)

    @staticmethod
    def _library(binding, stem):
        folder = os.path.dirname(binding._lib._name)
        for name in (f"lib{stem}.so", f"lib{stem}.dylib", f"{stem}.dll"):
            path = os.path.join(folder, name)
            if os.path.exists(path):
                return ctypes.CDLL(path)
        return binding._lib

    @staticmethod
    def _function(library, name, result):
        function = getattr(library, name)
        function.restype, function.argtypes = result, [ctypes.c_void_p]
        return function

    def describe(self, row):
        """One row of the breakdown, with names."""
        kind, model, context, compute = row
        device = self._device(kind)
        return {
            "name": self._name(kind).decode(),
            "device": self._device_name(device).decode() if device else "CPU",
            "host": bool(self._host(kind)),
            "model": model,
            "context": context,
            "compute": compute,
        }


def fill(params, values):
    """Set fields of a llama.cpp parameter struct by name; an unknown name is an error, not a silent default."""
    for name, value in values.items():
        if name not in {field for field, _ in params._fields_}:
            raise ValueError(f"this llama.cpp has no parameter {name!r}")
        if name in {"type_k", "type_v"}:
            value = GGML_TYPES[value]
        elif name == "flash_attn_type":
            value = FLASH_ATTENTION[value]
        setattr(params, name, value)
    return params


def model_params(binding, values):
    """Parameters for a load that reads metadata only and sizes every buffer without allocating it."""
    params = binding.llama_model_default_params()
    names = {field for field, _ in params._fields_}
    if "no_alloc" not in names:
        raise RuntimeError("this llama.cpp is too old to load without allocating (no_alloc, December 2025)")
    params.no_alloc = True
    if "load_mode" in names:
        params.load_mode = LOAD_MODE_NONE
    else:
        params.use_mmap = False
    return fill(params, values)


def load(binding, job, log):
    """Load the file without its weights."""
    started = time.perf_counter()
    model = binding.llama_model_load_from_file(os.fsencode(job["gguf"]), model_params(binding, job.get("model", {})))
    if not model:
        raise BadModelFile(f"llama.cpp can't load {os.path.basename(job['gguf'])}: {log.failure()}")
    text = ctypes.create_string_buffer(256)
    binding.llama_model_desc(model, text, len(text))
    say(
        "model",
        seconds=time.perf_counter() - started,
        parameters=binding.llama_model_n_params(model),
        bytes=binding.llama_model_size(model),
        description=text.value.decode(errors="replace"),
    )
    return model


def simulate(binding, backends, model, index, values, log):
    """Create one context and say what it would take."""
    log.clear()
    started = time.perf_counter()
    context = binding.llama_init_from_model(model, fill(binding.llama_context_default_params(), values))
    if not context:
        say("failed", index=index, message=log.failure())
        return
    try:
        say(
            "context",
            index=index,
            seconds=time.perf_counter() - started,
            buffers=[backends.describe(row) for row in breakdown(binding, context)],
            output=log.mebibytes("output"),
            graph=log.graph(),
            tokens=binding.llama_n_ctx(context),
        )
    finally:
        binding.llama_free(context)


def run(job):
    """Do one job."""
    from llama_cpp import __version__, llama_cpp as binding

    log = Log(binding)
    binding.llama_backend_init()
    say("engine", engine="llama.cpp", version=__version__, system=binding.llama_print_system_info().decode())
    backends = Backends(binding)
    model = load(binding, job, log)
    try:
        for index, values in enumerate(job["contexts"]):
            try:
                simulate(binding, backends, model, index, values, log)
            except (ValueError, KeyError) as error:
                say("failed", index=index, message=str(error))
    finally:
        binding.llama_model_free(model)
    say("done")


def main():
    """Read the job, do it, and report any failure as an answer."""
    try:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(open(sys.argv[1], encoding="utf-8")) if len(sys.argv) > 1 else sys.stdin
            job = json.load(source)
        run(job)
    except ImportError as error:
        say("error", kind="missing", message=f"llama-cpp-python is not installed here: {error}")
    except BadModelFile as error:
        say("error", kind="file", message=str(error))
    except Exception as error:  # noqa: BLE001  whatever it was, the parent must hear of it
        say("error", kind="failed", message=f"{error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
