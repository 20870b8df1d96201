"""Any server that speaks OpenAI's API: /v1/models, /v1/completions, /v1/chat/completions with server-sent events.

Source: the OpenAI API reference (completions, chat, stream_options.include_usage), November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from sizeup.engines.http import get_json
from sizeup.engines.launch import Launch, Server, local_url
from sizeup.engines.protocol import Arrival, Ask, Call, Chunk, Endpoint, Found, JsonObject, Stats
from sizeup.engines.stream import arrivals
from sizeup.errors import MissingPart, NetworkError, NotFound, SizeupError

#: A server at its usual port of this machine answers at once or not at all.
PROBE_SECONDS = 0.5


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Event(msgspec.Struct):
    choices: tuple[_Choice, ...]
    usage: _Usage | None = None


_EVENTS = msgspec.json.Decoder(_Event)


class OpenAI:
    """A server of no kind in particular; the other engines that speak its language build on it."""

    name = "openai"
    port = 8000
    takes_tokens = False
    reuses = False

    def detect(self) -> tuple[Found, ...]:
        """What listens at its usual port. A server of no kind in particular is only found by its address."""
        return ()

    def listening(self) -> tuple[Found, ...]:
        """The server at this engine's usual port, when it is of this kind."""
        url = local_url("127.0.0.1", self.port)
        return (Found(self.name, "listening", url=url),) if self.answers(url) else ()

    def answers(self, url: str) -> bool:
        """Whether it lists models."""
        return isinstance(probe(url, "/v1/models"), dict)

    def models(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The ids of /v1/models."""
        answer = get_json(endpoint.url, "/v1/models", key=endpoint.key)
        entries = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(entries, list):
            raise NetworkError(f"{endpoint.url}/v1/models lists no models", hint="check the address")
        return tuple(str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry)

    def launch(self, launch: Launch) -> Server:
        """A server of no kind in particular can't be started."""
        raise MissingPart(
            f"{self.name} servers aren't started by sizeup: {launch.model[:80]}", hint="start it, then give its address"
        )

    def stats(self, endpoint: Endpoint) -> Stats:  # noqa: ARG002  the protocol's signature
        """The API has none."""
        return Stats()

    def call(self, endpoint: Endpoint, ask: Ask) -> Call:
        """A streamed completion, or a chat."""
        body: JsonObject = {
            "model": endpoint.model,
            "max_tokens": ask.tokens,
            "temperature": ask.temperature,
            "seed": ask.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        } | self.extras(ask)
        if ask.messages:
            return Call("/v1/chat/completions", msgspec.json.encode(body | {"messages": ask.messages}))
        return Call("/v1/completions", msgspec.json.encode(body | {"prompt": ask.prompt}))

    def extras(self, ask: Ask) -> JsonObject:  # noqa: ARG002  others use it
        """Fields that this kind of server takes beyond the API."""
        return {}

    def read(self, event: bytes) -> Chunk | None:
        """A chunk for each token; the last events carry why it ended and the counts."""
        decoded = _EVENTS.decode(event)
        usage = decoded.usage or _Usage()
        if not decoded.choices:
            return Chunk(prompt_tokens=usage.prompt_tokens, generated=usage.completion_tokens)
        choice = decoded.choices[0]
        delta = choice.delta or _Delta()
        text = choice.text or delta.content or delta.reasoning_content or delta.reasoning or ""
        return Chunk(text, 1 if text else 0, choice.finish_reason or "", usage.prompt_tokens, usage.completion_tokens)

    def stream(self, endpoint: Endpoint, asks: Sequence[Ask]) -> Iterator[Arrival]:
        """Ask all at once and yield what arrives."""
        return arrivals(endpoint, [self.call(endpoint, ask) for ask in asks], self.read)

    def stop(self, server: Server) -> None:
        """End a server that `launch` started."""
        server.stop()


def probe(url: str, path: str) -> Any:
    """The JSON at a path of a server that may not be there; None without it."""
    try:
        return get_json(url, path, seconds=PROBE_SECONDS)
    except SizeupError:
        return None


def chosen_model(engine: OpenAI, endpoint: Endpoint) -> Endpoint:
    """The endpoint with its model named: the first that it serves when none was. Raises NotFound."""
    served = engine.models(endpoint)
    if endpoint.model and served and endpoint.model not in served:
        raise NotFound(f"{endpoint.url} has no model {endpoint.model!r}", hint=f"it has {', '.join(served[:8])}")
    if not endpoint.model and not served:
        raise NotFound(f"{endpoint.url} serves no model", hint="load one there first")
    return endpoint if endpoint.model else msgspec.structs.replace(endpoint, model=served[0])
