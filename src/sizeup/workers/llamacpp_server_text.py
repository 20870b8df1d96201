"""Text for the llama.cpp server worker: tokens from text, text from tokens, a prompt from a chat."""

from __future__ import annotations

import codecs
import ctypes
from collections.abc import Sequence
from typing import Any

_NO_VOCABULARY = 0
_PIECE_BYTES = 512
#: The template that llama.cpp takes for a model without one.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


class Text:
    """A model's vocabulary and its chat template. Models with random weights have no vocabulary: ids only."""

    def __init__(self, binding: Any, model: Any) -> None:
        self._binding, self._model = binding, model
        self.vocabulary = binding.llama_model_get_vocab(model)
        self.size = int(binding.llama_vocab_n_tokens(self.vocabulary))
        self.known = binding.llama_vocab_type(self.vocabulary) != _NO_VOCABULARY
        self._buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        self._template: Any = None

    def tokens(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of a text. Raises ValueError without a vocabulary."""
        if not self.known:
            raise ValueError("this model has no vocabulary: give token ids")
        raw = text.encode()
        room = len(raw) + 8
        found = (self._binding.llama_token * room)()
        count = self._binding.llama_tokenize(self.vocabulary, raw, len(raw), found, room, special, True)
        if count < 0:
            raise ValueError(f"the text makes {-count} tokens, more than its {len(raw)} bytes")
        return list(found[:count])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that a token stands for."""
        if not self.known:
            return b""
        size = self._binding.llama_token_to_piece(self.vocabulary, token, self._buffer, _PIECE_BYTES, 0, special)
        return self._buffer.raw[: max(0, size)]

    def ends(self, token: int) -> bool:
        """Whether a token ends a generation."""
        return self.known and bool(self._binding.llama_vocab_is_eog(self.vocabulary, token))

    def chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """The ids of a chat in the model's own template, else in ChatML."""
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        if not self.known:
            raise ValueError("this model has no vocabulary, so it can't chat")
        first = self.piece(self._binding.llama_vocab_bos(self.vocabulary), special=True).decode(errors="replace")
        last = self.piece(self._binding.llama_vocab_eos(self.vocabulary), special=True).decode(errors="replace")
        if self._template is None:
            raw = self._binding.llama_model_chat_template(self._model, None)
            template = raw.decode(errors="replace") if raw else CHATML
            self._template = Jinja2ChatFormatter(template, eos_token=last, bos_token=first)
        prompt = self._template(messages=list(messages)).prompt
        return self.tokens(prompt, special=not (first and prompt.startswith(first)))


class Decoder:
    """Text from tokens one at a time; bytes that are no whole character yet wait for the next."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The characters that are whole with this token."""
        return self._decoder.decode(self._text.piece(token))

    def rest(self) -> str:
        """What was left waiting."""
        return self._decoder.decode(b"", final=True)
