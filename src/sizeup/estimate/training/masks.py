"""Attention masks that transformers makes once a step and hands to every layer (5.23, `masking_utils.py`).

With SDPA no mask is made when the kernel can be told that attention is causal: nothing padded, and the window (if any)
longer than the sequence. Otherwise one of booleans, s² of them that all sequences share unless they are padded. Eager
attention always gets one of numbers, (batch, 1, s, s).
"""

from __future__ import annotations

from sizeup.estimate.training.build import Build
from sizeup.estimate.training.runs import Run
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
    filled: bool = False,
    always: bool = False,
) -> Value | None:
    """The mask of the layers with that window; None when the kernel needs none.

    filled: made boolean again (MPT). always: made even where the kernel needs none (Falcon).
    """
    tape, s = build.tape, build.sequence
    needed = always or padding or (window is not None and s >= window)
    if not eager and (flash or not needed):
        return None
    if eager and not causal and not padding:
        return None
    before, tape.label = tape.label, ATTENTION
    own = s * s * (build.batch if padding else 1)
    booleans = tape.value(own, 1)
    if padding or window is not None:
        tape.transient(s * s)
    whole = build.batch * s * s
    mask = tape.value(whole, item or build.method.item) if eager else Value(whole, 1, booleans.storage)
    if filled:
        mask = tape.value(whole, 1)
    del booleans
    tape.label = before
    return mask


def bidirectional_mask(build: Build, queries: int, keys: int, run: Run, window: int | None = None) -> Value | None:
    """The mask of an encoder, or of attention to one's output: only where something is padded, or beyond a window."""
    if run.flash or not (run.padding or (window is not None and keys >= window)):
        return None
    tape = build.tape
    before, tape.label = tape.label, ATTENTION
    n = build.batch * queries * keys
    mask = Value(n, 1, tape.value(n if run.padding else queries * keys, 1).storage)
    if window is not None:
        tape.transient(queries * keys)
    if run.eager:
        mask = tape.value(n, build.method.item)
    tape.label = before
    return mask
