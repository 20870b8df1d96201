"""Attention masks that transformers makes once a step and hands to every layer (5.23, `masking_utils.py`).

With SDPA no mask is made when the kernel can be told that attention is causal: nothing padded, and the window (if any)
longer than the sequence. Otherwise one of (batch, 1, s, s) booleans. Eager attention always gets one of numbers.
"""

from __future__ import annotations

from sizeup.estimate.training.build import Build
from sizeup.estimate.training.tape import ATTENTION, Value


def make_mask(
    build: Build,
    window: int | None,
    *,
    padding: bool,
    eager: bool,
    flash: bool = False,
    causal: bool = True,
    item: int = 0,
) -> Value | None:
    """The mask of the layers with that window; None when the kernel needs none."""
    tape, s = build.tape, build.sequence
    needed = padding or (window is not None and s >= window)
    if not eager and (flash or not needed):
        return None
    if eager and not causal and not padding:
        return None
    before, tape.label = tape.label, ATTENTION
    n = build.batch * s * s
    booleans = tape.value(n, 1)
    tape.transient(n)
    mask = tape.value(n, item or build.method.item) if eager else booleans
    del booleans
    tape.label = before
    return mask
