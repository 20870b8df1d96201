"""From the last hidden state to the loss: the output projection and what a model does to its logits."""

from __future__ import annotations

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures.layer_norms import norm
from sizeup.estimate.training.architectures.ranks import gathered
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.architectures.task_heads import task_loss
from sizeup.estimate.training.basic import cast, copy, cut, scale, whole_size
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.linear import adapted, linear
from sizeup.estimate.training.loss import chunked_cross_entropy, cross_entropy, fused_cross_entropy
from sizeup.estimate.training.program import State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import LOSS, Parameter, Value
from sizeup.estimate.training.tiled_loss import tiled_loss

#: Objectives that score tokens, and what TRL wants of each beside its log-probability.
SCORED = {"dpo": 3, "grpo": 1}


def head_and_loss(build: Build, state: State, shape: DecoderShape, run: Run) -> None:
    """The last segment of the step."""
    tape = build.tape
    tape.label = LOSS
    x = state.hidden
    state.x = None
    if shape.sequence_ways > 1:
        x = tape.result(x.n * shape.sequence_ways, x.item, (x,), whole_size(tape, x.n, x.item))
    if shape.hidden_scale:
        x = scale(tape, x)
    if shape.logits_wide:
        x = cast(tape, x, build.method.item)
    if run.head != "lm":
        state.loss = task_loss(build, x, shape.hidden, shape.task, run)
        return
    if run.loss == "tiled" or run.objective in SCORED:
        state.loss = tiled_loss(build, x, table(build, shape), shape.hidden, outputs=SCORED.get(run.objective, 2))
        return
    if run.loss not in {"standard", "narrow"}:
        state.loss = split_loss(build, shape, run.loss, x)
        return
    if shape.head_dense:
        x = activate(tape, build.linear("lm_head.dense", x, shape.hidden, shape.hidden), shape.head_dense)
        x = norm(build, shape, "lm_head.norm", x, shape.hidden)
    logits = head(build, x, shape.hidden, shape.vocabulary, tied=shape.tied, bias=shape.head_bias)
    if shape.gathers_logits:
        logits = gathered(tape, logits, shape.vocabulary_ways)
    if shape.logit_softcap:
        logits = scale(tape, logits)
        logits = activate(tape, logits, "tanh")
        logits = scale(tape, logits)
    if shape.logit_scale:
        logits = scale(tape, logits)
    if shape.logits_wide:
        logits = cast(tape, logits, 4)
    state.logits = logits
    del logits
    if shape.own_loss or run.loss == "narrow":
        state.loss = shifted_loss(build, state.logits, shape.vocabulary)
        return
    state.loss = cross_entropy(
        tape, state.logits, build.tokens, shifted=shape.way.causal, divided=run.divided, split=run.split_vocabulary
    )


def shifted_loss(build: Build, logits: Value, vocabulary: int) -> Value:
    """The loss of a copy of the logits without those of the last token."""
    rows = build.tokens - build.batch
    before = copy(build.tape, cut(build.tape, logits, rows * vocabulary))
    return cross_entropy(build.tape, before, rows, shifted=False, upcast=False)


def split_loss(build: Build, shape: DecoderShape, kind: str, x: Value) -> Value:
    """Head and loss without whole logits."""
    way = fused_cross_entropy if kind == "fused" else chunked_cross_entropy
    return way(build.tape, x, table(build, shape), build.tokens, shape.hidden)


def table(build: Build, shape: DecoderShape) -> Parameter:
    """The head's weight; a tied one is the embedding."""
    return head_weight(build, shape.hidden, shape.vocabulary, tied=shape.tied)


def head_weight(build: Build, hidden: int, vocabulary: int, *, tied: bool) -> Parameter:
    """The weight that makes logits: its own, the embedding's, or a trained copy of that; never the embedding's copy."""
    n, saved = hidden * vocabulary, build.method.saved
    if not tied:
        return build.weight("lm_head", n, vocabulary, "head")
    shared = build.weight("embed_tokens", n, vocabulary, "embedding")
    if "lm_head" in saved:
        return build.copied("lm_head", shared)
    return build.made[f"{build.scope}embed_tokens.original"] if "embed_tokens" in saved else shared


def head(build: Build, x: Value, hidden: int, vocabulary: int, *, tied: bool, bias: bool = False) -> Value:
    """The output projection, never packed, adapted when it is named; a tied one multiplies with the embedding."""
    table = head_weight(build, hidden, vocabulary, tied=tied)
    offset = build.weight("lm_head.bias", vocabulary) if bias else None
    logits = linear(build.tape, x, table, offset)
    adapter = build.adapter_of("lm_head", hidden, vocabulary, biased=bias) if build.method.targets else None
    return logits if adapter is None else adapted(build.tape, x, logits, adapter)
