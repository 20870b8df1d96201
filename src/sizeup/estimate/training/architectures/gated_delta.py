"""Gated delta nets (Yang et al. 2024) as transformers 5.23 trains them where no kernel package is installed.

`models/qwen3_next/modeling_qwen3_next.py`: queries, keys and values through one causal convolution, then the rule in
fp32, chunk by chunk (`torch_chunk_gated_delta_rule`): inside a chunk of 64 tokens each pair has a decay and two scores,
two triangular systems are solved; between chunks a state of key_dim · value_dim for each head goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.architectures.causal_convolution import causal_convolution, without_padding
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
    spread,
)
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.loops import repeat
from sizeup.estimate.training.tape import STATE_SPACE, Tape, Value
from sizeup.estimate.training.tensors import (
    inverse_root,
    masked_fill,
    matmul,
    solve_triangular,
    subtract,
    summed,
    turned,
    written,
)

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer

CHUNK = 64
NAME = "linear_attn"

#: What goes through the convolution; gate, write strength and decay, or None where they are projected later.
Parts = tuple[Value, Value | None, Value | None, Value | None]


class GatedDelta(msgspec.Struct, frozen=True):
    """Heads and their sizes; kernel: taps of the convolution.

    projections: `two` for all that the rule needs (Qwen3-Next), `four` (Qwen3.5) or `six` (OLMo hybrid). doubled: the
    write strength reaches to 2.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    projections: str = "four"
    doubled: bool = False

    @property
    def keys(self) -> int:
        """Width of all keys."""
        return self.key_heads * self.key_dim

    @property
    def values(self) -> int:
        """Width of all values."""
        return self.value_heads * self.value_dim

    @property
    def groups(self) -> int:
        """Value heads for each key head."""
        return self.value_heads // self.key_heads

    def __call__(self, layer: Layer, x: Value) -> Value:
        """The mixer's output."""
        build, tape = layer.build, layer.build.tape
        before, tape.label = tape.label, STATE_SPACE
        y = _mixed(build, x, layer.shape.hidden, self, padding=layer.run.padding)
        tape.label = before
        return y


def _mixed(build: Build, x: Value, hidden: int, d: GatedDelta, *, padding: bool) -> Value:
    """`GatedDeltaNet.forward`, with the names that it has."""
    tape, tokens = build.tape, build.tokens
    x = without_padding(tape, x, padding=padding)
    names: list[Value] = []
    mixed, z, b, a = PROJECTIONS[d.projections](build, x, hidden, d, names)
    mixed = causal_convolution(build, f"{NAME}.conv1d", mixed, 2 * d.keys + d.values, d.kernel, activation="silu")
    if d.projections == "six":
        mixed = cut(tape, mixed, mixed.n)
    query, key, value = split(tape, mixed, (tokens * d.keys, tokens * d.keys, tokens * d.values))
    del names[2:]
    query, key, value = heads(tape, query), heads(tape, key), heads(tape, value)
    if b is None:
        b = _narrow(build, "b_proj", x, hidden, d)
    beta = pointwise(tape, b, keeps_output=True)
    if d.doubled:
        beta = scale(tape, beta)
    g = _decay(build, _narrow(build, "a_proj", x, hidden, d) if a is None else a, d)
    output = chunk_gated_delta_rule(build, query, key, value, g, beta, d)
    if output.strided:
        output = copy(tape, output)
    norm, last = ("norm", "out_proj") if z is not None else ("o_norm", "o_proj")
    if z is None:
        z = build.linear(f"{NAME}.g_proj", x, hidden, d.values)
    output = gated_norm(build, f"{NAME}.{norm}", output, z, d.value_dim)
    return build.linear(f"{NAME}.{last}", output, d.values, hidden)


def _narrow(build: Build, name: str, x: Value, hidden: int, d: GatedDelta) -> Value:
    """A number for each value head; its gradient lies head by head."""
    return seen(
        build.tape, build.linear(f"{NAME}.{name}", x, hidden, d.value_heads), copied_back=name.endswith("b_proj")
    )


def _four(build: Build, x: Value, hidden: int, d: GatedDelta, _names: list[Value]) -> Parts:
    """Of queries, keys and values, of the gate, and of write strength and decay."""
    tape = build.tape
    mixed = heads(tape, build.linear(f"{NAME}.in_proj_qkv", x, hidden, 2 * d.keys + d.values))
    z = build.linear(f"{NAME}.in_proj_z", x, hidden, d.values)
    b = seen(tape, build.linear(f"{NAME}.in_proj_b", x, hidden, d.value_heads), copied_back=True)
    a = build.linear(f"{NAME}.in_proj_a", x, hidden, d.value_heads)
    return turned(tape, mixed), z, b, a


def _six(build: Build, x: Value, hidden: int, d: GatedDelta, _names: list[Value]) -> Parts:
    """Queries, keys and values joined; the others come when they are needed."""
    query = build.linear(f"{NAME}.q_proj", x, hidden, d.keys)
    key = build.linear(f"{NAME}.k_proj", x, hidden, d.keys)
    value = build.linear(f"{NAME}.v_proj", x, hidden, d.values)
    return turned(build.tape, join(build.tape, (query, key, value))), None, None, None


def _two(build: Build, x: Value, hidden: int, d: GatedDelta, names: list[Value]) -> Parts:
    """The same cut out of two projections, whose parts lie key head by key head (`fix_query_key_value_ordering`)."""
    tape, tokens = build.tape, build.tokens
    keys, values, each = tokens * d.keys, tokens * d.values, tokens * d.value_heads
    qkvz = build.linear(f"{NAME}.in_proj_qkvz", x, hidden, 2 * d.keys + 2 * d.values)
    ba = build.linear(f"{NAME}.in_proj_ba", x, hidden, 2 * d.value_heads)
    query, key, value, z = split(tape, qkvz, (keys, keys, values, values))
    b, a = split(tape, ba, (each, each))
    if d.groups > 1:
        value, z, b, a = (copy(tape, part) for part in (value, z, b, a))
    query, key = copy(tape, query), copy(tape, key)
    value = copy(tape, value) if d.groups == 1 else value
    names += (qkvz, ba, query, key, value)
    return turned(tape, join(tape, (query, key, value))), z, b, a


PROJECTIONS = {"two": _two, "four": _four, "six": _six}


def _decay(build: Build, a: Value, d: GatedDelta) -> Value:
    """-exp(A) · softplus(a + bias) in fp32."""
    tape = build.tape
    rate = pointwise(tape, cast(tape, build.weight(f"{NAME}.A_log", d.value_heads), 4), keeps_output=True)
    rate = scale(tape, rate)
    step = pointwise(tape, add(tape, cast(tape, a, 4), build.weight(f"{NAME}.dt_bias", d.value_heads)))
    return multiply(tape, rate, step)


def chunk_gated_delta_rule(
    build: Build, query: Value, key: Value, value: Value, decay: Value, beta: Value, d: GatedDelta
) -> Value:
    """`torch_chunk_gated_delta_rule`, with the names that it has: what they refer to lives until it returns."""
    tape, item, tokens = build.tape, query.item, build.tokens
    if d.groups > 1:
        query = spread(tape, query, tokens * d.value_heads * d.key_dim)
        key = spread(tape, key, tokens * d.value_heads * d.key_dim)
    query, key, value, beta, decay = [cast(tape, turned(tape, x), 4) for x in (query, key, value, beta, decay)]
    query = l2norm(tape, query, d.key_dim)
    key = l2norm(tape, key, d.key_dim)
    query = scale(tape, query)
    chunks = (build.sequence + CHUNK - 1) // CHUNK
    whole = build.batch * chunks * CHUNK * d.value_heads
    query, key, value = [padded(tape, x, x.n // tokens // d.value_heads * whole) for x in (query, key, value)]
    beta, decay = [padded(tape, x, whole) for x in (beta, decay)]
    in_pairs, in_loop = _unordered(build, d, chunks) if item == 4 else (False, False)
    v_beta = multiply(tape, value, beta)
    k_beta = multiply(tape, key, beta)
    v_beta, k_beta = seen(tape, v_beta, copied_back=True), seen(tape, k_beta, copied_back=True)
    mask = strictly_upper(tape)
    cum_decay = running_sum(tape, decay)
    pairwise = subtract(tape, cum_decay, cum_decay, whole * CHUNK)
    pairwise = masked_fill(tape, pairwise, mask)
    pairwise = pointwise(tape, pairwise, keeps_output=True)
    system = multiply(tape, matmul(tape, k_beta, key, whole * CHUNK, copies=(in_pairs, in_pairs)), pairwise)
    intra = multiply(tape, matmul(tape, query, key, whole * CHUNK, copies=(in_pairs, in_pairs)), pairwise)
    decayed = multiply(tape, k_beta, pointwise(tape, cum_decay, keeps_output=True))
    new_values = solve_triangular(tape, system, v_beta)
    k_cumdecay = solve_triangular(tape, system, decayed)
    chain = Chain(tape, build.batch * d.value_heads, d, chunks, copies=in_loop)
    query = multiply(tape, query, pointwise(tape, cum_decay, keeps_output=True))
    key = multiply(tape, key, _rest_of_chunk(tape, cum_decay))
    chunk_decay = pointwise(tape, cut(tape, cum_decay, whole // CHUNK), keeps_output=True)
    repeat(tape, chunks, lambda: chain.step(new_values, k_cumdecay, query, key, intra, chunk_decay))
    output = chain.output()
    if whole > tokens * d.value_heads:
        output = cut(tape, output, tokens * d.values)
    output = turned(tape, output)
    if item != 4:
        output = cast(tape, output, item)
        output.strided = False
    return output


def _unordered(build: Build, d: GatedDelta, chunks: int) -> tuple[bool, bool]:
    """Whether products inside chunks, and those in the loop, copy queries and keys, which fp32 leaves as they lie.

    Padding would have put them in order. Repeated for several value heads, they lie token by token; else they lie as
    the convolution left them, channel by channel.
    """
    if build.sequence < chunks * CHUNK:
        return False, False
    if d.groups > 1:
        return build.batch > 1 or chunks > 1, build.batch > 1
    return chunks > 1, False


def _rest_of_chunk(tape: Tape, cum_decay: Value) -> Value:
    """The decay from each token to the end of its chunk."""
    rest = subtract(tape, cut(tape, cum_decay, cum_decay.n // CHUNK), cum_decay)
    return pointwise(tape, rest, keeps_output=True)


class Chain:
    """The scan over chunks: its state, its output, and the names of its loop."""

    def __init__(self, tape: Tape, sequences: int, d: GatedDelta, chunks: int, *, copies: bool) -> None:
        self.tape, self.sequences, self.dims, self.copies = tape, sequences, d, copies
        self.state: Value | None = tape.value(sequences * d.key_dim * d.value_dim, 4)
        self.core: Value | None = tape.value(sequences * chunks * CHUNK * d.value_dim, 4)
        self.v_new: Value | None = None
        self.inter: Value | None = None
        self.read = 0

    def step(
        self, new_values: Value, k_cumdecay: Value, query: Value, key: Value, intra: Value, chunk_decay: Value
    ) -> None:
        """One chunk: what the state predicts is taken off the new values, and the state decays and grows."""
        tape, d, state, core = self.tape, self.dims, self.state, self.core
        if state is None or core is None:
            return
        keys, values = self.sequences * CHUNK * d.key_dim, self.sequences * CHUNK * d.value_dim
        fresh = cut(tape, new_values, values)
        self.v_new = subtract(tape, fresh, matmul(tape, cut(tape, k_cumdecay, keys), state, values))
        self.inter = matmul(tape, cut(tape, query, keys), state, values, copies=(self.copies, False))
        pairs = cut(tape, intra, self.sequences * CHUNK * CHUNK)
        self.core = written(tape, core, add(tape, self.inter, matmul(tape, pairs, self.v_new, values)))
        self.read = len(tape.nodes)
        kept = multiply(tape, state, cut(tape, chunk_decay, self.sequences))
        self.state = add(
            tape, kept, matmul(tape, cut(tape, key, keys), self.v_new, state.n, copies=(self.copies, False))
        )

    def output(self) -> Value:
        """The output in order, copied, for it lies as the solved systems do. Nobody reads the last state."""
        self.state = None
        del self.tape.nodes[self.read :]
        core, self.core = self.core, None
        if core is None:
            raise ValueError("the scan has given its output away")
        return copy(self.tape, core)


def l2norm(tape: Tape, x: Value, width: int) -> Value:
    """X / sqrt(Σ x² + ε) of each row."""
    inverse = inverse_root(tape, shift(tape, summed(tape, multiply(tape, x, x), x.n // width)))
    return multiply(tape, x, inverse)


def strictly_upper(tape: Tape) -> Value:
    """Booleans of the pairs of a chunk that may not see each other."""
    ones = tape.value(CHUNK * CHUNK, 1)
    mask = tape.value(CHUNK * CHUNK, 1)
    del ones
    return mask
