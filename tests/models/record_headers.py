"""Keep the headers of what make_checkpoints.py wrote, for machines without torch and llama.cpp.

    python record_headers.py FOLDER

Writes data/headers.json.gz: for each family the configuration, the safetensors tensors, and the GGUF metadata and
tensors. Token lists are reduced to their length.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

from sizeup.models.sources.gguf import read_gguf_path
from sizeup.models.sources.header import Header, Skipped
from sizeup.models.sources.safetensors import read_safetensors_path

TARGET = Path(__file__).parent / "data" / "headers.json.gz"


def main() -> None:
    folder = Path(sys.argv[1])
    record: dict[str, Any] = {}
    for checkpoint in sorted(path for path in folder.iterdir() if (path / "model.safetensors").is_file()):
        family = {
            "config": json.loads((checkpoint / "config.json").read_text()),
            "safetensors": tensors(read_safetensors_path(checkpoint / "model.safetensors")),
        }
        for kind in ("gguf", "mmproj"):
            path = folder / (f"{checkpoint.name}.gguf" if kind == "gguf" else f"{checkpoint.name}-mmproj.gguf")
            if path.is_file():
                header = read_gguf_path(path)
                family[kind] = {"metadata": metadata(header), "tensors": tensors(header)}
        record[checkpoint.name] = family
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(gzip.compress(json.dumps(record, separators=(",", ":")).encode(), mtime=0))
    print(f"{len(record)} families, {TARGET.stat().st_size:,} bytes")


def tensors(header: Header) -> list[Any]:
    return [[tensor.name, tensor.dtype, tensor.shape, tensor.nbytes] for tensor in header.tensors]


def metadata(header: Header) -> dict[str, Any]:
    kept = {}
    for key, value in header.metadata.items():
        if key == "tokenizer.ggml.tokens":
            kept[key] = {"count": header.length(key)}
        elif not isinstance(value, Skipped):
            kept[key] = value
    return kept


if __name__ == "__main__":
    main()
