"""A tiny Llama checkpoint with random weights and a vocabulary of bytes (and one pair), written without any package."""

import json
import random
import struct
from pathlib import Path

HIDDEN, WIDTH, LAYERS, HEADS, KV_HEADS = 256, 512, 2, 4, 2
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HIDDEN // HEADS,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "vocab_size": 258,
    "bos_token_id": 257,
    "eos_token_id": 257,
    "torch_dtype": "float16",
}


def byte_letters():
    """GPT-2's letters for bytes: printable ones stand for themselves, the others are moved behind 255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) if byte in plain else chr(256 + moved.index(byte)) for byte in range(256)]


def shapes():
    kv = KV_HEADS * HIDDEN // HEADS
    inside = {
        "input_layernorm": (HIDDEN,),
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (kv, HIDDEN),
        "self_attn.v_proj": (kv, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "post_attention_layernorm": (HIDDEN,),
        "mlp.gate_proj": (WIDTH, HIDDEN),
        "mlp.up_proj": (WIDTH, HIDDEN),
        "mlp.down_proj": (HIDDEN, WIDTH),
    }
    named = {f"model.layers.{n}.{name}.weight": shape for n in range(LAYERS) for name, shape in inside.items()}
    return {"model.embed_tokens.weight": (258, HIDDEN), "model.norm.weight": (HIDDEN,), **named}


def write_tiny(folder: Path, seed: int = 1) -> Path:
    """The checkpoint: config.json, model.safetensors in half precision, tokenizer.json."""
    chooser = random.Random(seed)
    header, data = {}, b""
    for name, shape in shapes().items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = [1.0] * count if len(shape) == 1 else [chooser.gauss(0, 0.09) for _ in range(count)]
        raw = struct.pack(f"<{count}e", *values)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    letters = byte_letters()
    vocabulary = {letter: byte for byte, letter in enumerate(letters)} | {letters[0] + letters[1]: 256}
    tokenizer = {
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [[letters[0], letters[1]]]},
        "added_tokens": [{"id": 257, "content": "<|endoftext|>", "special": True}],
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder
