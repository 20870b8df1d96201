"""From the last hidden state to the loss: the head, fp32 logits, and cross-entropy.

`ForCausalLMLoss` (transformers 5.23): logits to fp32 (a copy when they are 16-bit), the labels moved by one (two small
tensors), log-softmax (kept) and the negative log-likelihood. Backward, 12 bytes a logit are alive at once: the kept
log-softmax, the gradient of the likelihood, and that of the log-softmax. Where the vocabulary is split over ranks,
`loss_parallel` (torch 2.13, `distributed/tensor/parallel/loss.py`) writes both out in Python: 16 bytes a logit.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import cast, same_size
from sizeup.estimate.training.tape import LOSS, TEMPORARY, Tape, Value


def cross_entropy(
    tape: Tape, logits: Value, tokens: int, *, shifted: bool = True, upcast: bool = True, divided: bool = False,
    split: bool = False,
) -> Value:  # fmt: skip
    """The mean loss of `tokens` rows of logits.

    shifted: labels are moved by one first. upcast: logits are made fp32 outside the loss; otherwise autocast leaves
    the log-softmax in its own type, and only the likelihood takes a copy in fp32.
    divided: the sum is divided by the number of items of all micro-batches. split: each rank has a part of the
    vocabulary.
    """
    before, tape.label = tape.label, LOSS
    wide = cast(tape, logits, 4) if upcast else logits
    labels = _shifted_labels(tape, tokens) if shifted else None
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
    tape.record((x,), (output,), same_size(tape, output.storage))
    return output


def _likelihood(tape: Tape, x: Value, labels: Value | None) -> Value:
    n, item = x.n, x.item
    output = tape.value(1, item)
    weight = tape.value(1, item)
    keep = (x.storage, weight.storage, None if labels is None else labels.storage)

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


def chunked_cross_entropy(tape: Tape, x: Value, weight: Value, tokens: int, hidden: int) -> Value:
    """Head and loss in eight parts, each recomputed in the backward pass: x is kept, logits never are.

    A part's backward pass holds its logits and, in fp32, the logits, their log-softmax and its gradient.
    """
    before, tape.label = tape.label, LOSS
    part = -(-tokens // CHUNKS) * (weight.n // hidden)
    sizes = (part * x.item, 4 * part, 4 * part, 4 * part)
    tape.transient(*sizes[:3])
    keep, n, item, total = x.storage, x.n, x.item, weight.n
    wanted = weight.needs

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        tape.label = TEMPORARY
        of_input = tape.value(n, item)
        of_weight = tape.value(total, weight_item) if wanted else None
        tape.transient(*sizes, *([total * weight_item] if wanted else []))
        return of_input, of_weight

    weight_item = weight.item
    loss = tape.result(1, 4, (x, weight), backward)
    tape.label = before
    return loss
