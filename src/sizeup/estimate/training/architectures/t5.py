"""T5 and its kin: an encoder and a decoder with relative position biases and cross-attention.

The bias of the scores is made by the first layer of each stack and handed on; its gradient is collected over all
layers. With SDPA it becomes the kernel's mask, so that attention is `efficient`, never `flash`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import add, cast, dropout, heads, multiply, scale
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.checkpointing import checkpointed
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.loss import cross_entropy
from sizeup.estimate.training.masks import make_mask
from sizeup.estimate.training.norms import inverse_rms
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import ATTENTION, EMBEDDING, LOSS, MLP, NORM, OTHER, Node, Value


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
    parts = []
    for stack, layers in (("encoder", shape.encoder_layers), ("decoder", shape.decoder_layers)):
        parts.append(Segment(f"{stack} start", _starter(shape, run, stack), f"{stack} embedding"))
        kinds: dict[str, Callable[[Build, State], None]] = {}
        for number in range(layers):
            place = "first" if number == 0 else "last" if number == layers - 1 else "middle"
            key = f"{stack} {place}"
            if key not in kinds:
                kinds[key] = _layer_runner(shape, run, stack, first=number == 0)
            parts.append(Segment(key, kinds[key], f"{stack} layer", layer=True))
        parts.append(Segment(f"{stack} norm", _ender(shape, stack), f"{stack} norm"))
    parts.append(Segment("loss", lambda build, state: _loss(build, state, shape, run), "head and loss"))
    return parts


def norm(build: Build, name: str, x: Value, width: int) -> Value:
    """`T5LayerNorm`: only the variance is computed in fp32 from a copy; x itself is multiplied."""
    tape = build.tape
    before, tape.label = tape.label, NORM
    weight = build.weight(name, width)
    normed = multiply(tape, x, inverse_rms(tape, cast(tape, x, 4), width))
    output = multiply(tape, weight, cast(tape, normed, 2) if weight.item == 2 else normed)
    tape.label = before
    return output


def _starter(shape: T5Shape, run: Run, stack: str) -> Callable[[Build, State], None]:
    def start(build: Build, state: State) -> None:
        tape = build.tape
        tape.label = EMBEDDING
        build.scope = ""
        x = build.embedding("shared", shape.vocabulary, shape.hidden, build.tokens)
        if run.input_gradients and not x.needs:
            x = wants_gradient(build, x)
        state.held["embeddings"] = x
        tape.label = OTHER
        eager, causal = run.eager, stack == "decoder"
        state.held["mask"] = make_mask(build, None, padding=run.padding and not causal, eager=eager, causal=causal)
        state.held["cross mask"] = make_mask(build, None, padding=run.padding, eager=eager, causal=False)
        state.x = dropout(tape, x, shape.dropout)

    return start


def _layer_runner(shape: T5Shape, run: Run, stack: str, *, first: bool) -> Callable[[Build, State], None]:
    def forward(build: Build, state: State) -> None:
        build.scope = f"{stack}{len(build.made)}/"
        layer = Layer(build, state, shape, run, stack, first=first)
        if run.checkpoint:
            state.x = checkpointed(build.tape, layer, state.hidden)
        else:
            state.x = layer(state.hidden)
        if first:
            state.held.update(layer.biases)
            if run.checkpoint:
                _collect_gradients(layer.biases)

    return forward


class Layer:
    """One layer of a stack: self-attention, in the decoder cross-attention, feed-forward."""

    def __init__(self, build: Build, state: State, shape: T5Shape, run: Run, stack: str, *, first: bool) -> None:
        self.build, self.shape, self.run, self.first = build, shape, run, first
        self.decoder = stack == "decoder"
        self.scope = build.scope
        self.mask, self.cross_mask = _value(state, "mask"), _value(state, "cross mask")
        self.biases: dict[str, object] = {} if first else {k: v for k, v in state.held.items() if k.endswith("bias")}
        self.encoded = _value(state, "encoded") if self.decoder else None

    def __call__(self, x: Value) -> Value:
        """The stream after the layer."""
        self.build.scope = self.scope
        p, tape = self.shape.dropout, self.build.tape
        y = self.attention("self", norm(self.build, "self_norm", x, self.shape.hidden), None)
        x = add(tape, x, dropout(tape, y, p))
        del y
        if self.decoder:
            y = self.attention("cross", norm(self.build, "cross_norm", x, self.shape.hidden), self.encoded)
            x = add(tape, x, dropout(tape, y, p))
            del y
        y = self.feed_forward(norm(self.build, "ffn_norm", x, self.shape.hidden))
        return add(tape, x, dropout(tape, y, p))

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
        bias = self.bias(kind)
        causal = self.decoder and kind == "self"
        sizes = Heads(
            build.batch, build.sequence, build.sequence,
            shape.head_count, shape.head_count, shape.head_dim, shape.head_dim,
        )  # fmt: skip
        way = Way(eager=self.run.eager, p=shape.dropout, causal=causal, softmax_in_fp32=False)
        y = attend(tape, q, k, v, sizes, way, self.mask if kind == "self" else self.cross_mask, bias)
        y = build.linear(f"{kind}.o", y, width, shape.hidden)
        tape.label = before
        return y

    def bias(self, kind: str) -> Value:
        """The bias that the first layer makes; in cross-attention zeros."""
        found = self.biases.get(f"{kind} bias")
        if isinstance(found, Value):
            return found
        build, shape = self.build, self.shape
        tape, s = build.tape, build.sequence
        n = shape.head_count * s * s
        if kind == "cross":
            made = tape.value(n, 2 if build.method.item == 2 or tape.autocast else 4)
        else:
            made = self.looked_up(n, s)
        self.biases[f"{kind} bias"] = made
        return made

    def looked_up(self, n: int, s: int) -> Value:
        """The table of relative positions looked up for every pair; seen head by head, it must be copied for use."""
        build, shape = self.build, self.shape
        tape = build.tape
        table = build.weight("relative_attention_bias", shape.buckets * shape.head_count, shape.buckets, "embedding")
        tape.transient(8 * s * s, 8 * s * s, 8 * s * s)
        places = tape.value(s * s, 8)
        size, item, keep = table.n, table.item, places.storage

        def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
            return (tape.value(size, item),)

        made = tape.result(n, item, (table,), backward)
        made.strided = True
        return made

    def feed_forward(self, x: Value) -> Value:
        """Plain or gated, with dropout inside."""
        build, shape = self.build, self.shape
        tape = build.tape
        before, tape.label = tape.label, MLP
        h, inner = shape.hidden, shape.ffn
        if shape.gated:
            gate = activate(tape, build.linear("ffn.wi_0", x, h, inner), shape.activation)
            y = multiply(tape, gate, build.linear("ffn.wi_1", x, h, inner))
            del gate
        else:
            y = activate(tape, build.linear("ffn.wi", x, h, inner), shape.activation)
        y = dropout(tape, y, shape.dropout)
        y = build.linear("ffn.wo", cast(tape, y, build.method.item), inner, h)
        tape.label = before
        return y


def _collect_gradients(biases: dict[str, object]) -> None:
    """The biases that a recomputed layer hands on need gradients, the zeros of cross-attention as well."""
    for bias in biases.values():
        if isinstance(bias, Value):
            bias.node, bias.needs = Node([], lambda _g: (), [None]), True


def _value(state: State, name: str) -> Value | None:
    found = state.held.get(name)
    return found if isinstance(found, Value) else None


def _ender(shape: T5Shape, stack: str) -> Callable[[Build, State], None]:
    def end(build: Build, state: State) -> None:
        build.scope = stack
        tape = build.tape
        x = dropout(tape, norm(build, "final_norm", state.hidden, shape.hidden), shape.dropout)
        kept = _value(state, "encoded")
        state.held.clear()
        state.held["encoded"] = x if stack == "encoder" else kept
        state.x = x

    return end


def _loss(build: Build, state: State, shape: T5Shape, run: Run) -> None:
    """The head is tied in transformers 5 and its input scaled; the loss takes the logits as they are."""
    tape = build.tape
    tape.label = LOSS
    build.scope = ""
    x = state.hidden
    state.x = None
    if shape.scaled_output:
        x = scale(tape, x)
    name = "shared" if shape.tied else "lm_head"
    table = build.weight(name, shape.vocabulary * shape.hidden, shape.vocabulary, "embedding" if shape.tied else "head")
    state.logits = linear(tape, x, table)
    state.loss = cross_entropy(tape, state.logits, build.tokens, shifted=False, upcast=False, divided=run.divided)
    state.held.clear()
