"""A GGUF's metadata as a configuration: the architecture's keys without their prefix, values by layer."""

from __future__ import annotations

from sizeup.errors import BadFile
from sizeup.models.config import MAX_LAYERS, Config
from sizeup.models.sources.header import Header, Skipped

UNNAMED = "unknown"


class GgufMetadata:
    """Typed access to `<architecture>.<key>`; messages name the full key and the file."""

    def __init__(self, header: Header, origin: str) -> None:
        architecture = header.metadata.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise BadFile(f"{origin} has no general.architecture", hint="convert the model again: this GGUF is damaged")
        self.architecture = architecture
        prefix = f"{architecture}."
        fields = {
            key.removeprefix(prefix): list(value) if isinstance(value, tuple) else value
            for key, value in header.metadata.items()
            if key.startswith(prefix) and not isinstance(value, Skipped)
        }
        self.own = Config(fields, origin, architecture)
        self.header = header

    @property
    def layers(self) -> int:
        """`block_count`, layers of multi-token prediction included."""
        return self.own.int("block_count", min=0, max=MAX_LAYERS, default=0)

    @property
    def predicting(self) -> int:
        """How many of the last layers are for multi-token prediction."""
        return self.own.int("nextn_predict_layers", min=0, max=max(0, self.layers), default=0)

    def text(self, key: str) -> str | None:
        """A string under its full key; None when absent or something else."""
        value = self.header.metadata.get(key)
        return value if isinstance(value, str) and value else None

    def by_layer(self, key: str, default: int = 0) -> list[int]:
        """One value for each layer: a list in the file, or one value for all; layers beyond a list get the default."""
        value = self.own.get(key)
        if isinstance(value, list):
            given = list(self.own.ints(key, min=0) or ())[: self.layers]
            return given + [default] * (self.layers - len(given))
        return [self.own.int(key, min=0, default=default)] * self.layers

    def flags(self, key: str) -> tuple[bool, ...] | int | None:
        """A list of flags by layer, or a single number; None when absent."""
        value = self.own.get(key)
        if isinstance(value, list):
            return tuple(bool(flag) for flag in value)
        return self.own.optional_int(key, min=0)

    @property
    def vocabulary(self) -> int | None:
        """Tokens of the tokenizer, or `vocab_size` when the file has no tokenizer."""
        return self.header.length("tokenizer.ggml.tokens") or self.own.optional_int("vocab_size", min=0)
