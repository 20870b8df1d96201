"""The sizes of several residual streams and of the low-rank path beside attention (Gemma 3n)."""

from __future__ import annotations

import msgspec


class Streams(msgspec.Struct, frozen=True):
    """count: of residual streams. rank: of Laurel's path. scaled: the corrected stream is scaled by channel.

    clamped: the correction's weight is clamped while training.
    """

    count: int
    rank: int
    scaled: bool = True
    clamped: bool = True
