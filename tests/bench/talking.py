"""Small GGUF files with random weights and a real vocabulary (bytes and letters), so that servers can be given text."""

from pathlib import Path

from sizeup.engines.llamacpp.randomweights import write_random
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.simulate import file_content
from sizeup.models.load import load_model

TINY = "layers=4,embedding=256,heads=4,vocabulary=512,context=4096"
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
#: The writer stores a list with a negative number as signed, which is how llama.cpp wants token types.
_NEGATIVE = -1


def vocabulary(size: int) -> dict[str, object]:
    """A SentencePiece vocabulary of that many tokens: specials, bytes of ASCII, letters, then words.

    Bytes above ASCII would let a server wait for a character that never becomes whole.
    """
    tokens, kinds = ["<unk>", "<s>", "</s>"], [_UNKNOWN, _CONTROL, _CONTROL]
    tokens += [f"<0x{byte:02X}>" for byte in range(128)]
    kinds += [_BYTE] * 128
    tokens += ["▁", *(chr(code) for code in range(97, 123))]
    tokens += [f"▁word{number}" for number in range(size - len(tokens))]
    kinds += [_NORMAL] * (size - len(kinds) - 1) + [_NEGATIVE]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens[:size],
        "tokenizer.ggml.scores": [float(-number) for number in range(size)],
        "tokenizer.ggml.token_type": kinds[:size],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def write_talking(path: Path, shape: str = TINY, kind: str = "Q8_0") -> Path:
    """Write the file; returns its path."""
    model = load_model(shape)
    metadata, tensors = file_content(model, LlamaSetting(format=kind))
    kept = {key: value for key, value in metadata.items() if not key.startswith("tokenizer.")}
    write_random(path, {**kept, **vocabulary(model.vocabulary)}, tensors)
    return path
