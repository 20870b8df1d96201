"""The loss over a vocabulary that is split over ranks."""

import pytest

from sizeup.estimate.training.loss import cross_entropy
from sizeup.estimate.training.tape import Node, Tape, height, net

TOKENS, VOCABULARY = 512, 8192
LOGITS = TOKENS * VOCABULARY


def peak_bytes(*, split):
    """Bytes of the highest point of loss and backward beside the logits themselves, in fp32."""
    tape = Tape()
    logits = tape.value(LOGITS, 4)
    logits.node, logits.needs = Node([], lambda _g: (), [None]), True
    start = len(tape.log)
    loss = cross_entropy(tape, logits, TOKENS, upcast=False, split=split)
    loss.node.grads[0] = tape.value(1, 4)
    tape.backward()
    return height(tape.log[start:]).top


@pytest.mark.parametrize(("split", "bytes_a_logit"), [(False, 12), (True, 16)])
def test_bytes_a_logit(split, bytes_a_logit):
    """Log-softmax and two gradients; split, log-softmax and three tensors that its gradient is written with."""
    assert peak_bytes(split=split) == pytest.approx(bytes_a_logit * LOGITS, rel=0.01)


def test_nothing_stays():
    tape = Tape()
    logits = tape.value(LOGITS, 4)
    logits.node, logits.needs = Node([], lambda _g: (), [None]), True
    loss = cross_entropy(tape, logits, TOKENS, upcast=False, split=True)
    loss.node.grads[0] = tape.value(1, 4)
    tape.backward()
    tape.nodes.clear()
    del loss
    logits.node = None
    del logits
    assert net(tape.log) == 0
