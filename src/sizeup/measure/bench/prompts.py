"""Prompts that no cache knows: random token ids, or random words for engines that take text only."""

from __future__ import annotations

import random

#: Short words that common vocabularies hold whole, so that a word is about a token.
_TEXT = """time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work number night point home water room mother area money
story fact month lot right study book eye job word business issue side kind head house service friend father power
hour game line end member law car city community name president team minute idea body information back"""
_WORDS = _TEXT.split()
#: Ids below this are often special; those above may not exist in small vocabularies.
_LOWEST, _HIGHEST = 1000, 30000


def random_ids(count: int, seed: int, vocabulary: int | None = None) -> tuple[int, ...]:
    """So many token ids, from the middle of the vocabulary."""
    high = min(_HIGHEST, vocabulary or _HIGHEST)
    low = _LOWEST if high > 2 * _LOWEST else high // 4
    generator = random.Random(seed)  # noqa: S311  prompts, not secrets
    return tuple(generator.randrange(low, high) for _ in range(count))


def random_words(count: int, seed: int) -> str:
    """About so many tokens of text."""
    generator = random.Random(seed)  # noqa: S311
    return " ".join(generator.choice(_WORDS) for _ in range(count))
