"""From the last hidden state to the loss: the head, fp32 logits, and cross-entropy.

`ForCausalLMLoss` (transformers 5.23): logits to fp32 (a copy when they are 16-bit), the labels moved by one (two small
tensors), log-softmax (kept) and the negative log-likelihood. Backward, 12 bytes a logit are alive at once: the kept
log-softmax, the gradient of the likelihood, and that of the log-softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.estimate.training.basic import cast
from sizeup.estimate.training.tape import LOSS, Tape, Value


def cross_entropy(tape: Tape, logits: Value, tokens: int, *, shifted: bool = True, upcast: bool = True, divided: bool = False) -> Value:
    """The mean loss of `tokens` rows of logits.

    shifted: labels are moved by one first. upcast: logits are made fp32 outside the loss.
    divided: the sum is divided by the number of items of all micro-batches.
    """
    before, tape.label = tape.label, LOSS
    wide = cast(tape, logits, 4) if upcast or tape.autocast else logits
    labels = _shifted_labels(tape, tokens) if shifted else None
    loss = _likelihood(tape, _log_softmax(tape, wide), tokens, labels)
    if divided:
        loss = tape.result(1, 4, (loss,), lambda g: (tape.value(1, 4),))
    tape.label = before
    return loss


def _shifted_labels(tape: Tape, tokens: int) -> Value:
    padded = tape.value(tokens + 1, 8)
    labels = tape.value(tokens, 8)
    del padded
    return labels


def _log_softmax(tape: Tape, x: Value) -> Value:
    output = tape.value(x.n, x.item)
    keep = output.storage
    tape.record((x,), (output,), lambda g, _keep=keep: (tape.value(g.n, g.item),))
    return output


def _likelihood(tape: Tape, x: Value, tokens: int, labels: Value | None) -> Value:
    n, item = x.n, x.item
    output = tape.value(1, item)
    weight = tape.value(1, item)
    keep = (x.storage, weight.storage, None if labels is None else labels.storage)

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return (tape.value(n, item),)

    tape.record((x,), (output,), backward)
    return output
