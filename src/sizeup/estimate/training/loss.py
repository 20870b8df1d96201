"""From the last hidden state to the loss: the head, fp32 logits, and cross-entropy.

`ForCausalLMLoss` (transformers 5.23): logits to fp32 (a copy when they are 16-bit), the labels moved by one (two small
tensors), log-softmax (kept) and the negative log-likelihood. Backward, 12 bytes a logit are alive at once: the kept
log-softmax, the gradient of the likelihood, and that of the log-softmax. Where the vocabulary is split over ranks,
`loss_parallel` (torch 2.13, `distributed/tensor/parallel/loss.py`) writes both out in Python: 16 bytes a logit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sizeup.estimate.training.basic import add, cast, same_size, scale, split
from sizeup.estimate.training.checkpointing import checkpointed
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.tape import LOSS, Parameter, Tape, Value


def cross_entropy(
    tape: Tape, logits: Value, tokens: int, *, shifted: bool = True, upcast: bool = True, divided: bool = False,
    split: bool = False, labels: Value | None = None,
) -> Value:  # fmt: skip
    """The mean loss of `tokens` rows of logits.

    shifted: labels are moved by one first. upcast: logits are made fp32 outside the loss; otherwise autocast leaves
    the log-softmax in its own type, and only the likelihood takes a copy in fp32.
    divided: the sum is divided by the number of items of all micro-batches. split: each rank has a part of the
    vocabulary.
    """
    before, tape.label = tape.label, LOSS
    wide = cast(tape, logits, 4) if upcast else logits
    labels = _shifted_labels(tape, tokens) if shifted else labels
    if split:
        loss = _split_likelihood(tape, _split_log_softmax(tape, wide), labels)
    else:
        logs = _log_softmax(tape, wide)
        loss = _likelihood(tape, cast(tape, logs, 4) if tape.autocast else logs, labels)
    if divided:
        loss = tape.result(1, 4, (loss,), lambda _g: (tape.value(1, 4),))
    tape.label = before
    return loss


def _shifted_labels(tape: Tape, tokens: int) -> Value:
    padded = tape.value(tokens + 1, 8)
    labels = tape.value(tokens, 8)
    del padded
    return labels


def _log_softmax(tape: Tape, x: Value) -> Value:
    output = tape.value(x.n, x.item)
    tape.saved()
    tape.record((x,), (output,), same_size(tape, output.storage))
    return output


def _likelihood(tape: Tape, x: Value, labels: Value | None) -> Value:
    n, item = x.n, x.item
    output = tape.value(1, item)
    weight = tape.value(1, item)
    keep = (x.storage, weight.storage, None if labels is None else labels.storage)
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return (tape.value(n, item),)

    tape.record((x,), (output,), backward)
    return output


def _split_log_softmax(tape: Tape, x: Value) -> Value:
    """The logits less their maximum, and for a moment the exponentials; the gradient passes, it is complete already."""
    shifted = tape.value(x.n, x.item)
    tape.transient(x.n * x.item)
    output = tape.value(x.n, x.item)
    del shifted
    tape.record((x,), (output,), lambda g: (g,))
    return output


def _split_likelihood(tape: Tape, x: Value, labels: Value | None) -> Value:
    """The likelihood of a rank's part; its gradient is that of the softmax, too: (zeros + exp x) times the incoming."""
    n, item = x.n, x.item
    output = tape.value(1, item)
    keep = (x.storage, None if labels is None else labels.storage)

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        zeros, exponentials = tape.value(n, item), tape.value(n, item)
        both = tape.value(n, item)
        del exponentials
        gradient = tape.value(n, item)
        del zeros, both
        return (gradient,)

    tape.record((x,), (output,), backward)
    return output


CHUNKS = 8


def fused_rows(tokens: int, hidden: int, vocabulary: int) -> int:
    """Tokens whose logits Liger makes at once: as many as make logits no larger than the hidden states, a power of 2.

    Source: Liger-Kernel 0.2.1, `ops/fused_linear_cross_entropy.py`.
    """
    wanted = -(-tokens // -(-vocabulary // hidden))
    return min(tokens, 1 << (wanted - 1).bit_length())


def fused_cross_entropy(tape: Tape, x: Value, weight: Value, tokens: int, hidden: int) -> Value:
    """Head, loss and both gradients in the forward pass, some tokens at a time (Liger; Hsu et al. 2024).

    Kept: the gradients of x and of the head (each part's is added in place). While a part is worked on: its logits,
    once more in fp32 and once as their gradient.
    """
    before, tape.label = tape.label, LOSS
    vocabulary = weight.n // hidden
    rows = fused_rows(tokens, hidden, vocabulary)
    of_input = tape.value(x.n, x.item)
    of_weight = tape.value(weight.n, weight.item) if weight.needs else None
    loss = tape.value(tokens, 4)
    part = rows * vocabulary
    tape.transient(part * x.item, 4 * part, part * x.item)
    total = tape.value(1, 4)
    tape.record((x, weight), (total,), lambda _g, kept=(of_input, of_weight): kept)
    del loss
    tape.label = before
    return total


def chunked_cross_entropy(tape: Tape, x: Value, weight: Parameter, tokens: int, hidden: int) -> Value:
    """Head and loss in eight parts, each under `torch.utils.checkpoint`: x is kept, logits never are.

    The head's gradients of all parts are added up before it gets them: all eight are on its graph from the start.
    """
    before, tape.label = tape.label, LOSS
    rows = -(-tokens // CHUNKS)
    sizes: list[int] = []
    left = tokens
    while left > 0:
        sizes.append(min(left, rows))
        left = left - rows
    labels = _shifted_labels(tape, tokens)
    if weight.needs:
        weight.uses += len(sizes)
    total: Value | None = None
    for size, part in zip(sizes, split(tape, x, [size * hidden for size in sizes]), strict=True):
        loss = checkpointed(tape, _part(tape, weight, size, labels), part)
        total = loss if total is None else add(tape, total, loss)
    tape.label = before
    return scale(tape, total) if total is not None else tape.value(1, 4)


def _part(tape: Tape, weight: Parameter, rows: int, labels: Value) -> Callable[[Value], Value]:
    """The loss of some rows; a part that runs again no longer owes the head its gradient from before."""

    def run(x: Value) -> Value:
        if tape.grad and weight.needs:
            weight.uses -= 1
        return cross_entropy(tape, linear(tape, x, weight), rows, shifted=False, labels=labels)

    return run
