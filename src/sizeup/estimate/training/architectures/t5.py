"""T5 and its kin: an encoder and a decoder with relative position biases and cross-attention.

The bias of the scores is made by the first layer of each stack and handed on; its gradient is collected over all
layers. With SDPA it becomes the kernel's mask, so that attention is `efficient`, never `flash`.
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures import encoder_decoder
from sizeup.estimate.training.architectures.encoder_decoder import DECODER, Parts, StackLayer, hand_over, held
from sizeup.estimate.training.architectures.relative_positions import position_bias
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import add, cast, dropout, heads, multiply, scale
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.loss import cross_entropy
from sizeup.estimate.training.masks import bidirectional_mask, make_mask
from sizeup.estimate.training.norms import inverse_rms
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import ATTENTION, EMBEDDING, LOSS, MLP, NORM, OTHER, Node, Value

#: The attentions of a layer, in the order in which they run.
KINDS = ("self", "cross")


class T5Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a T5. buckets: rows of the table of relative positions. own_bias: every layer has its own (UMT5)."""

    hidden: int
    encoder_layers: int
    decoder_layers: int
    head_count: int
    head_dim: int
    ffn: int
    vocabulary: int
    gated: bool
    activation: str
    dropout: float
    buckets: int
    tied: bool
    scaled_output: bool
    own_bias: bool = False

    @property
    def layers(self) -> int:
        """Layers of both stacks."""
        return self.encoder_layers + self.decoder_layers

    @property
    def buffers(self) -> tuple[int, ...]:
        """It has none."""
        return ()


def segments(shape: T5Shape, run: Run) -> list[Segment]:
    """The step: encoder, decoder, head and loss."""
    parts = Parts(
        start=lambda build, state, stack: _start(build, state, shape, run, stack),
        layer=lambda build, state, stack, number: Layer(build, state, shape, run, stack, first=number == 0),
        end=lambda build, state, stack: _end(build, state, shape, stack),
        loss=lambda build, state: _loss(build, state, shape, run),
    )
    return encoder_decoder.segments(shape.encoder_layers, shape.decoder_layers, parts, run)


def norm(build: Build, name: str, x: Value, width: int) -> Value:
    """`T5LayerNorm`: only the variance is computed in fp32 from a copy; x itself is multiplied."""
    tape = build.tape
    before, tape.label = tape.label, NORM
    weight = build.weight(name, width)
    normed = multiply(tape, x, inverse_rms(tape, cast(tape, x, 4), width))
    output = multiply(tape, weight, cast(tape, normed, 2) if weight.item == 2 else normed)
    tape.label = before
    return output


def _start(build: Build, state: State, shape: T5Shape, run: Run, stack: str) -> None:
    tape, decoder = build.tape, stack == DECODER
    tape.label, build.scope = EMBEDDING, ""
    ids = tape.value(build.tokens, 8) if decoder else None
    x = build.embedding("shared", shape.vocabulary, shape.hidden, build.tokens, ids=ids)
    if run.input_gradients and not x.needs:
        x = wants_gradient(build, x)
    state.held["ids"], state.held["embeddings"] = ids, x
    tape.label = OTHER
    if decoder:
        state.held["mask"] = make_mask(build, None, padding=False, eager=run.eager)
    else:
        state.held["mask"] = bidirectional_mask(build, build.source, build.source, run)
    state.held["cross mask"] = bidirectional_mask(build, build.target, build.source, run) if decoder else None
    state.x = dropout(tape, x, shape.dropout)


class Layer(StackLayer):
    """One layer of a stack: self-attention, in the decoder cross-attention, feed-forward."""

    def __init__(self, build: Build, state: State, shape: T5Shape, run: Run, stack: str, *, first: bool) -> None:
        super().__init__(build, state, stack)
        self.shape, self.run = shape, run
        self.given = {} if first or shape.own_bias else {kind: held(state, f"{kind} bias") for kind in KINDS}
        self.biases: dict[str, Value] = {}
        self.lasting, self.handed = state.lasting, False

    def hand_on(self, state: State) -> None:
        """The biases of the first layer are those of all."""
        if not self.shape.own_bias:
            state.held.update({f"{kind} bias": bias for kind, bias in self.biases.items()})
        self.handed = True

    def forward(self, x: Value) -> Value:
        """The stream after the layer."""
        self.made.values.clear()
        self.biases = {kind: bias for kind, bias in self.given.items() if bias is not None}
        p, tape = self.shape.dropout, self.build.tape
        y = self.attention("self", norm(self.build, "self_norm", x, self.shape.hidden), None)
        x = self.bounded(add(tape, x, dropout(tape, y, p)))
        del y
        if self.decoder:
            y = self.attention("cross", norm(self.build, "cross_norm", x, self.shape.hidden), self.encoded)
            x = self.bounded(add(tape, x, dropout(tape, y, p)))
            del y
        y = self.feed_forward(norm(self.build, "ffn_norm", x, self.shape.hidden))
        x = self.bounded(add(tape, x, dropout(tape, y, p)))
        if self.handed:
            self.biases = {}
        return x

    def bounded(self, x: Value) -> Value:
        """The stream within what fp16 can say, where it is in fp16: looked at for infinities, then clamped."""
        tape, n, item = self.build.tape, x.n, x.item
        if not self.build.method.half:
            return x
        tape.transient(n * item, n)
        tape.saved()

        def backward(g: Value, _keep: object = x.storage) -> list[Value | None]:
            tape.transient(n, n)
            return [tape.value(n, g.item)]

        return tape.result(n, item, (x,), backward)

    def attention(self, kind: str, x: Value, other: Value | None) -> Value:
        """Self- or cross-attention with the stack's bias."""
        build, shape = self.build, self.shape
        tape = build.tape
        before, tape.label = tape.label, ATTENTION
        width = shape.head_count * shape.head_dim
        source = x if other is None else other
        q = heads(tape, build.linear(f"{kind}.q", x, shape.hidden, width))
        k = heads(tape, build.linear(f"{kind}.k", source, shape.hidden, width))
        v = heads(tape, build.linear(f"{kind}.v", source, shape.hidden, width))
        keys = build.sequence if other is None else build.source
        bias = self.biases.get(kind) or self.own_bias(kind, keys)
        count, dim = shape.head_count, shape.head_dim
        sizes = Heads(build.batch, build.sequence, keys, count, count, dim, dim)
        way = Way(eager=self.run.eager, p=shape.dropout, causal=self.decoder and other is None, softmax_in_fp32=False)
        y = attend(tape, q, k, v, sizes, way, self.mask if other is None else self.cross_mask, bias)
        y = build.linear(f"{kind}.o", y, width, shape.hidden)
        tape.label = before
        return y

    def own_bias(self, kind: str, keys: int) -> Value:
        """The bias that this layer makes; in cross-attention zeros, which want a gradient where layers run again."""
        build, shape = self.build, self.shape
        tape = build.tape
        if kind == "self":
            name = "relative_attention_bias"
            made = position_bias(build, name, shape.buckets, shape.head_count, bidirectional=not self.decoder)
            wanted = build.method.train and build.method.train_embeddings
        else:
            made = tape.value(shape.head_count * build.sequence * keys, tape.autocast or build.method.item)
            wanted = bool(self.run.checkpoint)
            if wanted and not shape.own_bias:
                made.node, made.needs = Node([], lambda _g: (), [None]), tape.grad
                self.lasting.append(made.node if tape.grad else Value(made.n, made.item, made.storage))
        if not shape.own_bias:
            self.biases[kind] = made
        if wanted and not shape.own_bias:
            self.made.values.append(made)
        return made

    def feed_forward(self, x: Value) -> Value:
        """Plain or gated, with dropout inside."""
        build, shape = self.build, self.shape
        tape = build.tape
        before, tape.label = tape.label, MLP
        h, inner = shape.hidden, shape.ffn
        names: list[Value] = []
        if shape.gated:
            names.append(activate(tape, build.linear("ffn.wi_0", x, h, inner), shape.activation))
            names.append(build.linear("ffn.wi_1", x, h, inner))
            y = multiply(tape, names[0], names[1])
        else:
            y = activate(tape, build.linear("ffn.wi", x, h, inner), shape.activation)
        y = cast(tape, dropout(tape, y, shape.dropout), build.method.item)
        y = build.linear("ffn.wo", y, inner, h, wide=True)
        names.clear()
        tape.label = before
        return y


def _end(build: Build, state: State, shape: T5Shape, stack: str) -> None:
    x = dropout(build.tape, norm(build, "final_norm", state.hidden, shape.hidden), shape.dropout)
    hand_over(state, x, stack)


def _loss(build: Build, state: State, shape: T5Shape, run: Run) -> None:
    """The head is tied in transformers 5 and its input scaled; the loss takes the logits as they are."""
    tape = build.tape
    tape.label, build.scope = LOSS, ""
    decoded = state.hidden
    state.x = None
    x = scale(tape, decoded) if shape.scaled_output else decoded
    name = "shared" if shape.tied else "lm_head"
    table = build.weight(name, shape.vocabulary * shape.hidden, shape.vocabulary, "embedding" if shape.tied else "head")
    state.logits = linear(tape, x, table)
    state.loss = cross_entropy(tape, state.logits, build.tokens, shifted=False, upcast=False, divided=run.divided)
    state.held.clear()
