"""BERT and its kin (RoBERTa, DistilBERT, ELECTRA, CamemBERT …): an encoder with a head that fills in masked words.

embeddings of words, kinds and positions → norm → layers (attention, feed-forward; each normed after its residual) →
head (projection, activation, norm, words) → loss
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import add, dropout, heads
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.checkpointing import checkpointed
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.loss import cross_entropy
from sizeup.estimate.training.masks import make_mask
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import ATTENTION, EMBEDDING, LOSS, MLP, OTHER, Value


class EncoderShape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes. positions: rows of the learned table. kinds: rows of the table of sentence kinds (0: none).

    narrow: width of the embeddings, projected to `hidden` where they differ (ELECTRA). counted: positions are counted
    from the words (RoBERTa), for every sequence apart. tied: the head multiplies with the embedding. drops_attention:
    the attention's output passes dropout (not DistilBERT's).
    """

    hidden: int
    layers: int
    head_count: int
    ffn: int
    vocabulary: int
    positions: int
    kinds: int
    activation: str
    head_activation: str
    dropout: float
    attention_dropout: float
    narrow: int
    counted: bool
    tied: bool
    buffers: tuple[int, ...]
    drops_attention: bool = True


def segments(shape: EncoderShape, run: Run) -> list[Segment]:
    """The step: embeddings, layers, head and loss."""
    parts = [Segment("start", lambda build, state: _start(build, state, shape, run), "embedding")]
    kinds: dict[str, Callable[[Build, State], None]] = {}
    for number in range(shape.layers):
        recomputed = bool(run.checkpoint) and run.checkpoint[number]
        key = f"{'first ' * (number == 0)}layer{' again' * recomputed}"
        if key not in kinds:
            kinds[key] = _layer_runner(shape, run, recomputed=recomputed)
        parts.append(Segment(key, kinds[key], "layer", layer=True))
    parts.append(Segment("loss", lambda build, state: _loss(build, state, shape), "head and loss"))
    return parts


def _start(build: Build, state: State, shape: EncoderShape, run: Run) -> None:
    tape = build.tape
    tape.label = EMBEDDING
    x = build.embedding("word_embeddings", shape.vocabulary, shape.narrow, build.tokens)
    if run.input_gradients and not x.needs:
        x = wants_gradient(build, x)
    if shape.kinds:
        x = add(tape, x, build.embedding("token_type_embeddings", shape.kinds, shape.narrow, build.tokens))
    rows = build.tokens if shape.counted else build.sequence
    x = add(tape, x, build.embedding("position_embeddings", shape.positions, shape.narrow, rows))
    x = dropout(tape, build.layer_norm("LayerNorm", x, shape.narrow), shape.dropout)
    if shape.narrow != shape.hidden:
        x = build.linear("embeddings_project", x, shape.narrow, shape.hidden, bias=True)
    tape.label = OTHER
    state.held["mask"] = make_mask(build, None, padding=run.padding, eager=run.eager, flash=run.flash, causal=False)
    state.x = x


def _layer_runner(shape: EncoderShape, run: Run, *, recomputed: bool) -> Callable[[Build, State], None]:
    def forward(build: Build, state: State) -> None:
        build.scope = f"{len(build.made)}/"
        layer = Layer(build, state, shape, run)
        if recomputed:
            state.x = checkpointed(build.tape, layer, state.hidden, selective=run.selective, offload=run.offload)
        else:
            state.x = layer(state.hidden)

    return forward


class Layer:
    """One layer; called, it takes the stream and returns the next."""

    def __init__(self, build: Build, state: State, shape: EncoderShape, run: Run) -> None:
        self.build, self.shape, self.run = build, shape, run
        self.scope = build.scope
        mask = state.held.get("mask")
        self.mask = mask if isinstance(mask, Value) else None

    def __call__(self, x: Value) -> Value:
        """Norm(x + attention(x)), then norm(x + feed-forward(x))."""
        self.build.scope = self.scope
        p = self.shape.dropout
        x = self.normed("attention.output.LayerNorm", x, self.attention(x), p if self.shape.drops_attention else 0.0)
        return self.normed("output.LayerNorm", x, self.feed_forward(x), p)

    def normed(self, name: str, x: Value, branch: Value, p: float) -> Value:
        """The norm of a branch, after dropout, and what it was made from."""
        branch = dropout(self.build.tape, branch, p)
        return self.build.layer_norm(name, add(self.build.tape, branch, x), self.shape.hidden)

    def attention(self, x: Value) -> Value:
        """Every token sees every other."""
        build, shape = self.build, self.shape
        tape, h = build.tape, shape.hidden
        before, tape.label = tape.label, ATTENTION
        q, k, v = (
            heads(tape, build.linear(f"attention.self.{name}", x, h, h, bias=True))
            for name in ("query", "key", "value")
        )
        s, count, dim = build.sequence, shape.head_count, h // shape.head_count
        way = Way(eager=self.run.eager, p=shape.attention_dropout, causal=False, softmax_in_fp32=False)
        y = attend(tape, q, k, v, Heads(build.batch, s, s, count, count, dim, dim), way, self.mask)
        y = build.linear("attention.output.dense", y, h, h, bias=True)
        tape.label = before
        return y

    def feed_forward(self, x: Value) -> Value:
        """output(act(intermediate(x)))."""
        build, shape = self.build, self.shape
        before, build.tape.label = build.tape.label, MLP
        y = build.linear("intermediate.dense", x, shape.hidden, shape.ffn, bias=True)
        y = build.linear("output.dense", activate(build.tape, y, shape.activation), shape.ffn, shape.hidden, bias=True)
        build.tape.label = before
        return y


def _loss(build: Build, state: State, shape: EncoderShape) -> None:
    """Projection, activation and norm, then the words with a bias; the loss takes the logits as they are."""
    tape = build.tape
    tape.label, build.scope = LOSS, ""
    x = build.linear("head.dense", state.hidden, shape.hidden, shape.narrow, bias=True)
    state.x = None
    x = build.layer_norm("head.LayerNorm", activate(tape, x, shape.head_activation), shape.narrow)
    n = shape.vocabulary * shape.narrow
    name, kind = ("word_embeddings", "embedding") if shape.tied else ("head.decoder", "head")
    table = build.weight(name, n, shape.vocabulary, kind)
    state.logits = linear(tape, x, table, build.weight("head.bias", shape.vocabulary))
    state.loss = cross_entropy(tape, state.logits, build.tokens, shifted=False, upcast=False)
    state.held.clear()
