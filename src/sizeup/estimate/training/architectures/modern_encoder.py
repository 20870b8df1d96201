"""ModernBERT: norms before the halves, one matrix for query, key and value, gated feed-forwards, rotated heads.

Most layers look only at their neighbourhood; with SDPA that takes a mask of all pairs, and the efficient kernel.
Source: transformers 5.23, `modernbert/modeling_modernbert.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures.task_heads import TaskHead, task_loss
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import add, cast, cut, dropout, heads, join, multiply, scale, split
from sizeup.estimate.training.build import Build, wants_gradient
from sizeup.estimate.training.checkpointing import checkpointed
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.loss import cross_entropy
from sizeup.estimate.training.masks import bidirectional_mask
from sizeup.estimate.training.positions import Rotary
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import ATTENTION, EMBEDDING, LOSS, MLP, OTHER, Tape, Value


class ModernShape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes. windows: of each layer, tokens that it looks at on one side; None where it sees all."""

    hidden: int
    layers: int
    head_count: int
    ffn: int
    vocabulary: int
    windows: tuple[int | None, ...]
    activation: str
    head_activation: str
    embedding_dropout: float
    attention_dropout: float
    mlp_dropout: float
    attention_bias: bool
    mlp_bias: bool
    norm_bias: bool
    classifier_bias: bool
    decoder_bias: bool
    tied: bool
    buffers: tuple[int, ...]
    head: str = "lm"
    labels: int = 2
    task: TaskHead = TaskHead()


def segments(shape: ModernShape, run: Run) -> list[Segment]:
    """The step: embeddings, layers, norm, head and loss. The first layer has no norm before its attention."""
    parts = [Segment("start", lambda build, state: _start(build, state, shape, run), "embedding")]
    kinds: dict[str, Callable[[Build, State], None]] = {}
    for number, window in enumerate(shape.windows):
        recomputed = bool(run.checkpoint) and run.checkpoint[number]
        key = f"{'first ' * (number == 0)}{window or 'global'}{' again' * recomputed}"
        if key not in kinds:
            kinds[key] = _layer_runner(shape, run, window, recomputed=recomputed, first=number == 0)
        parts.append(Segment(key, kinds[key], "layer", layer=True))
    parts.append(Segment("norm", lambda build, state: _norm(build, state, shape), "final norm"))
    parts.append(Segment("loss", lambda build, state: _loss(build, state, shape, run), "head and loss"))
    return parts


def _start(build: Build, state: State, shape: ModernShape, run: Run) -> None:
    tape = build.tape
    tape.label = EMBEDDING
    x = build.embedding("tok_embeddings", shape.vocabulary, shape.hidden, build.tokens)
    if run.input_gradients and not x.needs:
        x = wants_gradient(build, x)
    x = dropout(tape, build.layer_norm("norm", x, shape.hidden, bias=shape.norm_bias), shape.embedding_dropout)
    tape.label = OTHER
    state.held["embeddings"] = x
    s, dim = build.sequence, shape.hidden // shape.head_count
    for window in sorted(set(shape.windows), key=str):
        state.held[f"mask {window}"] = bidirectional_mask(build, s, s, run, window)
        state.held[f"rotary {window}"] = Rotary(tape, s, dim, x.item)
    state.x = x


def _layer_runner(
    shape: ModernShape, run: Run, window: int | None, *, recomputed: bool, first: bool
) -> Callable[[Build, State], None]:
    def forward(build: Build, state: State) -> None:
        build.scope = f"{len(build.made)}/"
        layer = Layer(build, state, shape, run, window, first=first)
        if recomputed:
            state.x = checkpointed(build.tape, layer, state.hidden, selective=run.selective, offload=run.offload)
        else:
            state.x = layer(state.hidden)

    return forward


class Layer:
    """One layer; called, it takes the stream and returns the next."""

    def __init__(
        self, build: Build, state: State, shape: ModernShape, run: Run, window: int | None, *, first: bool
    ) -> None:
        self.build, self.shape, self.run, self.first = build, shape, run, first
        self.scope = build.scope
        mask, rotary = state.held[f"mask {window}"], state.held[f"rotary {window}"]
        self.mask = mask if isinstance(mask, Value) else None
        self.rotary = rotary if isinstance(rotary, Rotary) else None

    def __call__(self, x: Value) -> Value:
        """X + attention(norm(x)), then x + feed-forward(norm(x))."""
        build, shape = self.build, self.shape
        build.scope = self.scope
        y = x if self.first else build.layer_norm("attn_norm", x, shape.hidden, bias=shape.norm_bias)
        attended = self.attention(y)
        x = add(build.tape, x, attended)
        del y
        x = add(build.tape, x, self.feed_forward(build.layer_norm("mlp_norm", x, shape.hidden, bias=shape.norm_bias)))
        del attended
        return x

    def attention(self, x: Value) -> Value:
        """Heads turned in fp32."""
        build, shape, tape = self.build, self.shape, self.build.tape
        before, tape.label = tape.label, ATTENTION
        h, s, count, p = shape.hidden, build.sequence, shape.head_count, shape.attention_dropout
        qkv = heads(tape, build.linear("attn.Wqkv", x, h, 3 * h, bias=shape.attention_bias))
        q, k, v = split(tape, qkv, (x.n, x.n, x.n))
        if self.rotary is not None:
            q, k = turned(tape, q, k, self.rotary)
        way = Way(eager=self.run.eager, p=p, causal=False)
        y = attend(tape, q, k, v, Heads(build.batch, s, s, count, count, h // count, h // count), way, self.mask)
        y = dropout(tape, build.linear("attn.Wo", y, h, h, bias=shape.attention_bias), p)
        tape.label = before
        return y

    def feed_forward(self, x: Value) -> Value:
        """Wo(act(first half) · second half)."""
        build, shape, tape = self.build, self.shape, self.build.tape
        before, tape.label = tape.label, MLP
        both = build.linear("mlp.Wi", x, shape.hidden, 2 * shape.ffn, bias=shape.mlp_bias)
        first, second = split(tape, both, (both.n // 2, both.n // 2))
        y = dropout(tape, multiply(tape, activate(tape, first, shape.activation), second), shape.mlp_dropout)
        y = build.linear("mlp.Wo", y, shape.ffn, shape.hidden, bias=shape.mlp_bias)
        tape.label = before
        return y


def turned(tape: Tape, q: Value, k: Value, rotary: Rotary) -> tuple[Value, Value]:
    """Both in fp32 and cast back when both are done (`apply_rotary_pos_emb`)."""
    wide = [_turned(tape, x, rotary) for x in (q, k)]
    found = [cast(tape, x, q.item) for x in wide]
    return found[0], found[1]


def _turned(tape: Tape, x: Value, rotary: Rotary) -> Value:
    straight = multiply(tape, cast(tape, x, 4), rotary.cos)
    crossed = multiply(tape, _half_turned(tape, cast(tape, x, 4)), rotary.sin)
    return add(tape, straight, crossed)


def _half_turned(tape: Tape, x: Value) -> Value:
    """The negative second half of each head beside its first (`rotate_half`)."""
    first, second = cut(tape, x, x.n // 2), cut(tape, x, x.n // 2)
    return join(tape, (scale(tape, second), first))


def _norm(build: Build, state: State, shape: ModernShape) -> None:
    build.scope = ""
    state.x = build.layer_norm("final_norm", state.hidden, shape.hidden, bias=shape.norm_bias)
    state.held.clear()


def _loss(build: Build, state: State, shape: ModernShape, run: Run) -> None:
    """Projection, activation and norm of every token, but where only one vector a sequence is wanted; then the head."""
    tape = build.tape
    tape.label, build.scope = LOSS, ""
    x, h = state.hidden, shape.hidden
    state.x = None
    if run.head not in {"classification", "embedding"}:
        y = activate(tape, build.linear("head.dense", x, h, h, bias=shape.classifier_bias), shape.head_activation)
        x = build.layer_norm("head.norm", y, h, bias=shape.norm_bias)
        del y
    if run.head != "lm":
        state.loss = task_loss(build, x, h, shape.task, run)
        return
    name, kind = ("tok_embeddings", "embedding") if shape.tied else ("decoder", "head")
    table = build.weight(name, shape.vocabulary * h, shape.vocabulary, kind)
    offset = build.weight("decoder.bias", shape.vocabulary) if shape.decoder_bias else None
    state.logits = linear(tape, x, table, offset)
    state.loss = cross_entropy(tape, state.logits, build.tokens, shifted=False, divided=run.divided)
