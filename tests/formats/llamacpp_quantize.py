"""Runs llama.cpp's own quantizer; started by the tests with the Python of a llama-cpp-python environment.

stdin: JSON list of {"input": path, "mix": ftype id, "imatrix": {tensor: size} or null, "output": path or null}.
stdout: JSON list of {tensor: type}, or of an error text, one for each job; without an output it's a dry run.
"""

import ctypes
import json
import re
import sys

import llama_cpp

TYPED = re.compile(r"\[ *\d+/ *\d+\] +(\S+) +- \[.*?\], type = +(\w+), ([^\[]*)")
lines: list[str] = []


@llama_cpp.llama_log_callback
def collect(_level, text, _data):
    lines.append(text.decode(errors="replace"))


def imatrix_of(sizes):
    entries = (llama_cpp.llama_model_imatrix_data * (len(sizes) + 1))()
    kept = []
    for entry, (name, size) in zip(entries, sizes.items(), strict=False):
        data = (ctypes.c_float * size)(*[1.0] * size)
        kept += [data, name.encode()]
        entry.name, entry.data, entry.size = kept[-1], data, size
    return entries, kept


def quantize(job):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.dry_run = job["mix"], 1, job["output"] is None
    kept = None
    if job["imatrix"]:
        kept = imatrix_of(job["imatrix"])
        params.imatrix = kept[0]
    lines.clear()
    output = job["output"] or "unused.gguf"
    failed = llama_cpp.llama_model_quantize(job["input"].encode(), output.encode(), ctypes.byref(params))
    text = "".join(lines)
    if failed:
        return text[-300:]
    types = {}
    for name, old, rest in TYPED.findall(text):
        new = re.search(r"MiB \((\w+)\)|converting to (\w+)", rest)
        types[name] = ((new[1] or new[2]) if new else old).upper()
    return types


llama_cpp.llama_log_set(collect, ctypes.c_void_p(0))
json.dump([quantize(job) for job in json.load(sys.stdin)], sys.stdout)
