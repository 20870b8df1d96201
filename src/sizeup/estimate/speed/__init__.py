"""How fast: a physical model of one pass through a model (`passes`), and what follows for decoding, prompts, users.

`decode_speed(stages)` is what most callers want; `sizeup.engines.*.traffic` say what each device reads and computes.
"""

from sizeup.estimate.speed.decode import (
    Stage,
    bound,
    ceiling_share,
    decode_speed,
    decode_term,
    prompt_seconds,
    prompt_speed,
    step_seconds,
)

__all__ = [
    "Stage", "bound", "ceiling_share", "decode_speed", "decode_term", "prompt_seconds", "prompt_speed", "step_seconds",
]  # fmt: skip
