"""What a person needs, and which models of the catalogue could serve it at all."""

from __future__ import annotations

from typing import Literal

import msgspec

from sizeup.advice.licences import is_permissive
from sizeup.models.catalogue.entry import Entry

Task = Literal["chat", "coding", "reasoning", "embedding", "vision", "tools"]
TASKS: tuple[Task, ...] = ("chat", "coding", "reasoning", "embedding", "vision", "tools")

#: Tokens of context that a task usually wants: a chat, some files of code, a chain of thought.
USUAL_CONTEXT: dict[str, int] = {
    "chat": 8192, "coding": 16384, "reasoning": 16384, "embedding": 512, "vision": 8192, "tools": 16384,
}  # fmt: skip
#: Tokens/s below which people give up: reading speed is 5 to 8; code and chains of thought are skimmed and waited for.
USUAL_SPEED: dict[str, float] = {
    "chat": 8.0, "coding": 10.0, "reasoning": 12.0, "embedding": 0.0, "vision": 8.0, "tools": 10.0,
}  # fmt: skip


class Needs(msgspec.Struct, frozen=True):
    """What a person needs.

    context: tokens for each of the users. min_speed: decoded tokens/s for each. users: sequences at once.
    licence: `permissive` or `any`. language: ISO code the model must be made for; None: any.
    """

    task: Task = "chat"
    context: int = 8192
    min_speed: float = 8.0
    licence: str = "any"
    language: str | None = None
    users: int = 1
    max_parameters: int | None = None


def serves(entry: Entry, needs: Needs) -> str | None:
    """None when the model could serve the needs, else the reason why not."""
    if reason := _wrong_kind(entry, needs.task):
        return reason
    if needs.licence == "permissive" and not is_permissive(entry.licence):
        return f"its licence is {entry.licence or 'unknown'}"
    if entry.context is not None and entry.context < needs.context:
        return f"its context is {entry.context:,} tokens"
    if needs.language and entry.languages and needs.language not in entry.languages:
        return f"not made for {needs.language}"
    return None


def _wrong_kind(entry: Entry, task: Task) -> str | None:
    embeds = "embedding" in entry.modalities
    if embeds != (task == "embedding"):
        return "it makes embeddings" if embeds else "it doesn't make embeddings"
    if task == "vision" and "vision" not in entry.modalities:
        return "it can't see"
    if task == "tools" and "tools" not in entry.capabilities:
        return "it wasn't trained to call tools"
    if task in {"chat", "reasoning", "tools"} and is_code_only(entry):
        return "it was made for code"
    return None


def is_code_only(entry: Entry) -> bool:
    """Whether a model was made for code and little else, by its family's name or capabilities."""
    name = entry.id.rpartition("/")[2].lower()
    return "code" in entry.capabilities or any(word in name for word in ("code", "coder", "starcoder"))
