"""BERT and its kin (RoBERTa, DistilBERT, ELECTRA, ALBERT, DeBERTa …): every token sees every other, norms after halves.

embeddings of words, kinds and positions → norm → layers (attention, feed-forward; each normed after its residual) →
head (masked words: projection, activation, norm, words; or another task's) → loss
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures.biased_attention import Biased, biased_attention, shared_bias
from sizeup.estimate.training.architectures.disentangled import (
    Disentangled,
    disentangled_attention,
    distances,
    pair_mask,
    relative_table,
)
from sizeup.estimate.training.architectures.modern_encoder import turned
from sizeup.estimate.training.architectures.task_heads import TaskHead, task_loss
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import add, dropout, heads, multiply, scale
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.checkpointing import checkpointed
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.loss import cross_entropy
from sizeup.estimate.training.masks import bidirectional_mask
from sizeup.estimate.training.positions import Rotary
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import ATTENTION, EMBEDDING, LOSS, MLP, OTHER, Value


class EncoderShape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes. positions: rows of the learned table (0: none). kinds: rows of the table of sentence kinds (0: none).

    narrow: width of the embeddings, projected to `hidden` where they differ (ELECTRA). counted: positions are
    counted from the words (RoBERTa), for every sequence apart. tied: the head multiplies with the embedding.
    drops_attention: the attention's output passes dropout (not DistilBERT's); drops_output: so does the
    feed-forward's (not ALBERT's). shares: all layers are one (ALBERT). disentangled: words and distances are scored
    apart (DeBERTa). biased: scores have a bias for every distance (MPNet). head, labels: what it is trained for;
    task: how its heads are made. pooler: the bare model ends with a layer of which no gradient is wanted where
    nothing takes its output. pre_norm: norms before the halves and after the layers. embedding_norm: one before
    them, too. scaled_queries, rotary: queries are scaled, and turned with the keys, before attention (ESM).
    drops_embeddings: they pass dropout. bias_apart: the words' bias is added to their logits. names_normed: what
    the feed-forward reads has a name until the layer returns. drops_words: words that are masked are left out, and
    the rest weighs more.
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
    drops_output: bool = True
    shares: bool = False
    disentangled: Disentangled | None = None
    biased: Biased | None = None
    head: str = "lm"
    labels: int = 2
    task: TaskHead = TaskHead()
    pooler: bool = True
    pre_norm: bool = False
    embedding_norm: bool = True
    scaled_queries: bool = False
    rotary: bool = False
    drops_embeddings: bool = True
    bias_apart: bool = False
    names_normed: bool = False
    drops_words: bool = False

    @property
    def gathers(self) -> bool:
        """Whether layers share something whose gradient is collected, so that the last one's is the first to come."""
        return self.shares or self.disentangled is not None or self.biased is not None


def segments(shape: EncoderShape, run: Run) -> list[Segment]:
    """The step: embeddings, layers, head and loss."""
    parts = [Segment("start", lambda build, state: _start(build, state, shape, run), "embedding")]
    kinds: dict[str, Callable[[Build, State], None]] = {}
    for number in range(shape.layers):
        recomputed = bool(run.checkpoint) and run.checkpoint[number]
        last = shape.gathers and number == shape.layers - 1
        key = f"{'first ' * (number == 0)}{'last ' * last}layer{' again' * recomputed}"
        if key not in kinds:
            kinds[key] = _layer_runner(shape, run, recomputed=recomputed)
        parts.append(Segment(key, kinds[key], "layer", layer=True))
    parts.append(Segment("loss", lambda build, state: _loss(build, state, shape, run), "head and loss"))
    return parts


def _start(build: Build, state: State, shape: EncoderShape, run: Run) -> None:
    tape = build.tape
    tape.label = EMBEDDING
    if shape.disentangled is not None:
        state.held["seen"] = None if run.padding else tape.value(build.tokens, 4)
    x = build.embedding("word_embeddings", shape.vocabulary, shape.narrow, build.tokens)
    if run.input_gradients and not x.needs:
        x = wants_gradient(build, x)
    if shape.drops_words:
        x = scale(tape, x)
    zeros = tape.value(x.n, x.item) if shape.disentangled is not None and not shape.positions else None
    if shape.kinds:
        x = add(tape, x, build.embedding("token_type_embeddings", shape.kinds, shape.narrow, build.tokens))
    if shape.positions:
        rows, ids = (build.tokens, tape.value(build.tokens, 8)) if shape.counted else (build.sequence, None)
        x = add(tape, x, build.embedding("position_embeddings", shape.positions, shape.narrow, rows, ids=ids))
        del ids
    if shape.embedding_norm:
        x = build.layer_norm("LayerNorm", x, shape.narrow)
    if shape.disentangled is not None:
        x = multiply(tape, x, tape.value(build.tokens, x.item))
    x = dropout(tape, x, shape.dropout if shape.drops_embeddings else 0.0)
    del zeros
    words = x
    if shape.narrow != shape.hidden:
        x = build.linear("embeddings_project", x, shape.narrow, shape.hidden, bias=True)
    state.held["embeddings"] = words if shape.shares else x
    del words
    tape.label = OTHER
    _shared(build, state, shape, run, x.item)
    state.x = x


def _shared(build: Build, state: State, shape: EncoderShape, run: Run, item: int) -> None:
    """What all layers read beside the stream: masks, distances, biases."""
    if shape.disentangled is not None:
        state.held["mask"] = pair_mask(build, padding=run.padding)
        state.held["distances"] = distances(build, shape.disentangled)
        state.held["relative"] = relative_table(build, shape.disentangled, shape.hidden)
        return
    how = msgspec.structs.replace(run, eager=True) if shape.biased is not None else run
    state.held["mask"] = bidirectional_mask(build, build.sequence, build.sequence, how)
    if shape.rotary:
        state.held["rotary"] = Rotary(build.tape, build.sequence, shape.hidden // shape.head_count, item)
    if shape.biased is not None:
        state.held["bias"] = shared_bias(build, shape.biased, shape.head_count)


def _layer_runner(shape: EncoderShape, run: Run, *, recomputed: bool) -> Callable[[Build, State], None]:
    def forward(build: Build, state: State) -> None:
        """The layer; DeBERTa's encoder returns the streams after all of them."""
        build.scope = "layer/" if shape.shares else f"{len(build.made)}/"
        layer = Layer(build, state, shape, run)
        if recomputed:
            state.x = checkpointed(build.tape, layer, state.hidden, selective=run.selective, offload=run.offload)
        else:
            state.x = layer(state.hidden)
        if shape.disentangled is not None:
            x = state.hidden
            state.returned.append(Value(x.n, x.item, x.storage))

    return forward


class Layer:
    """One layer; called, it takes the stream and returns the next."""

    def __init__(self, build: Build, state: State, shape: EncoderShape, run: Run) -> None:
        self.build, self.shape, self.run = build, shape, run
        self.scope = build.scope
        rotary = state.held.get("rotary")
        self.rotary = rotary if isinstance(rotary, Rotary) else None
        self.held = {name: value for name, value in state.held.items() if isinstance(value, Value)}

    def __call__(self, x: Value) -> Value:
        """Norm(x + attention(x)), then norm(x + feed-forward(x))."""
        self.build.scope = self.scope
        p = self.shape.dropout
        if self.shape.pre_norm:
            return self.normed_first(x)
        x = self.normed("attention.output.LayerNorm", x, self.attention(x), p if self.shape.drops_attention else 0.0)
        return self.normed("output.LayerNorm", x, self.feed_forward(x), p if self.shape.drops_output else 0.0)

    def normed_first(self, x: Value) -> Value:
        """X + attention(norm(x)), then x + feed-forward(norm(x))."""
        build, p, h = self.build, self.shape.dropout, self.shape.hidden
        y = self.attention(build.layer_norm("attention.LayerNorm", x, h))
        x = add(build.tape, dropout(build.tape, y, p), x)
        del y
        normed = [build.layer_norm("LayerNorm", x, h)]
        y = self.feed_forward(normed[0] if self.shape.names_normed else normed.pop())
        return add(build.tape, dropout(build.tape, y, p if self.shape.drops_output else 0.0), x)

    def normed(self, name: str, x: Value, branch: Value, p: float) -> Value:
        """The norm of a branch, after dropout, and what it was made from."""
        branch = dropout(self.build.tape, branch, p)
        return self.build.layer_norm(name, add(self.build.tape, branch, x), self.shape.hidden)

    def attention(self, x: Value) -> Value:
        """Every token sees every other."""
        build, shape, held = self.build, self.shape, self.held
        tape, h, p = build.tape, shape.hidden, shape.attention_dropout
        before, tape.label = tape.label, ATTENTION
        if shape.disentangled is not None:
            y = disentangled_attention(build, shape.disentangled, x, h, shape.head_count, (p, shape.dropout), held)
        else:
            q, k, v = (
                heads(tape, build.linear(f"attention.self.{name}", x, h, h, bias=True))
                for name in ("query", "key", "value")
            )
            s, count, dim = build.sequence, shape.head_count, h // shape.head_count
            q = scale(tape, q) if shape.scaled_queries else q
            if self.rotary is not None:
                q, k = turned(tape, q, k, self.rotary)
            sizes = Heads(build.batch, s, s, count, count, dim, dim)
            if shape.biased is not None:
                y = biased_attention(tape, q, k, v, sizes, p, held.get("mask"), held["bias"])
            else:
                way = Way(eager=self.run.eager, p=p, causal=False, softmax_in_fp32=False)
                y = attend(tape, q, k, v, sizes, way, held.get("mask"))
        y = build.linear("attention.output.dense", y, h, h, bias=True)
        tape.label = before
        return y

    def feed_forward(self, x: Value) -> Value:
        """output(act(intermediate(x)))."""
        build, shape = self.build, self.shape
        before, build.tape.label = build.tape.label, MLP
        x = build.linear("intermediate.dense", x, shape.hidden, shape.ffn, bias=True)
        x = activate(build.tape, x, shape.activation)
        x = build.linear("output.dense", x, shape.ffn, shape.hidden, bias=True)
        build.tape.label = before
        return x


def _loss(build: Build, state: State, shape: EncoderShape, run: Run) -> None:
    build.tape.label, build.scope = LOSS, ""
    x = state.hidden
    state.x = None
    if shape.pre_norm:
        x = build.layer_norm("LayerNorm_after", x, shape.hidden)
    state.held.clear()
    if run.head == "embedding" and shape.pooler:
        build.unused_linear("pooler.dense", shape.hidden, shape.hidden)
    if run.head == "lm":
        _words(build, state, shape, x)
    else:
        state.loss = task_loss(build, x, shape.hidden, shape.task, run)


def _words(build: Build, state: State, shape: EncoderShape, x: Value) -> None:
    """Projection, activation and norm, then the words with a bias; the loss takes the logits as they are."""
    tape = build.tape
    x = build.linear("head.dense", x, shape.hidden, shape.narrow, bias=True)
    x = build.layer_norm("head.LayerNorm", activate(tape, x, shape.head_activation), shape.narrow)
    n = shape.vocabulary * shape.narrow
    name, kind = ("word_embeddings", "embedding") if shape.tied else ("head.decoder", "head")
    table = build.weight(name, n, shape.vocabulary, kind)
    bias = build.weight("head.bias", shape.vocabulary)
    x = add(tape, linear(tape, x, table), bias) if shape.bias_apart else linear(tape, x, table, bias)
    state.logits = x
    del x
    state.loss = cross_entropy(tape, state.logits, build.tokens, shifted=False, upcast=False)
