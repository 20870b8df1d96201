"""What speculative decoding brings: a small model proposes, the large one checks several tokens in one pass.

The acceptance is the user's own figure: it depends on both models and on the text (0.6 to 0.9 is usual for a small
model of the same family). Batches make it worthless: these figures are for one sequence.
"""

from __future__ import annotations

import msgspec

from sizeup.advice.speeds import Runner
from sizeup.errors import BadInput
from sizeup.estimate.speed import decode_speed, step_seconds
from sizeup.estimate.speed.speculative import accepted_tokens, speculative_seconds
from sizeup.quantity import Interval

#: Numbers of proposed tokens that are tried.
MOST_PROPOSED = 16


class Speculation(msgspec.Struct, frozen=True):
    """The best number of proposals, and what it gives.

    accepted: expected tokens a pass. tokens_per_s: of one sequence. speedup: over decoding without. draft: the small
    model's name; empty when proposals cost nothing (n-grams, heads of the model itself). draft_bytes: of its weights,
    which come on top of the plan's memory.
    """

    acceptance: float
    proposed: int
    accepted: float
    tokens_per_s: Interval
    speedup: float
    draft: str = ""
    draft_bytes: int = 0


def parsed(text: str) -> tuple[float, str]:
    """`0.8:Qwen/Qwen3-0.6B` → acceptance and draft. Raises BadInput for an acceptance outside 0 to 1."""
    share, _, draft = text.partition(":")
    try:
        acceptance = float(share)
    except ValueError:
        acceptance = -1.0
    if not 0 <= acceptance <= 1:
        raise BadInput(
            f"acceptance {share[:40]!r} is not a share from 0 to 1",
            hint="for example --speculative 0.7:Qwen/Qwen3-0.6B",
        )
    return acceptance, draft


def speculate(
    runner: Runner, acceptance: float, draft: Runner | None = None, name: str = "", draft_bytes: int = 0
) -> Speculation:
    """The number of proposals that decodes fastest with half of the context filled."""
    depth = runner.context / 2
    plain = step_seconds(runner.passes(1, depth, 1), runner.engine)
    small = step_seconds(draft.passes(1, depth, 1), draft.engine) if draft else 0.0

    def seconds(proposed: int) -> float:
        checked = step_seconds(runner.passes(proposed + 1, depth, 1), runner.engine)
        return speculative_seconds(checked, small, acceptance, proposed)

    best = min(range(1, MOST_PROPOSED + 1), key=seconds)
    found, alone = seconds(best), decode_speed(runner.passes(1, depth, 1), runner.engine)
    gain = plain / found
    return Speculation(
        acceptance, best, accepted_tokens(acceptance, best), alone.scaled(gain), gain, name, draft_bytes
    )  # fmt: skip
