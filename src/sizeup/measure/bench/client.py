"""One run of a cell: ask, and take the time of every token."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from sizeup.engines.openai import OpenAI
from sizeup.engines.protocol import Ask, Endpoint, Timings
from sizeup.errors import NetworkError
from sizeup.measure.bench.cells import Cell
from sizeup.measure.bench.prompts import random_ids, random_words


class Reply(msgspec.Struct, frozen=True):
    """What one request came to, in tokens and seconds.

    prompt: tokens that were computed, without those from the cache. first: until the first token. gaps: from each
    event with tokens to the next. timings: the engine's own.
    """

    prompt: int
    generated: int
    first: float
    gaps: tuple[float, ...]
    timings: Timings | None = None

    @property
    def decode_seconds(self) -> float:
        """From the first token to the last."""
        return sum(self.gaps)

    @property
    def prefill(self) -> float:
        """Prompt tokens per second of waiting for the first token."""
        return self.prompt / self.first

    @property
    def decode(self) -> float | None:
        """Tokens per second after the first; None when they came all at once."""
        return (self.generated - 1) / self.decode_seconds if self.decode_seconds and self.generated > 1 else None


class Run(msgspec.Struct, frozen=True):
    """All requests of one run. seconds: from the first question to the last token."""

    replies: tuple[Reply, ...]
    seconds: float

    @property
    def throughput(self) -> float:
        """Generated tokens of all requests per second."""
        return sum(reply.generated for reply in self.replies) / self.seconds


class Client:
    """Asks one server. vocabulary: how many token ids it knows, where ids are sent."""

    def __init__(self, engine: OpenAI, endpoint: Endpoint, vocabulary: int | None = None) -> None:
        self._engine, self._endpoint, self._vocabulary = engine, endpoint, vocabulary

    def run(self, cell: Cell, seed: int) -> Run:
        """Fill the caches to the cell's depth, then ask all at once. Raises NetworkError."""
        seeds = [seed * 1000 + number for number in range(cell.concurrency)]
        if cell.depth and self._engine.reuses:
            self._ask([Ask(self._prompt(cell.depth, s), tokens=1, exact=True, cached=True) for s in seeds])
        cached = bool(cell.depth) and self._engine.reuses
        asks = [
            Ask(self._prompt(cell.depth + cell.prompt, s), tokens=cell.generate, exact=True, cached=cached)
            for s in seeds
        ]
        return self._ask(asks, expected=cell.prompt)

    def _prompt(self, tokens: int, seed: int) -> str | tuple[int, ...]:
        """A longer prompt of the same seed begins with the shorter one."""
        if self._engine.takes_tokens:
            return random_ids(tokens, seed, self._vocabulary)
        return random_words(tokens, seed)

    def _ask(self, asks: Sequence[Ask], expected: int = 1) -> Run:
        since = time.perf_counter()
        times: list[list[float]] = [[] for _ in asks]
        tokens = [0] * len(asks)
        told: list[dict[str, int]] = [{} for _ in asks]
        clocks: list[Timings | None] = [None] * len(asks)
        for arrival in self._engine.stream(self._endpoint, asks):
            chunk, place = arrival.chunk, arrival.stream
            if chunk.tokens:
                times[place].append(arrival.at)
                tokens[place] += chunk.tokens
            if chunk.prompt_tokens is not None:
                told[place]["prompt"] = chunk.prompt_tokens
            if chunk.generated is not None:
                told[place]["generated"] = chunk.generated
            clocks[place] = chunk.timings or clocks[place]
        ends = [stamps[-1] for stamps in times if stamps]
        if len(ends) < len(asks):
            raise NetworkError(
                f"{self._endpoint.url} generated no token for {len(asks) - len(ends)} of {len(asks)} requests",
                hint="look at the server's log: the prompt may not fit its context, or what it writes may be no text",
            )
        replies = tuple(
            Reply(
                _computed(clocks[place], told[place], expected, cached=asks[place].cached),
                told[place].get("generated") or tokens[place],
                times[place][0] - since,
                tuple(later - earlier for earlier, later in zip(times[place], times[place][1:], strict=False)),
                clocks[place],
            )
            for place in range(len(asks))
        )
        return Run(replies, max(ends) - since)


def _computed(clock: Timings | None, told: dict[str, int], expected: int, *, cached: bool) -> int:
    """Prompt tokens that were computed: by the engine's clock; by its count, where no cache helped; as asked for."""
    if clock is not None and clock.prompt_tokens:
        return clock.prompt_tokens
    return expected if cached else told.get("prompt", expected)
