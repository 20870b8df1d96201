"""How long the answers take: wall time of whole commands, the least and the median of several runs.

`python bench/startup.py` prints a table; `--json` one document; `--check` fails when a limit of the table is passed.
"""

from __future__ import annotations

import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MACHINE = "RTX 4090, 64 GB RAM"
RUNS = 9
#: command → most seconds of wall time (the import: beyond the bare interpreter).
LIMITS = {"import sizeup": 0.060, "show DeepSeek-V3": 0.25, "show GGUF, 128k tokens": 0.25, "sizeup": 0.70}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        gguf = Path(folder) / "vocabulary.gguf"
        gguf.write_bytes(large_header())
        found = measure(gguf)
    if "--json" in sys.argv:
        print(json.dumps({"schema": "sizeup.startup/1", "seconds": found, "limits": LIMITS}))
    else:
        for name, (least, median) in found.items():
            print(f"{name:<24} {least:6.3f} s least  {median:6.3f} s median  {LIMITS[name]:.3f} s limit")
    late = [name for name, (least, _) in found.items() if least > LIMITS[name]]
    return 1 if late and "--check" in sys.argv else 0


def measure(gguf: Path) -> dict[str, tuple[float, float]]:
    python = [sys.executable, "-I"]
    bare = seconds([*python, "-c", "pass"])[0]
    imported = [second - bare for second in seconds([*python, "-c", "import sizeup"])]
    command = [*python, "-m", "sizeup"]
    return {
        "import sizeup": (imported[0], imported[1]),
        "show DeepSeek-V3": seconds([*command, "show", "deepseek-ai/DeepSeek-V3"]),
        "show GGUF, 128k tokens": seconds([*command, "show", str(gguf)]),
        "sizeup": seconds(command),
    }


def seconds(command: list[str]) -> tuple[float, float]:
    """The least and the median wall time of a command."""
    environment = {**os.environ, "SIZEUP_MACHINE": MACHINE, "HF_HUB_OFFLINE": "1"}
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        times.append(time.perf_counter() - started)
    return min(times), statistics.median(times)


def large_header(tokens: int = 128_256, merges: int = 280_147, layers: int = 32) -> bytes:
    """A GGUF file of a llama with a large vocabulary, its tensors one block wide so that the file stays small."""
    out = [b"GGUF", struct.pack("<IQQ", 3, 1 + 9 * layers, 12)]

    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    def number(key: str, value: int) -> None:
        out.append(text(key) + struct.pack("<II", 4, value))

    def strings(key: str, count: int, word: str) -> None:
        out.append(text(key) + struct.pack("<IIQ", 9, 8, count) + b"".join(text(f"{word}{i}") for i in range(count)))

    out.append(text("general.architecture") + struct.pack("<I", 8) + text("llama"))
    for key, value in (
        ("block_count", layers), ("context_length", 8192), ("embedding_length", 64), ("feed_forward_length", 128),
        ("attention.head_count", 4), ("attention.head_count_kv", 2),
    ):  # fmt: skip
        number(f"llama.{key}", value)
    number("general.alignment", 32)
    out.append(text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("gpt2"))
    strings("tokenizer.ggml.tokens", tokens, "token ")
    strings("tokenizer.ggml.merges", merges, "a b")
    out.append(text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, tokens) + bytes(4 * tokens))
    shapes = {
        "attn_q": (64, 64), "attn_k": (64, 32), "attn_v": (64, 32), "attn_output": (64, 64), "ffn_gate": (64, 128),
        "ffn_up": (64, 128), "ffn_down": (128, 64), "attn_norm": (64,), "ffn_norm": (64,),
    }  # fmt: skip
    tensors = [("token_embd.weight", (64, tokens))]
    tensors += [(f"blk.{i}.{name}.weight", shape) for i in range(layers) for name, shape in shapes.items()]
    offset = 0
    for name, shape in tensors:
        size = 4 if len(shape) == 1 else 2
        kind = 0 if len(shape) == 1 else 1
        dims = struct.pack(f"<{len(shape)}Q", *shape)
        out.append(text(name) + struct.pack("<I", len(shape)) + dims + struct.pack("<IQ", kind, offset))
        elements = 1
        for extent in shape:
            elements *= extent
        offset += -(-elements * size // 32) * 32
    header = b"".join(out)
    return header + bytes(-len(header) % 32 + offset)


if __name__ == "__main__":
    sys.exit(main())
