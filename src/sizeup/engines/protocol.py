"""What sizeup asks of an engine that serves models: detect, models, launch, stats, stream, stop.

A server is reached at an `Endpoint`. What it is asked is an `Ask`; it becomes a `Call` in the engine's own wire format,
and each event that comes back becomes a `Chunk`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from sizeup.engines.launch import Launch, Server


class Endpoint(msgspec.Struct, frozen=True):
    """Where a server listens. url: without a path. model: the one to ask for, where there are several.

    key: sent as a bearer token; it is never printed.
    """

    url: str
    engine: str = "openai"
    model: str = ""
    version: str = ""
    key: str = ""

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, {self.engine!r}, {self.model!r})"


class Message(msgspec.Struct, frozen=True):
    """One turn of a chat. role: system, user or assistant."""

    role: str
    content: str


class Ask(msgspec.Struct, frozen=True):
    """One thing to generate.

    prompt: text, or token ids where the engine takes them; messages: a chat instead of a prompt.
    tokens: how many to generate at most. exact: neither fewer, whatever the model wants to end with.
    cached: the server may reuse what it computed for an earlier prompt with the same beginning.
    """

    prompt: str | tuple[int, ...] = ""
    messages: tuple[Message, ...] = ()
    tokens: int = 128
    exact: bool = False
    cached: bool = False
    temperature: float = 0.0
    seed: int = 1


class Timings(msgspec.Struct, frozen=True):
    """The engine's own clock for one request, in tokens and seconds. prompt_tokens: without those from the cache.

    decode_tokens: those that decode_seconds were spent on.
    """

    prompt_tokens: int
    prompt_seconds: float
    decode_tokens: int
    decode_seconds: float
    source: str = ""


class Chunk(msgspec.Struct, frozen=True):
    """One event of a stream.

    tokens: how many it carries (engines send one at a time; a few bundle what is no whole character yet).
    finish: why it ended; empty while it goes on. prompt_tokens, generated: the engine's own count, at the end.
    """

    text: str = ""
    tokens: int = 0
    finish: str = ""
    prompt_tokens: int | None = None
    generated: int | None = None
    timings: Timings | None = None


class Call(msgspec.Struct, frozen=True):
    """One HTTP request whose answer is a stream. wire: `sse` (server-sent events) or `lines` (JSON lines)."""

    path: str
    body: bytes
    wire: str = "sse"


class Arrival(msgspec.Struct, frozen=True):
    """A chunk of one of several streams. at: `time.perf_counter()` when its bytes were read."""

    stream: int
    at: float
    chunk: Chunk


class Found(msgspec.Struct, frozen=True):
    """An engine on this machine.

    how: `llama-server on the path`. path: the program. url: where it is listening already; empty when it isn't.
    """

    engine: str
    how: str
    version: str = ""
    path: str = ""
    url: str = ""


class Stats(msgspec.Struct, frozen=True):
    """What a server says of its own load; None where it doesn't say.

    running, waiting: requests. slots: how many can run at once. cache_used: share of the KV cache from 0 to 1.
    prompt_tokens, generated: since it started. memory_bytes, gpu_bytes: held by loaded models.
    """

    running: int | None = None
    waiting: int | None = None
    cache_used: float | None = None
    prompt_tokens: int | None = None
    generated: int | None = None
    memory_bytes: int | None = None
    gpu_bytes: int | None = None
    slots: int | None = None


class Engine(Protocol):
    """A kind of server. takes_tokens: prompts may be token ids. reuses: it honours `Ask.cached`."""

    name: str
    port: int
    takes_tokens: bool
    reuses: bool

    def detect(self) -> tuple[Found, ...]:
        """Where it is on this machine: its program, and whether it is listening at its usual port."""

    def answers(self, url: str) -> bool:
        """Whether the server at this address is of this kind."""

    def models(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The models that it serves. Raises NetworkError."""

    def launch(self, launch: Launch) -> Server:
        """Start it and wait until it is ready. Raises MissingPart, SizeupError."""

    def stats(self, endpoint: Endpoint) -> Stats:
        """What it says of its own load. Raises NetworkError."""

    def call(self, endpoint: Endpoint, ask: Ask) -> Call:
        """The request for an ask."""

    def read(self, event: bytes) -> Chunk | None:
        """The chunk in an event; None when it carries nothing. Raises msgspec.DecodeError for garbage."""

    def stream(self, endpoint: Endpoint, asks: Sequence[Ask]) -> Iterator[Arrival]:
        """Ask all at once and yield what arrives. Raises NetworkError."""

    def stop(self, server: Server) -> None:
        """End a server that `launch` started, and what belongs to it."""


JsonObject = dict[str, Any]
