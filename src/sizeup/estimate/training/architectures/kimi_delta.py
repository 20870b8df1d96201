"""Kimi's delta attention (Kimi Linear, 2025) as transformers 5.23 trains it where no kernel package is installed.

A gated delta net whose decay is one of each channel (`chunk_kimi_delta_attention`): the decay between two tokens of a
chunk is a vector, so that pairs are products of 64 · head_dim for each token and head, three of which are kept; the
triangular system is solved row by row in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.architectures.causal_convolution import causal_convolution, without_padding
from sizeup.estimate.training.architectures.gated_delta import CHUNK, strictly_upper
from sizeup.estimate.training.architectures.gated_norm import gated_norm
from sizeup.estimate.training.architectures.reordered import seen
from sizeup.estimate.training.architectures.sums import padded, running_sum
from sizeup.estimate.training.basic import (
    add,
    cast,
    copy,
    cut,
    heads,
    join,
    multiply,
    pointwise,
    scale,
    shift,
    split,
)
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.loops import repeat
from sizeup.estimate.training.tape import STATE_SPACE, Tape, Value
from sizeup.estimate.training.tensors import (
    chosen,
    divide,
    masked_fill,
    matmul,
    square_root,
    subtract,
    summed,
    turned,
    written,
)

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer

NAME = "self_attn"


class KimiDelta(msgspec.Struct, frozen=True):
    """heads of head_dim; kernel: taps of the convolution. whole: decay and gate are projected in one step each.

    safe: the decay is the sigmoid of what is projected, not its softplus (of whole ones).
    """

    heads: int
    head_dim: int
    kernel: int
    whole: bool = False
    safe: bool = False

    @property
    def width(self) -> int:
        """Width of all heads."""
        return self.heads * self.head_dim

    def __call__(self, layer: Layer, x: Value) -> Value:
        """The mixer's output."""
        build, tape = layer.build, layer.build.tape
        before, tape.label = tape.label, STATE_SPACE
        y = _mixed(build, x, layer.shape.hidden, self, padding=layer.run.padding)
        tape.label = before
        return y


def _mixed(build: Build, x: Value, hidden: int, d: KimiDelta, *, padding: bool) -> Value:
    """`KimiLinearDeltaAttention.forward`."""
    tape, n = build.tape, build.tokens * d.width
    x = without_padding(tape, x, padding=padding)
    mixed = _joined(build, x, hidden, d)
    mixed = causal_convolution(build, f"{NAME}.conv1d", mixed, 3 * d.width, d.kernel, activation="silu")
    if not d.whole:
        mixed = cut(tape, mixed, mixed.n)
    query, key, value = [heads(tape, part) for part in split(tape, mixed, (n, n, n))]
    g = (_whole_decay if d.whole else _decay)(build, x, hidden, d)
    beta = build.linear(f"{NAME}.b_proj", x, hidden, d.heads)
    beta = pointwise(tape, seen(tape, beta, copied_back=True), keeps_output=True)
    output = chunk_rule(build, query, key, value, g, beta, d)
    gate = _gate(build, x, hidden, d)
    output = gated_norm(build, f"{NAME}.o_norm", output, gate, d.head_dim, activation="sigmoid", wide=True)
    return build.linear(f"{NAME}.o_proj", output, d.width, hidden)


def _gate(build: Build, x: Value, hidden: int, d: KimiDelta) -> Value:
    if d.whole:
        return build.linear(f"{NAME}.g_proj", x, hidden, d.width)
    low = build.linear(f"{NAME}.g_a_proj", x, hidden, d.head_dim)
    return build.linear(f"{NAME}.g_b_proj", low, d.head_dim, d.width)


def _joined(build: Build, x: Value, hidden: int, d: KimiDelta) -> Value:
    parts = [build.linear(f"{NAME}.{name}_proj", x, hidden, d.width) for name in "qkv"]
    return turned(build.tape, join(build.tape, parts))


def _decay(build: Build, x: Value, hidden: int, d: KimiDelta) -> Value:
    """-exp(A) · softplus(f + bias) in fp32, the softplus written out (`KimiLinearForgetGate`)."""
    tape = build.tape
    low = build.linear(f"{NAME}.forget_gate.f_a_proj", x, hidden, d.head_dim)
    forget = build.linear(f"{NAME}.forget_gate.f_b_proj", low, d.head_dim, d.width)
    del low
    bias = build.weight(f"{NAME}.forget_gate.dt_bias", d.width)
    g = add(tape, cast(tape, forget, 4), cast(tape, bias, 4))
    rate = cast(tape, build.weight(f"{NAME}.forget_gate.A_log", d.heads), 4)
    decay_rate = pointwise(tape, rate, keeps_output=True)
    above = tape.value(g.n, 1)
    soft = pointwise(tape, shift(tape, pointwise(tape, g, keeps_output=True)))
    soft = chosen(tape, above, g, soft)
    del above
    return multiply(tape, scale(tape, decay_rate), soft)


def _whole_decay(build: Build, x: Value, hidden: int, d: KimiDelta) -> Value:
    """The same from one projection (`BailingHybridForgetGate`), cast to the stream's type."""
    tape, item = build.tape, x.item
    given = cast(tape, build.linear(f"{NAME}.forget_gate.f_proj", x, hidden, d.width), 4)
    given = add(tape, given, build.weight(f"{NAME}.forget_gate.dt_bias", d.width))
    rate: Value = build.weight(f"{NAME}.forget_gate.A_log", d.heads)
    rate = pointwise(tape, cast(tape, rate, 4) if tape.autocast else rate, keeps_output=True)
    if d.safe:
        gate = scale(tape, pointwise(tape, multiply(tape, rate, given), keeps_output=True))
    else:
        gate = multiply(tape, scale(tape, rate), pointwise(tape, given))
    return cast(tape, gate, item)


def chunk_rule(build: Build, query: Value, key: Value, value: Value, g: Value, beta: Value, d: KimiDelta) -> Value:
    """`chunk_kimi_delta_attention`, with the names that it has."""
    tape, item, tokens = build.tape, query.item, build.tokens
    query, key, value, beta, g = [_in_order(tape, x) for x in (query, key, value, beta, g)]
    query = l2norm(tape, query, d.head_dim)
    key = l2norm(tape, key, d.head_dim)
    chunks = (build.sequence + CHUNK - 1) // CHUNK
    rows = build.batch * d.heads * chunks
    n, whole = rows * CHUNK * d.head_dim, rows * CHUNK
    query = scale(tape, padded(tape, query, n))
    key, value, g = padded(tape, key, n), padded(tape, value, n), padded(tape, g, n)
    beta = padded(tape, beta, whole)
    v_beta = multiply(tape, value, beta)
    k_beta = multiply(tape, key, beta)
    g = running_sum(tape, g)
    mask, strict = strictly_upper(tape), strictly_upper(tape)
    decay = masked_fill(tape, subtract(tape, g, g, n * CHUNK), strict)
    decay = pointwise(tape, decay, keeps_output=True)
    attn = multiply(tape, _pairs(tape, k_beta, key, n * CHUNK), decay)
    attn = scale(tape, masked_fill(tape, summed(tape, attn, whole * CHUNK), mask))
    attn, names = _forward_substitution(tape, attn, rows)
    eye = tape.value(CHUNK * CHUNK, 4)
    attn = add(tape, attn, eye)
    del eye
    value = matmul(tape, attn, v_beta, n)
    k_cumdecay = matmul(tape, attn, multiply(tape, k_beta, pointwise(tape, g, keeps_output=True)), n)
    chain = Chain(tape, build.batch * d.heads, d, value)
    mask = strictly_upper(tape)
    parts = (query, key, value, g, k_cumdecay, decay)
    repeat(tape, chunks, lambda: chain.step(parts, mask))
    output = chain.output()
    if whole > tokens * d.heads:
        output = cut(tape, output, tokens * d.width)
    output = cast(tape, copy(tape, turned(tape, output)), item)
    output.strided = False
    names.clear()
    return output


def _in_order(tape: Tape, x: Value) -> Value:
    """A copy head by head, and one in fp32."""
    y = copy(tape, turned(tape, x))
    return cast(tape, y, 4)


def _pairs(tape: Tape, a: Value, b: Value, n: int) -> Value:
    """Products of each token's vector with every other's of its chunk, spread to n elements."""
    keep, wants, item = (a.storage, b.storage), (a.needs, b.needs), max(a.item, b.item)
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> list[Value | None]:
        return [tape.value(n, item) if want else None for want in wants]

    return tape.result(n, item, (a, b), backward)


def _forward_substitution(tape: Tape, attn: Value, rows: int) -> tuple[Value, list[Value]]:
    """The inverse of the triangular systems, a row after the other, in place; and what its names last refer to."""
    names: list[Value] = []
    for i in range(1, CHUNK):
        row = copy(tape, cut(tape, cut(tape, attn, rows * CHUNK), rows * i))
        sub = copy(tape, cut(tape, cut(tape, attn, rows * i * CHUNK), rows * i * i))
        attn = written(tape, attn, add(tape, row, summed(tape, multiply(tape, row, sub), rows * i)))
        names = [row, sub]
    return attn, names


def l2norm(tape: Tape, x: Value, width: int) -> Value:
    """X / sqrt(Σ x² + ε) of each row, with a division."""
    length = square_root(tape, shift(tape, summed(tape, multiply(tape, x, x), x.n // width)))
    return divide(tape, x, length)


class Chain:
    """The scan over chunks: its state, its output, and the names of its loop."""

    def __init__(self, tape: Tape, sequences: int, d: KimiDelta, value: Value) -> None:
        self.tape, self.sequences, self.dims = tape, sequences, d
        self.state: Value | None = tape.value(sequences * d.head_dim * d.head_dim, value.item)
        self.core: Value | None = tape.value(value.n, value.item)
        self.names: dict[str, Value] = {}
        self.read = 0

    def step(self, parts: tuple[Value, ...], mask: Value) -> None:
        """One chunk: what the state gives and predicts, pairs inside the chunk, the next state."""
        tape, names, state, core = self.tape, self.names, self.state, self.core
        if state is None or core is None:
            return
        n = self.sequences * CHUNK * self.dims.head_dim
        q, k, v, g = (cut(tape, part, n) for part in parts[:4])
        _query, _key, _value, _g, k_cumdecay, decay = parts
        asked = multiply(tape, q, pointwise(tape, g, keeps_output=True))
        names["inter"] = matmul(tape, asked, state, n)
        del asked
        pairs = multiply(tape, _pairs(tape, q, k, n * CHUNK), cut(tape, decay, n * CHUNK))
        pairs = masked_fill(tape, summed(tape, pairs, self.sequences * CHUNK * CHUNK), mask)
        names["intra"] = pairs
        names["prime"] = matmul(tape, cut(tape, k_cumdecay, n), state, n)
        names["new"] = subtract(tape, v, names["prime"])
        self.core = written(tape, core, add(tape, names["inter"], matmul(tape, pairs, names["new"], n)))
        self.read = len(tape.nodes)
        last = self.sequences * self.dims.head_dim
        kept = multiply(tape, state, pointwise(tape, cut(tape, g, last), keeps_output=True))
        told = multiply(tape, k, pointwise(tape, subtract(tape, cut(tape, g, last), g), keeps_output=True))
        self.state = add(tape, kept, matmul(tape, told, names["new"], state.n))

    def output(self) -> Value:
        """The output. Nobody reads the last state."""
        self.state = None
        del self.tape.nodes[self.read :]
        core, self.core = self.core, None
        if core is None:
            raise ValueError("the scan has given its output away")
        return core
