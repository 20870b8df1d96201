"""Talk to a model: a GGUF file (or a tag of Ollama) that is started for it, or the address of a server that runs.

The prompt template is the model's own. Ctrl-C stops an answer, Ctrl-D ends the chat. With --prompt it answers once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

from sizeup.engines.launch import Server
from sizeup.engines.openai import OpenAI
from sizeup.engines.protocol import Ask, Endpoint, Message
from sizeup.engines.registry import attach, engine_named, is_address
from sizeup.operations.run import RunRequest, wish_of
from sizeup.operations.serving import contents_for, needs_file, planned, started


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to talk to, and how."""

    model: Annotated[str, Meta(description="The path of a GGUF file, or a server's address (http://host:port).")]
    engine: Annotated[
        Literal["llama.cpp", "transformers"], Meta(description="What runs it: transformers takes a folder.")
    ] = "llama.cpp"
    name: Annotated[str, Meta(description="Which of a server's models; default: its first.")] = ""
    prompt: Annotated[str, Meta(description="Answer this once, and end.")] = ""
    system: Annotated[str, Meta(description="What the model is told first.")] = ""
    tokens: Annotated[int, Meta(description="The most tokens of an answer.")] = 1024
    temperature: Annotated[float, Meta(description="0 is always the likeliest token.")] = 0.7
    context: Annotated[str | int, Meta(description="Tokens of context; default: the best plan's.")] = ""
    threads: Annotated[int | None, Meta(description="Threads on the CPU; default: the engine's.")] = None
    force: Annotated[bool, Meta(description="Start it even if it doesn't fit.")] = False


class ChatReport(msgspec.Struct, dict=True):
    """A chat that is open. answer: to the request's prompt, when it had one."""

    model: str
    url: str
    engine: str
    answer: str = ""
    tokens: int = 0
    schema: str = "sizeup.chat/1"

    def open(self, engine: OpenAI, endpoint: Endpoint, server: Server | None, request: ChatRequest) -> Self:
        """Begin with the system's message."""
        self._engine, self._endpoint, self._server, self._request = engine, endpoint, server, request
        self._messages = [Message("system", request.system)] if request.system else []
        return self

    @property
    def once(self) -> bool:
        """Whether it was asked one thing only."""
        return bool(self._request.prompt)

    def say(self, text: str) -> Iterator[str]:
        """The answer, piece by piece; the chat remembers both. Closing the iterator stops the answer."""
        self._messages.append(Message("user", text))
        ask = Ask(
            messages=tuple(self._messages),
            tokens=self._request.tokens,
            temperature=self._request.temperature,
            cached=True,
        )
        pieces: list[str] = []
        try:
            for arrival in self._engine.stream(self._endpoint, [ask]):
                self.tokens += arrival.chunk.tokens
                if arrival.chunk.text:
                    pieces.append(arrival.chunk.text)
                    yield arrival.chunk.text
        finally:
            self._messages.append(Message("assistant", "".join(pieces)))

    def stop(self) -> None:
        """End the server, when it was started for this chat."""
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def chat(request: ChatRequest) -> ChatReport:
    """Open the chat; answer the prompt when there is one."""
    server: Server | None = None
    if is_address(request.model):
        engine, endpoint = attach(request.model, model=request.name)
        name = endpoint.model
    else:
        wish = wish_of(
            RunRequest(
                model=request.model,
                engine=request.engine,
                context=request.context,
                force=request.force,
                offline=True,
            )
        )
        served = planned(wish)
        if request.engine == "llama.cpp":
            needs_file(served, wish)
        engine, name = engine_named(request.engine), served.model.name
        with contents_for(request.engine, served) as path:
            server = started(engine, served, path, threads=request.threads)
        endpoint = server.endpoint
    report = ChatReport(name, endpoint.url, endpoint.engine).open(engine, endpoint, server, request)
    if request.prompt:
        try:
            report.answer = "".join(report.say(request.prompt))
        finally:
            report.stop()
    return report
