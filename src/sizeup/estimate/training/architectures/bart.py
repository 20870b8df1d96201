"""BART and its kin (mBART, Pegasus, Marian …): encoder and decoder with learned positions and cross-attention."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import add, dropout, heads, scale
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.checkpointing import checkpointed
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.loss import cross_entropy
from sizeup.estimate.training.masks import make_mask
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import ATTENTION, EMBEDDING, LOSS, MLP, OTHER, Value


class BartShape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes. pre_norm: norms before the halves and at the end of each stack (mBART, Pegasus), else after the halves.

    positions: rows of each stack's learned table; fixed_positions: of one of sines, that doesn't train.
    embedding_norm: embeddings are normed.
    """

    hidden: int
    encoder_layers: int
    decoder_layers: int
    head_count: int
    ffn: int
    vocabulary: int
    activation: str
    dropout: float
    attention_dropout: float
    activation_dropout: float
    positions: int
    fixed_positions: int
    pre_norm: bool
    embedding_norm: bool
    scaled: bool

    @property
    def layers(self) -> int:
        """Layers of both stacks."""
        return self.encoder_layers + self.decoder_layers

    @property
    def buffers(self) -> tuple[int, ...]:
        """The bias of the logits, which doesn't train."""
        return (4 * self.vocabulary,)

    @property
    def head_dim(self) -> int:
        """Length of a head."""
        return self.hidden // self.head_count


def segments(shape: BartShape, run: Run) -> list[Segment]:
    """The step: encoder, decoder, head and loss."""
    parts = []
    for stack, layers in (("encoder", shape.encoder_layers), ("decoder", shape.decoder_layers)):
        parts.append(Segment(f"{stack} start", _starter(shape, run, stack), f"{stack} embedding"))
        kinds: dict[str, Callable[[Build, State], None]] = {}
        for number in range(layers):
            place = "first" if number == 0 else "last" if number == layers - 1 else "middle"
            key = f"{stack} {place}"
            kinds.setdefault(key, _layer_runner(shape, run, stack))
            parts.append(Segment(key, kinds[key], f"{stack} layer", layer=True))
        parts.append(Segment(f"{stack} end", _ender(shape, stack), f"{stack} end"))
    parts.append(Segment("loss", lambda build, state: _loss(build, state, shape, run), "head and loss"))
    return parts


def _starter(shape: BartShape, run: Run, stack: str) -> Callable[[Build, State], None]:
    def start(build: Build, state: State) -> None:
        tape = build.tape
        tape.label, build.scope = EMBEDDING, ""
        x = build.embedding("shared", shape.vocabulary, shape.hidden, build.tokens)
        if run.input_gradients and not x.needs:
            x = wants_gradient(build, x)
        if shape.scaled:
            x = scale(tape, x)
        state.held["embeddings"] = x
        build.scope = stack
        if shape.positions:
            places = build.embedding("embed_positions", shape.positions, shape.hidden, build.sequence)
        else:
            build.frozen("embed_positions", shape.fixed_positions * shape.hidden)
            places = tape.value(build.sequence * shape.hidden, x.item)
        x = add(tape, x, places)
        del places
        if shape.embedding_norm:
            x = build.layer_norm("layernorm_embedding", x, shape.hidden)
        tape.label = OTHER
        causal = stack == "decoder"
        state.held["mask"] = make_mask(build, None, padding=run.padding and not causal, eager=run.eager, causal=causal)
        state.held["cross mask"] = make_mask(build, None, padding=run.padding, eager=run.eager, causal=False)
        state.x = dropout(tape, x, shape.dropout)

    return start


def _layer_runner(shape: BartShape, run: Run, stack: str) -> Callable[[Build, State], None]:
    def forward(build: Build, state: State) -> None:
        build.scope = f"{stack}{len(build.made)}/"
        layer = Layer(build, state, shape, run, stack)
        state.x = checkpointed(build.tape, layer, state.hidden) if run.checkpoint else layer(state.hidden)

    return forward


class Layer:
    """One layer of a stack; called, it takes the stream and returns the next."""

    def __init__(self, build: Build, state: State, shape: BartShape, run: Run, stack: str) -> None:
        self.build, self.shape, self.run = build, shape, run
        self.decoder = stack == "decoder"
        self.scope = build.scope
        self.mask, self.cross_mask = _value(state, "mask"), _value(state, "cross mask")
        self.encoded = _value(state, "encoded") if self.decoder else None

    def __call__(self, x: Value) -> Value:
        """Self-attention, in the decoder cross-attention, feed-forward: each with its norm, dropout and residual."""
        self.build.scope = self.scope
        x = self.half("self_attn", x, lambda y: self.attention("self_attn", y, None))
        if self.decoder:
            x = self.half("encoder_attn", x, lambda y: self.attention("encoder_attn", y, self.encoded))
        return self.half("final", x, self.feed_forward)

    def half(self, name: str, x: Value, inner: Callable[[Value], Value]) -> Value:
        """X + dropout(inner(x)), normed before or after."""
        residual = x
        if self.shape.pre_norm:
            x = self.build.layer_norm(f"{name}_layer_norm", x, self.shape.hidden)
        x = dropout(self.build.tape, inner(x), self.shape.dropout)
        x = add(self.build.tape, residual, x)
        if not self.shape.pre_norm:
            x = self.build.layer_norm(f"{name}_layer_norm", x, self.shape.hidden)
        return x

    def attention(self, name: str, x: Value, other: Value | None) -> Value:
        """Self- or cross-attention."""
        build, shape = self.build, self.shape
        tape, h = build.tape, shape.hidden
        before, tape.label = tape.label, ATTENTION
        source = x if other is None else other
        q = heads(tape, build.linear(f"{name}.q_proj", x, h, h, bias=True))
        k = heads(tape, build.linear(f"{name}.k_proj", source, h, h, bias=True))
        v = heads(tape, build.linear(f"{name}.v_proj", source, h, h, bias=True))
        s, count, dim = build.sequence, shape.head_count, shape.head_dim
        sizes = Heads(build.batch, s, s, count, count, dim, dim)
        causal = self.decoder and other is None
        way = Way(eager=self.run.eager, p=shape.attention_dropout, causal=causal, softmax_in_fp32=False)
        y = attend(tape, q, k, v, sizes, way, self.mask if other is None else self.cross_mask)
        y = build.linear(f"{name}.out_proj", y, h, h, bias=True)
        tape.label = before
        return y

    def feed_forward(self, x: Value) -> Value:
        """fc2(dropout(act(fc1(x))))."""
        build, shape = self.build, self.shape
        tape = build.tape
        before, tape.label = tape.label, MLP
        y = activate(tape, build.linear("fc1", x, shape.hidden, shape.ffn, bias=True), shape.activation)
        y = build.linear("fc2", dropout(tape, y, shape.activation_dropout), shape.ffn, shape.hidden, bias=True)
        tape.label = before
        return y


def _value(state: State, name: str) -> Value | None:
    found = state.held.get(name)
    return found if isinstance(found, Value) else None


def _ender(shape: BartShape, stack: str) -> Callable[[Build, State], None]:
    def end(build: Build, state: State) -> None:
        build.scope = stack
        x = state.hidden
        if shape.pre_norm:
            x = build.layer_norm("layer_norm", x, shape.hidden)
        kept = _value(state, "encoded")
        state.held.clear()
        state.held["encoded"] = x if stack == "encoder" else kept
        state.x = x

    return end


def _loss(build: Build, state: State, shape: BartShape, run: Run) -> None:
    """The head is tied; a bias that doesn't train is added to the logits, which the loss takes as they are."""
    tape = build.tape
    tape.label, build.scope = LOSS, ""
    x = state.hidden
    state.x = None
    table = build.weight("shared", shape.vocabulary * shape.hidden, shape.vocabulary, "embedding")
    logits = linear(tape, x, table)
    bias = Value(shape.vocabulary, logits.item if build.method.item == 2 else 4, None)
    state.logits = add(tape, logits, bias)
    del logits
    state.loss = cross_entropy(tape, state.logits, build.tokens, shifted=False, upcast=False, divided=run.divided)
    state.held.clear()
