"""A Llama checkpoint in half precision with a byte-level BPE tokenizer as a GGUF file, without any other package.

Names, keys and the order of rows in queries and keys: conversion/llama.py and gguf-py, llama.cpp 0.5.0 (0c1e570).
llama.cpp turns neighbouring values of a head together, transformers those of its two halves, so the rows of each head
are interleaved.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sizeup.engines.llamacpp.weightless import Value, aligned, header
from sizeup.errors import BadConfig, BadFile, SizeupError
from sizeup.formats.gguf_tensors import GgufTensor
from sizeup.models.sources.bytesource import LocalFile
from sizeup.models.sources.header import StoredTensor
from sizeup.models.sources.safetensors import read_safetensors_path

_NORMAL, _CONTROL = 1, 3
_MOSTLY_F16 = 1
_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INSIDE = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(folder: Path, path: Path) -> int:
    """Write the checkpoint in `folder` as a GGUF file; returns its size.

    Raises BadConfig for another architecture, BadFile for weights that aren't F16, SizeupError when the disk is full.
    """
    config = msgspec.json.decode((folder / "config.json").read_bytes())
    if config.get("model_type") != "llama":
        raise BadConfig(
            f"{folder} holds a {config.get('model_type')!r}", hint="only Llama checkpoints are written here"
        )
    weights = folder / "model.safetensors"
    tensors = read_safetensors_path(weights).tensors
    described = [_described(tensor) for tensor in tensors]
    head = header(_metadata(config, folder), described)
    try:
        with LocalFile(weights) as source, path.open("wb") as file:
            file.write(head)
            for tensor in tensors:
                data = _data(tensor, source.read(tensor.offset, tensor.nbytes), config)
                file.write(data.ljust(aligned(len(data)), b"\0"))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise SizeupError(f"can't write {path}: {error.strerror}", hint="free some space") from error
    return path.stat().st_size


def gguf_name(name: str) -> str:
    """The name in the file: `model.layers.3.self_attn.q_proj.weight` → `blk.3.attn_q.weight`. Raises BadFile."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    parts = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    if len(parts) != 2 or parts[1] not in _INSIDE:
        raise BadFile(f"a Llama checkpoint has no tensor {name[:120]!r}")
    return f"blk.{parts[0]}.{_INSIDE[parts[1]]}.weight"


def interleaved(data: bytes, rows: int, heads: int) -> bytes:
    """The rows of each head in llama.cpp's order: alternately from its first and its second half."""
    row = len(data) // rows
    half = rows // heads // 2
    order = [head * 2 * half + side * half + place for head in range(heads) for place in range(half) for side in (0, 1)]
    return b"".join(data[number * row : (number + 1) * row] for number in order)


def _described(tensor: StoredTensor) -> GgufTensor:
    if tensor.dtype != "F16":
        raise BadFile(f"{tensor.name} is stored as {tensor.dtype}", hint="save the checkpoint in half precision")
    return GgufTensor(gguf_name(tensor.name), tensor.shape, "F16" if len(tensor.shape) > 1 else "F32")


def _data(tensor: StoredTensor, raw: bytes, config: Mapping[str, Any]) -> bytes:
    """A tensor's values: norms in single precision, queries and keys in llama.cpp's order, the rest as they are."""
    if len(tensor.shape) == 1:
        count = tensor.shape[0]
        return struct.pack(f"<{count}f", *struct.unpack(f"<{count}e", raw))
    if ".q_proj." in tensor.name:
        return interleaved(raw, tensor.shape[0], config["num_attention_heads"])
    if ".k_proj." in tensor.name:
        return interleaved(raw, tensor.shape[0], config["num_key_value_heads"])
    return raw


def _metadata(config: Mapping[str, Any], folder: Path) -> dict[str, Value]:
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    rope = config.get("rope_parameters") or config
    return {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": folder.name,
        "general.alignment": 32,
        "general.file_type": _MOSTLY_F16,
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.rope.dimension_count": head_dim,
        "llama.rope.freq_base": float(rope["rope_theta"]),
        "llama.vocab_size": config["vocab_size"],
        **_tokenizer(config, folder / "tokenizer.json"),
    }


def _tokenizer(config: Mapping[str, Any], path: Path) -> dict[str, Value]:
    """The vocabulary, the merges and the special tokens of a byte-level BPE tokenizer."""
    content = msgspec.json.decode(path.read_bytes())
    control = {token["content"] for token in content["added_tokens"]}
    vocabulary = content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [_CONTROL if token in control else _NORMAL for token in tokens],
        "tokenizer.ggml.merges": list(_merges(content["model"]["merges"])),
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
        "tokenizer.ggml.add_bos_token": True,
    }


def _merges(merges: list[Any]) -> Iterator[str]:
    """Each merge as `left right`; older files have them so, newer ones as pairs."""
    for merge in merges:
        yield merge if isinstance(merge, str) else " ".join(merge)
