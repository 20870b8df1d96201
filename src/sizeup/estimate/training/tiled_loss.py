"""Log-probabilities of the labels without whole logits: TRL's fused head, tile by tile.

Forward, the rows that are scored are gathered, and their logits made in tiles of 4,096 rows and 32,768 words, of which
only sums remain. Backward, each tile is made again; the gradients of rows and of the head are summed in fp32, the
head's as a whole matrix, and then cast. Source: TRL 1.16, `kernels/chunked_logprob.py`, `trainer/utils.py`
(`add_fused_lm_head`), on a device with Triton. SFT, DPO and GRPO run it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import cut, whole_size
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.tape import LOSS, TEMPORARY, WEIGHT_COPIES, Tape, Value

ROWS, WORDS = 4096, 32768
#: Sums over the words that a row has: largest logit, Σ exp, and five more.
SUMS = 7


def tiled_loss(build: Build, x: Value, weight: Value, hidden: int, *, outputs: int) -> Value:
    """The mean of what the last token of each sequence leaves: every other position's label is scored.

    outputs: numbers that are wanted of each row beside the log-probability.
    """
    tape = build.tape
    before, tape.label = tape.label, LOSS
    rows = build.batch * (build.sequence - 1)
    labels, mask = tape.value(build.tokens, 8), tape.value(rows, 1)
    places = [tape.value(rows, 8) for _ in range(2)]
    scored = _gathered(tape, cut(tape, x, rows * hidden), places)
    targets = tape.value(rows, 8)
    found = _log_probabilities(tape, scored, weight, rows, hidden, targets)
    zeros = tape.value(rows, 4)
    spread = tape.result(rows, 4, (found,), whole_size(tape, rows, 4, mask.storage))
    del zeros
    others = [tape.value(rows, 4) for _ in range(outputs)]
    total = tape.result(1, 4, (spread,), lambda _g: (tape.value(rows, 4),))
    del labels, mask, places, scored, targets, found, spread, others
    tape.label = before
    return total


def _gathered(tape: Tape, x: Value, places: list[Value]) -> Value:
    """Rows where a mask is true: a copy; the gradient is zeros with the rows put in."""
    n, item = x.n, x.item
    keep = [place.storage for place in places]

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return (tape.value(n, item),)

    return tape.result(n, item, (x,), backward)


def _log_probabilities(tape: Tape, x: Value, weight: Value, rows: int, hidden: int, targets: Value) -> Value:
    item = tape.autocast or x.item
    words = weight.n // hidden
    tile = min(ROWS, rows) * WORDS * item
    part = min(WORDS, words) * hidden * item if weight.item != item else 0
    lowered = min(ROWS, rows) * hidden * item if x.item != item else 0
    tape.saved()
    sums = [tape.value(rows, 4) for _ in range(SUMS)]
    _transient(tape, tile + lowered, part)
    kept = (x.storage, targets.storage, tape.value(rows, 4).storage, tape.value(rows, 4).storage)
    sizes, items = (x.n, weight.n), (x.item, weight.item)
    wants = (x.needs, weight.needs)

    def backward(_g: Value, _keep: object = kept) -> Sequence[Value | None]:
        tape.label = TEMPORARY
        wide = [tape.value(n, 4) if want else None for n, want in zip(sizes, wants, strict=True)]
        buffer = tape.value(tile + lowered, 1)
        if part:
            tape.transient(part)
        results = [
            grad if grad is None or size == 4 else tape.value(n, size)
            for grad, n, size in zip(wide, sizes, items, strict=True)
        ]
        del wide, buffer
        return results

    found = tape.result(rows, 4, (x, weight), backward)
    del sums
    return found


def _transient(tape: Tape, tile: int, part: int) -> None:
    """A tile of logits, and a cast part of the head where it is of another type."""
    buffer = tape.value(tile, 1)
    if part:
        before, tape.label = tape.label, WEIGHT_COPIES
        tape.transient(part)
        tape.label = before
    del buffer
