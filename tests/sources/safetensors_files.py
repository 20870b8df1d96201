"""Safetensors files for tests, assembled by hand; real ones come from the official writer in the tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def raw(header: Mapping[str, Any] | bytes, data: int = 0, length: int | None = None) -> bytes:
    """A file with any header and any claim of its length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(data)


def entry(begin: int, end: int, dtype: str = "F32", shape: list[Any] | None = None) -> dict[str, Any]:
    """One tensor; as many F32 values as the range holds unless a shape is given."""
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def model(tensors: Mapping[str, int], metadata: Mapping[str, str] | None = None) -> bytes:
    """A whole file of F32 tensors with that many values each."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, values in tensors.items():
        entries[name] = entry(end, end + 4 * values)
        end += 4 * values
    return raw(entries, end)


CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_hidden_layers": 2}


def sharded() -> dict[str, bytes]:
    """A repository of two shards with an index and a configuration."""
    shards = {
        "model-00001-of-00002.safetensors": {"embed.weight": 64, "layers.0.weight": 16},
        "model-00002-of-00002.safetensors": {"layers.1.weight": 16, "head.weight": 64},
    }
    weight_map = {tensor: shard for shard, tensors in shards.items() for tensor in tensors}
    index = {"metadata": {"total_size": 640}, "weight_map": weight_map}
    files = {shard: model(tensors, {"format": "pt"}) for shard, tensors in shards.items()}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    files["config.json"] = json.dumps(CONFIG).encode()
    return files


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The files in a folder, which is returned."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
