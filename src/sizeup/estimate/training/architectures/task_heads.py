"""Heads that don't write words: one label a sequence, one a token, where an answer lies, or a vector of a sequence.

They are small beside the layers; what counts is the gradient of the stream, a whole tensor where only one token of it
was looked at. The loss of vectors is that of sentence-transformers' in-batch negatives: anchors and their partners go
through the model as one batch, and each anchor is matched with all partners.
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.basic import cast, cut, dropout, multiply, scale, split, whole_size
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.loss import cross_entropy
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.scores import Heads, product
from sizeup.estimate.training.tape import Value


class TaskHead(msgspec.Struct, frozen=True):
    """How a family makes its heads.

    scores_all: every token gets the labels, of which the last one's are taken (decoders). dense: the first token
    passes a layer before its labels, which is one of the head (RoBERTa) or of the model. activation: of that layer.
    dropout: before the labels. bias: the labels have one.
    """

    scores_all: bool = False
    dense: bool = True
    dense_in_head: bool = False
    activation: str = "tanh"
    dropout: float = 0.1
    bias: bool = True


def task_loss(build: Build, x: Value, hidden: int, task: TaskHead, run: Run) -> Value:
    """The loss of the head that the step trains."""
    if run.head == "embedding":
        return contrast(build, x, hidden)
    if run.head == "classification":
        return _classified(build, x, hidden, task, run)
    labels = 2 if run.head == "question" else run.labels
    if run.head == "tokens":
        x = dropout(build.tape, x, task.dropout)
    logits = build.head_linear("classifier", x, hidden, labels, bias=True)
    if run.head == "question":
        logits, _ends = split(build.tape, logits, (logits.n // 2, logits.n // 2))
        return cross_entropy(build.tape, logits, build.batch, shifted=False, upcast=False)
    return cross_entropy(build.tape, logits, build.tokens, shifted=False, upcast=False)


def _classified(build: Build, x: Value, hidden: int, task: TaskHead, run: Run) -> Value:
    tape, batch = build.tape, build.batch
    if task.scores_all:
        scores = build.head_linear("score", x, hidden, run.labels, bias=task.bias)
        logits = tape.result(batch * run.labels, scores.item, (scores,), whole_size(tape, scores.n, scores.item))
        return cross_entropy(tape, logits, batch, shifted=False, upcast=False)
    first = cut(tape, x, batch * hidden)
    if task.dense:
        dense = build.head_linear if task.dense_in_head else build.linear
        first = activate(tape, dense("pooler.dense", first, hidden, hidden, bias=True), task.activation)
    first = dropout(tape, first, task.dropout)
    logits = build.head_linear("classifier", first, hidden, run.labels, bias=task.bias)
    return cross_entropy(tape, logits, batch, shifted=False, upcast=False)


def contrast(build: Build, x: Value, hidden: int) -> Value:
    """Means over the tokens, scaled to length one; every anchor times every partner."""
    tape, batch = build.tape, build.batch
    mean = tape.result(batch * hidden, x.item, (x,), whole_size(tape, x.n, x.item))
    length = tape.result(batch, mean.item, (mean,), whole_size(tape, mean.n, mean.item, mean.storage))
    vectors = multiply(tape, mean, length)
    anchors, partners = split(tape, vectors, (vectors.n // 2, vectors.n // 2))
    if tape.autocast:
        anchors, partners = cast(tape, anchors, tape.autocast), cast(tape, partners, tape.autocast)
    half = batch // 2
    scores = scale(tape, product(tape, anchors, partners, half * half, Heads(1, half, half, 1, 1, hidden, hidden)))
    return cross_entropy(tape, scores, half, shifted=False, upcast=False)
