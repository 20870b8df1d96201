"""Speculative decoding: a small model proposes some tokens, the large one checks them in a single pass."""

from __future__ import annotations

from sizeup.errors import BadInput


def accepted_tokens(acceptance: float, proposed: int) -> float:
    """Expected tokens a step: (1 - a^(k+1)) / (1 - a), with each proposal accepted with probability a.

    Source: Leviathan, Kalman, Matias 2022 (arXiv 2211.17192), equation 1. Raises BadInput for a outside 0..1.
    """
    if not 0 <= acceptance <= 1 or proposed < 0:
        raise BadInput(
            f"acceptance {acceptance}, proposed {proposed}", hint="acceptance lies in 0..1, proposed is 0 or more"
        )
    return float(proposed + 1) if acceptance == 1 else (1 - acceptance ** (proposed + 1)) / (1 - acceptance)


def speculative_seconds(verify_seconds: float, draft_seconds: float, acceptance: float, proposed: int) -> float:
    """Seconds a token: (k · draft step + the pass over k + 1 tokens) / expected tokens."""
    return (proposed * draft_seconds + verify_seconds) / accepted_tokens(acceptance, proposed)
