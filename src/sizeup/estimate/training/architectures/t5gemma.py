"""T5Gemma: two stacks of Gemma 2's layers, the second with cross-attention between its halves.

Source: transformers 5.23, `models/t5gemma/modeling_t5gemma.py`. Scores are capped, so attention is written in Python.
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures import encoder_decoder
from sizeup.estimate.training.architectures.decoder import tables
from sizeup.estimate.training.architectures.encoder_decoder import DECODER, Parts, StackLayer, hand_over
from sizeup.estimate.training.architectures.layer import Layer
from sizeup.estimate.training.architectures.layer_norms import norm
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import add, dropout, heads, scale
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.loss import cross_entropy
from sizeup.estimate.training.masks import bidirectional_mask, make_mask
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import ATTENTION, EMBEDDING, LOSS, OTHER, Value


class T5GemmaShape(msgspec.Struct, frozen=True, kw_only=True):
    """encoder, decoder: their sizes and habits as decoders have them. dropout: after embeddings, halves and norms."""

    encoder: DecoderShape
    decoder: DecoderShape
    dropout: float

    @property
    def hidden(self) -> int:
        """Width of the stream."""
        return self.decoder.hidden

    @property
    def layers(self) -> int:
        """Layers of both stacks."""
        return self.encoder.layers + self.decoder.layers

    @property
    def head_count(self) -> int:
        """Heads of an attention."""
        return self.decoder.head_count

    @property
    def ffn(self) -> int:
        """Inner width of a feed-forward."""
        return self.decoder.ffn

    @property
    def buffers(self) -> tuple[int, ...]:
        """Frequencies of the rotation, of each stack and as they were."""
        return tuple(2 * stack.head_dim for stack in (self.encoder, self.decoder) for _ in range(2))

    def of(self, stack: str) -> DecoderShape:
        """One of the two stacks."""
        return self.decoder if stack == DECODER else self.encoder


def segments(shape: T5GemmaShape, run: Run) -> list[Segment]:
    """The step: encoder, decoder, head and loss."""
    parts = Parts(
        start=lambda build, state, stack: _start(build, state, shape, run, stack),
        layer=lambda build, state, stack, number, **_: GemmaLayer(build, state, shape, run, stack, number),
        end=lambda build, state, stack: _end(build, state, shape, stack),
        loss=lambda build, state: _loss(build, state, shape, run),
        kind=lambda stack, number: str(_window(shape.of(stack), number) or ""),
    )
    return encoder_decoder.segments(shape.encoder.layers, shape.decoder.layers, parts, run)


def _window(shape: DecoderShape, number: int) -> int | None:
    return shape.windows[number] if shape.windows else None


def _start(build: Build, state: State, shape: T5GemmaShape, run: Run, stack: str) -> None:
    tape, own, decoder = build.tape, shape.of(stack), stack == DECODER
    tape.label = EMBEDDING
    ids = tape.value(build.tokens, 8) if decoder else None
    x = build.embedding("embed_tokens", own.vocabulary, own.hidden, build.tokens, ids=ids)
    if run.input_gradients and not x.needs:
        x = wants_gradient(build, x)
    state.held |= {"ids": ids, "embeddings": x}
    x = dropout(tape, scale(tape, x), shape.dropout)
    tape.label = OTHER
    eager = msgspec.structs.replace(run, eager=run.eager or own.eager_only)
    for window in sorted(set(own.windows or (None,)), key=str):
        name = f"mask {window}"
        if decoder:
            state.held[name] = make_mask(build, window, padding=False, eager=eager.eager, flash=run.flash)
        else:
            state.held[name] = bidirectional_mask(build, build.source, build.source, eager, window)
    if decoder:
        state.held["cross mask"] = bidirectional_mask(build, build.target, build.source, eager)
    state.held["rotary"] = tables(build, own, x.item)
    state.x = x


class GemmaLayer(StackLayer):
    """A layer of a stack: Gemma 2's, with another attention between its halves in the decoder."""

    def __init__(self, build: Build, state: State, shape: T5GemmaShape, run: Run, stack: str, number: int) -> None:
        super().__init__(build, state, stack)
        self.own, self.run, self.p = shape.of(stack), run, shape.dropout
        self.width = shape.encoder.hidden
        self.gemma = Layer(build, state, self.own, run, sparse=False, window=_window(self.own, number))

    def forward(self, x: Value) -> Value:
        """Every part with a norm before and after it."""
        gemma = self.gemma
        x = self.half("self_attn", x, gemma.attention(gemma.norm("pre_self_attn_layernorm", x)))
        if self.decoder:
            x = self.half("cross_attn", x, self.cross(gemma.norm("pre_cross_attn_layernorm", x)))
        return self.half("feedforward", x, gemma.feed_forward(gemma.norm("pre_feedforward_layernorm", x)))

    def half(self, name: str, x: Value, inner: Value) -> Value:
        """X + dropout(norm(inner))."""
        inner = self.gemma.norm(f"post_{name}_layernorm", inner)
        return add(self.build.tape, x, dropout(self.build.tape, inner, self.p))

    def cross(self, x: Value) -> Value:
        """Attention to the encoder's output, without positions."""
        build, own, tape = self.build, self.own, self.build.tape
        before, tape.label = tape.label, ATTENTION
        source = self.encoded if self.encoded is not None else x
        width, small, b = own.head_count * own.head_dim, own.kv_heads * own.head_dim, own.qkv_bias
        q = heads(tape, build.linear("cross_attn.q_proj", x, own.hidden, width, bias=b))
        k = heads(tape, build.linear("cross_attn.k_proj", source, self.width, small, bias=b))
        v = heads(tape, build.linear("cross_attn.v_proj", source, self.width, small, bias=b))
        sizes = Heads(
            build.batch, build.sequence, build.source, own.head_count, own.kv_heads, own.head_dim, own.head_dim
        )
        way: Way = msgspec.structs.replace(self.gemma.way(), causal=False)
        y = attend(tape, q, k, v, sizes, way, self.cross_mask)
        y = build.linear("cross_attn.o_proj", y, width, own.hidden, bias=own.output_bias)
        tape.label = before
        return y


def _end(build: Build, state: State, shape: T5GemmaShape, stack: str) -> None:
    own = shape.of(stack)
    hand_over(state, dropout(build.tape, norm(build, own, "norm", state.hidden, own.hidden), shape.dropout), stack)


def _loss(build: Build, state: State, shape: T5GemmaShape, run: Run) -> None:
    """The head is the decoder's embedding; logits may be capped."""
    tape, own = build.tape, shape.decoder
    tape.label, build.scope = LOSS, DECODER
    decoded = state.hidden
    state.x = None
    name, kind = ("embed_tokens", "embedding") if own.tied else ("lm_head", "head")
    logits = linear(tape, decoded, build.weight(name, own.vocabulary * own.hidden, own.vocabulary, kind))
    if own.logit_softcap:
        logits = scale(tape, logits)
        logits = activate(tape, logits, "tanh")
        logits = scale(tape, logits)
    state.logits = logits
    del logits
    state.loss = cross_entropy(tape, state.logits, build.tokens, shifted=False, divided=run.divided)
    state.held.clear()
