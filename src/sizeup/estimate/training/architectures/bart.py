"""BART and its kin (mBART, Pegasus, Marian, M2M-100, Blenderbot, Whisper …): layer norms, biases, plain feed-forwards.

What they differ in: where the norms stand, how positions come in, and whether the encoder reads words or sound.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures import encoder_decoder
from sizeup.estimate.training.architectures.audio import Audio, audio_embeddings
from sizeup.estimate.training.architectures.encoder_decoder import DECODER, Parts, StackLayer, hand_over
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import add, dropout, heads, laid_by_heads, scale, whole_size
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.loss import cross_entropy
from sizeup.estimate.training.masks import bidirectional_mask, make_mask
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.tape import ATTENTION, EMBEDDING, LOSS, MLP, OTHER, Value

ID = 8


class BartShape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes. pre_norm: norms before the halves and at the end of each stack (mBART, Pegasus), else after the halves.

    positions: how they come in: `learned`, `sines` (a table that doesn't train), `looked up` (sines for every sequence
    apart, M2M-100), `indexed` (learned, for every sequence apart, Whisper's decoder). rows: of each stack's table.
    embedding_norm: where embeddings are normed: nowhere, `sum` (with their positions), or `words` in the decoder
    (Blenderbot small). key_bias: keys have one. by_heads: queries, keys and values are copied head by head. audio:
    what the encoder reads instead of words. head_bias: a bias that doesn't train is added to the logits.
    eager_only: attention is always written in Python.
    """

    hidden: int
    encoder_layers: int
    decoder_layers: int
    head_count: int
    decoder_heads: int
    ffn: int
    decoder_ffn: int
    vocabulary: int
    activation: str
    dropout: float
    attention_dropout: float
    activation_dropout: float
    positions: str
    rows: int
    pre_norm: bool
    embedding_norm: str
    scaled: bool
    key_bias: bool = True
    by_heads: bool = False
    audio: Audio | None = None
    head_bias: bool = True
    eager_only: bool = False

    @property
    def layers(self) -> int:
        """Layers of both stacks."""
        return self.encoder_layers + self.decoder_layers

    @property
    def buffers(self) -> tuple[int, ...]:
        """The bias of the logits, which doesn't train."""
        return (4 * self.vocabulary,) if self.head_bias else ()

    def input_sizes(self, setting: TrainSetting) -> tuple[int, ...]:
        """Words or mel features, a mask of words where something is padded, and labels."""
        labels = ID * setting.sequences * (setting.target_sequence or setting.sequence)
        if self.audio is not None:
            features = setting.sequences * self.audio.bins * 2 * self.audio.positions
            return features * setting.weight_item, labels
        words = ID * setting.sequences * setting.sequence
        return (words, words, labels) if setting.padding else (words, labels)


def segments(shape: BartShape, run: Run) -> list[Segment]:
    """The step: encoder, decoder, head and loss."""
    run = msgspec.structs.replace(run, eager=run.eager or shape.eager_only)
    parts = Parts(
        start=lambda build, state, stack: _start(build, state, shape, run, stack),
        layer=lambda build, state, stack, **_: Layer(build, state, shape, run, stack),
        end=lambda build, state, stack: _end(build, state, shape, stack),
        loss=lambda build, state: _loss(build, state, shape, run),
    )
    return encoder_decoder.segments(shape.encoder_layers, shape.decoder_layers, parts, run)


def _start(build: Build, state: State, shape: BartShape, run: Run, stack: str) -> None:
    tape, decoder = build.tape, stack == DECODER
    tape.label = EMBEDDING
    if shape.audio is not None and not decoder:
        build.source = build.sequence = shape.audio.positions
        state.x = dropout(tape, audio_embeddings(build, shape.audio, shape.hidden, run), shape.dropout)
        return
    build.scope = ""
    ids = tape.value(build.tokens, 8) if decoder else None
    x = build.embedding("shared", shape.vocabulary, shape.hidden, build.tokens, ids=ids)
    if run.input_gradients and not x.needs:
        x = wants_gradient(build, x)
    if shape.scaled:
        x = scale(tape, x)
    build.scope = stack
    words = decoder and shape.embedding_norm == "words"
    if words:
        x = build.layer_norm("layernorm_embedding", x, shape.hidden)
    places = _places(build, shape, x.item)
    state.held |= {"ids": ids, "embeddings": x, "places": places}
    x = add(tape, x, places)
    if shape.embedding_norm and not words:
        x = build.layer_norm("layernorm_embedding", x, shape.hidden)
    tape.label = OTHER
    if decoder:
        state.held["mask"] = make_mask(build, None, padding=False, eager=run.eager)
    else:
        state.held["mask"] = bidirectional_mask(build, build.source, build.source, run)
    if decoder and shape.audio is None:
        state.held["cross mask"] = bidirectional_mask(build, build.target, build.source, run)
    state.x = dropout(tape, x, shape.dropout)


def _places(build: Build, shape: BartShape, item: int) -> Value:
    """The embeddings of the positions."""
    tape, h = build.tape, shape.hidden
    if shape.positions == "learned":
        return build.embedding("embed_positions", shape.rows, h, build.sequence, ids=tape.value(build.sequence, 8))
    if shape.positions == "indexed":
        table = build.weight("embed_positions", shape.rows * h, shape.rows, "embedding")
        numbers = tape.value(build.tokens, 8)
        back = whole_size(tape, table.n, table.item, numbers.storage)
        return tape.result(build.tokens * h, table.item, (table,), back)
    build.frozen("embed_positions", shape.rows * h)
    return tape.value((build.sequence if shape.positions == "sines" else build.tokens) * h, item)


class Layer(StackLayer):
    """One layer of a stack."""

    def __init__(self, build: Build, state: State, shape: BartShape, run: Run, stack: str) -> None:
        super().__init__(build, state, stack)
        self.shape, self.run = shape, run

    def forward(self, x: Value) -> Value:
        """Self-attention, in the decoder cross-attention, feed-forward: each with its norm, dropout and residual."""
        x = self.half("self_attn", x, lambda y: self.attention("self_attn", y, None))
        if self.decoder:
            x = self.half("encoder_attn", x, lambda y: self.attention("encoder_attn", y, self.encoded))
        return self.half("final", x, self.feed_forward)

    def half(self, name: str, x: Value, inner: Callable[[Value], Value]) -> Value:
        """X + dropout(inner(x)), normed before or after."""
        build, norm = self.build, f"{name}_layer_norm"
        y = inner(build.layer_norm(norm, x, self.shape.hidden)) if self.shape.pre_norm else inner(x)
        y = dropout(build.tape, y, self.shape.dropout)
        y = add(build.tape, x, y)
        if not self.shape.pre_norm:
            y = build.layer_norm(norm, y, self.shape.hidden)
        return y

    def attention(self, name: str, x: Value, other: Value | None) -> Value:
        """Self- or cross-attention."""
        build, shape = self.build, self.shape
        tape, h = build.tape, shape.hidden
        before, tape.label = tape.label, ATTENTION
        source = x if other is None else other
        q = build.linear(f"{name}.q_proj", x, h, h, bias=True)
        q = heads(tape, scale(tape, q) if shape.by_heads else q)
        q = laid_by_heads(tape, q) if shape.by_heads else q
        k = heads(tape, build.linear(f"{name}.k_proj", source, h, h, bias=shape.key_bias))
        k = laid_by_heads(tape, k) if shape.by_heads else k
        v = heads(tape, build.linear(f"{name}.v_proj", source, h, h, bias=True))
        v = laid_by_heads(tape, v) if shape.by_heads else v
        count = shape.decoder_heads if self.decoder else shape.head_count
        keys = build.sequence if other is None else build.source
        sizes = Heads(build.batch, build.sequence, keys, count, count, h // count, h // count)
        causal = self.decoder and other is None
        way = Way(eager=self.run.eager, p=shape.attention_dropout, causal=causal, softmax_in_fp32=False)
        y = attend(tape, q, k, v, sizes, way, self.mask if other is None else self.cross_mask)
        y = build.linear(f"{name}.out_proj", y, h, h, bias=True)
        tape.label = before
        return y

    def feed_forward(self, x: Value) -> Value:
        """fc2(dropout(act(fc1(x))))."""
        build, shape = self.build, self.shape
        tape, inner = build.tape, shape.decoder_ffn if self.decoder else shape.ffn
        before, tape.label = tape.label, MLP
        x = activate(tape, build.linear("fc1", x, shape.hidden, inner, bias=True), shape.activation)
        x = dropout(tape, x, shape.activation_dropout)
        x = build.linear("fc2", x, inner, shape.hidden, bias=True)
        tape.label = before
        return x


def _end(build: Build, state: State, shape: BartShape, stack: str) -> None:
    x = state.hidden
    if shape.pre_norm:
        x = build.layer_norm("layer_norm", x, shape.hidden)
    hand_over(state, x, stack)


def _loss(build: Build, state: State, shape: BartShape, run: Run) -> None:
    """The head is tied; the loss takes the logits as they are, with the bias that doesn't train."""
    tape = build.tape
    tape.label, build.scope = LOSS, ""
    x = state.hidden
    state.x = None
    table = build.weight("shared", shape.vocabulary * shape.hidden, shape.vocabulary, "embedding")
    logits = linear(tape, x, table)
    if shape.head_bias:
        bias = Value(shape.vocabulary, logits.item if build.method.item == 2 else 4, None)
        logits = add(tape, logits, bias)
    state.logits = logits
    del logits
    state.loss = cross_entropy(tape, state.logits, build.tokens, shifted=False, upcast=False, divided=run.divided)
    state.held.clear()
