"""Scans by the kernels of mamba-ssm and causal-conv1d, which transformers takes where they are installed.

A function of its own keeps a few tensors and computes the rest again in its backward pass. Derived from the autograd
functions of mamba-ssm 2.2 (`ops/triton/ssd_combined.py`, `ops/selective_scan_interface.py`) and causal-conv1d 1.5; not
checked by simulation, since the kernels need a GPU.

    Mamba 2  the projection's output, the scan's, and 4 bytes for each token and group
    Mamba    the projection's output in channel order, the scan's, step, B and C, and two states for every 2,048 tokens
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.estimate.training.architectures.chunk_scan import Chunks
from sizeup.estimate.training.basic import cast
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.tape import Storage, Tape, Value

#: Tokens between two states that the kernel of Mamba keeps.
STRIDE = 2048


class Fused(msgspec.Struct, frozen=True):
    """Sizes of one call. hidden: of the stream; inner: channels; convolved: of them and B and C; groups of B and C.

    projected: channels of the projection's output. normed: whether the gated norm is part of it.
    """

    hidden: int
    inner: int
    convolved: int
    groups: int
    projected: int
    kernel: int
    normed: bool
    conv_bias: bool
    out_bias: bool


def fused_mamba2(build: Build, projected: Value, a: Value, k: Chunks, f: Fused) -> Value:
    """`mamba_split_conv1d_scan_combined`: convolution, scan, gated norm and output projection."""
    tape, tokens, item = build.tape, build.tokens, projected.item
    small = [build.weight("conv1d", f.convolved * f.kernel)]
    small += [build.weight("conv1d.bias", f.convolved)] if f.conv_bias else []
    small += [build.weight(name, k.heads) for name in ("dt_bias", "D")]
    small += [build.weight("norm", f.inner)] if f.normed else []
    matrix, offset = _projection(build, "out_proj", f.inner, f.hidden, bias=f.out_bias)
    inside = [tape.value(tokens * f.convolved, item), *_chunk_values(tape, k, f.groups)]
    output = tape.value(tokens * f.inner, item)
    rows = tape.value(tokens * f.groups, 4) if f.normed else None
    normed = tape.value(tokens * f.inner, item)
    keep = [projected.storage, output.storage, None if rows is None else rows.storage, matrix.storage]
    inputs = (projected, a, matrix, offset, *small)
    sizes = [None if value is None or not value.needs else (value.n, value.item) for value in inputs]
    tape.saved()

    def backward(_g: Value, _keep: list[Storage | None] = keep) -> Sequence[Value | None]:
        return _mamba2_gradients(tape, tokens, item, k, f, sizes)

    result = tape.result(tokens * f.hidden, item, inputs, backward)
    del inside, normed
    return result


def _chunk_values(tape: Tape, k: Chunks, groups: int) -> list[Value]:
    """Steps and their running sums, states, and the scores of every pair of tokens in a chunk, in fp32."""
    steps = k.tokens * k.heads
    states = k.batch * k.count * k.width * k.state
    return [tape.value(n, 4) for n in (steps, steps, states, k.tokens * groups * k.length)]


def _mamba2_gradients(
    tape: Tape, tokens: int, item: int, k: Chunks, f: Fused, sizes: Sequence[tuple[int, int] | None]
) -> list[Value | None]:
    """The forward pass's values once more, their gradients, and the sums over groups of B's and C's in fp32."""
    names = [tape.value(tokens * width, item) for width in (f.inner, f.convolved)]
    of_projected = tape.value(tokens * f.projected, item)
    names += [tape.value(tokens * width, item) for width in (f.convolved, f.inner, f.inner)]
    names += [*_chunk_values(tape, k, f.groups), *_chunk_values(tape, k, f.groups)]
    names += [tape.value(tokens * f.groups * k.state, 4) for _ in range(2)]
    names += [tape.value(k.tokens * k.heads, 4) for _ in range(4)]
    results = [None if size is None else tape.value(*size) for size in sizes[1:]]
    names.clear()
    return [of_projected if sizes[0] is not None else None, *results]


class Selective(msgspec.Struct, frozen=True):
    """Sizes of a scan of Mamba: inner channels, each with `state` elements; rank: of the step."""

    inner: int
    state: int
    rank: int
    kernel: int
    bias: bool
    conv_bias: bool


def fused_mamba(build: Build, projected: Value, a: Value, hidden: int, s: Selective) -> Value:
    """`mamba_inner_fn`: convolution, projections of step, B and C, scan and output projection."""
    tape, tokens, item = build.tape, build.tokens, projected.item
    wide, narrow = tokens * s.inner, tokens * (s.rank + 2 * s.state)
    small = [build.weight("conv1d", s.inner * s.kernel)]
    small += [build.weight("conv1d.bias", s.inner)] if s.conv_bias else []
    small += [build.weight(name, s.inner) for name in ("D", "dt_proj.bias")]
    matrices = [_projection(build, "x_proj", s.inner, s.rank + 2 * s.state)[0]]
    matrices.append(_projection(build, "dt_proj", s.rank, s.inner)[0])
    matrix, offset = _projection(build, "out_proj", s.inner, hidden, bias=s.bias)
    turned = tape.value(2 * wide, item)
    names = [tape.value(wide, item)]
    parts = tape.value(narrow, item)
    names.append(tape.value(wide, item))
    both = [tape.value(tokens * s.state, item) for _ in range(2)]
    output, gated, states = tape.value(wide, item), tape.value(wide, item), _states(build, s.inner, s.state)
    kept = (turned, parts, *both, output, states, *matrices, matrix)
    keep = [value.storage for value in kept]
    inputs = (projected, a, matrix, offset, *matrices, *small)
    sizes = [None if value is None or not value.needs else (value.n, value.item) for value in inputs]
    tape.saved()

    def backward(_g: Value, _keep: list[Storage | None] = keep) -> Sequence[Value | None]:
        again = [tape.value(wide, item) for _ in range(2)]
        of_projected = tape.value(2 * wide, item)
        again += [tape.value(wide, item) for _ in range(4)]
        again += [tape.value(tokens * s.state, 4) for _ in range(2)]
        again.append(tape.value(narrow, item))
        results = [None if size is None else tape.value(*size) for size in sizes[1:]]
        again.clear()
        return [of_projected if sizes[0] is not None else None, *results]

    result = tape.result(tokens * hidden, item, inputs, backward)
    del names, gated, turned, parts, both, output, states, kept
    return result


def _states(build: Build, channels: int, state: int) -> Value:
    """What the kernel of Mamba keeps: two numbers for each state, every 2,048 tokens."""
    return build.tape.value(build.batch * channels * 2 * state * (-(-build.sequence // STRIDE)), 4)


def kernel_conv(build: Build, x: Value, channels: int, kernel: int, *, bias: bool, activation: str = "silu") -> Value:
    """`causal_conv1d_fn`: the convolution and its activation, which keep the input alone."""
    del activation
    tape = build.tape
    inputs = [x, build.weight("conv1d", channels * kernel)]
    inputs += [build.weight("conv1d.bias", channels)] if bias else []
    return _function(tape, inputs, (x.storage,), x.n, x.item)


def kernel_scan(
    build: Build, x: Value, dt: Value, a: Value, b: Value, c: Value, skip: Value, gate: Value, bias: Value
) -> Value:
    """`selective_scan_fn`: it keeps its inputs, its output before the gate, and a few states; B, C, gate are copied."""
    tape, tokens = build.tape, build.tokens
    copies = [tape.value(value.n, value.item) for value in (b, c, gate)]
    before = tape.value(x.n, x.item)
    states = _states(build, x.n // tokens, b.n // tokens)
    keep = (x.storage, dt.storage, a.storage, before.storage, states.storage, *(copy.storage for copy in copies))
    return _function(tape, (x, dt, a, b, c, skip, gate, bias), keep, x.n, x.item)


def _function(tape: Tape, inputs: Sequence[Value], keep: object, n: int, item: int) -> Value:
    """The result of a function of its own with one new tensor for each gradient."""
    sizes = [(value.n, value.item) if value.needs else None for value in inputs]
    tape.saved()

    def backward(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return [None if size is None else tape.value(*size) for size in sizes]

    return tape.result(n, item, inputs, backward)


def _projection(
    build: Build, name: str, inputs: int, outputs: int, *, bias: bool = False
) -> tuple[Value, Value | None]:
    """A matrix that the function multiplies with itself, so that an adapter on it is never called."""
    tape = build.tape
    matrix: Value = build.weight(name, inputs * outputs, outputs, "matrix")
    offset: Value | None = build.weight(f"{name}.bias", outputs) if bias else None
    build.unused_adapter(name, inputs, outputs)
    if tape.autocast:
        matrix = cast(tape, matrix, tape.autocast)
        offset = None if offset is None else cast(tape, offset, tape.autocast)
    return matrix, offset
