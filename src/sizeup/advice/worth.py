"""What a plan is worth to one person: quality against speed and context, in one figure."""

from __future__ import annotations

import math

#: Context that a person who names none is taken to want.
USUAL_CONTEXT = 8192
#: Tokens/s beyond which more speed is worth nothing to one reader.
FAST_ENOUGH = 60.0
#: Divergence from the unquantized model (nats a token) that people accept for twice the speed.
DIVERGENCE_OF_A_DOUBLING = 0.03


def worth(divergence_: float, tokens_per_s: float, context: int) -> float:
    """What a plan is worth to one person, in doublings of speed.

    log2(min(speed, 60) / 10) - divergence / 0.03 + 0.15 · log2(min(context, 32k) / 8k): nobody reads faster than 60
    tokens/s; the step from Q8_0 to Q4_K_M (0.03 nats a token) is taken for twice the speed, not for less.
    """
    speed = math.log2(max(0.1, min(tokens_per_s, FAST_ENOUGH)) / 10)
    return speed - divergence_ / DIVERGENCE_OF_A_DOUBLING + 0.15 * math.log2(min(context, 32768) / USUAL_CONTEXT)
