"""What is measured: one cell for each prompt length, depth and number of requests at once."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.errors import BadInput

_STEP = 256


class Cell(msgspec.Struct, frozen=True):
    """One workload, in tokens. depth: already in the cache when the prompt comes. concurrency: requests at once."""

    prompt: int
    generate: int
    depth: int = 0
    concurrency: int = 1

    @property
    def sequence(self) -> int:
        """Tokens that one request needs room for."""
        return self.depth + self.prompt + self.generate

    @property
    def words(self) -> str:
        """`512 + 64`, `512 + 64 at 4,096, 4 at once`."""
        deep = f" at {self.depth:,}" if self.depth else ""
        many = f", {self.concurrency} at once" if self.concurrency > 1 else ""
        return f"{self.prompt:,} + {self.generate:,}{deep}{many}"


def cells(
    prompts: Sequence[int], depths: Sequence[int], generate: int, concurrencies: Sequence[int]
) -> tuple[Cell, ...]:
    """Every prompt at every depth alone; then the first prompt at the first depth, several at once.

    Raises BadInput for a workload without tokens.
    """
    for name, values, least in (
        ("prompt", prompts, 1), ("depth", depths, 0), ("generate", [generate], 2), ("concurrency", concurrencies, 1),
    ):  # fmt: skip
        if not values or min(values) < least:
            raise BadInput(f"{name} is {', '.join(map(str, values)) or 'empty'}", hint=f"{name} is {least} or more")
    first = min(concurrencies)
    single = [Cell(prompt, generate, depth, first) for depth in depths for prompt in prompts]
    sweep = [Cell(prompts[0], generate, depths[0], many) for many in sorted(set(concurrencies)) if many != first]
    return (*single, *sweep)


def context_for(wanted: Sequence[Cell]) -> tuple[int, int]:
    """Tokens of context for each sequence, and sequences, that hold all cells."""
    longest = max(cell.sequence for cell in wanted) + 1
    return -(-longest // _STEP) * _STEP, max(cell.concurrency for cell in wanted)
