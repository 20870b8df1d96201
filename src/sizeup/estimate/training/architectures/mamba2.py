"""The mixer of Mamba 2 (Dao and Gu 2024) as transformers runs it without kernel packages.

One projection gives the gate, what is convolved (channels, B and C) and a step for each head; then the scan by chunks,
a gated norm in fp32, and the output projection. Source: transformers 5.23, `models/mamba2/modeling_mamba2.py`, whose
mixer Bamba, Granite, Zamba 2, Falcon-H1 and Nemotron-H share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.architectures.causal_conv import causal_conv
from sizeup.estimate.training.architectures.chunk_scan import Chunks, chunk_scan, exponential
from sizeup.estimate.training.architectures.scan_kernels import Fused, fused_mamba2
from sizeup.estimate.training.basic import cast, multiply, pointwise, scale, split
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.norms import inverse_rms
from sizeup.estimate.training.tape import NORM, STATE_SPACE, Tape, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


class Mamba2(msgspec.Struct, frozen=True, kw_only=True):
    """heads of head_dim channels with a state of `state` elements each; B and C come in groups.

    kernel: taps of the convolution. chunk: tokens that are scanned at once. bias, conv_bias, out_bias: of the
    projection, the convolution and the output. name: of the module. activation: after the convolution. norm: what is
    normed, the `gated` output, the output before it is `gated later`, or `nothing`. scaled: what is projected is
    multiplied by a number first, and afterwards by a frozen one for each channel (Falcon-H1).
    """

    heads: int
    head_dim: int
    state: int
    groups: int
    kernel: int
    chunk: int
    bias: bool = False
    out_bias: bool = False
    conv_bias: bool = True
    name: str = "mamba"
    activation: str = "silu"
    norm: str = "gated"
    scaled: bool = False

    @property
    def inner(self) -> int:
        """Channels of all heads."""
        return self.heads * self.head_dim

    @property
    def convolved(self) -> int:
        """Channels that are convolved."""
        return self.inner + 2 * self.groups * self.state

    def __call__(self, layer: Layer, x: Value) -> Value:
        """The mixer's output."""
        build = layer.build
        label, scope = build.tape.label, build.scope
        build.tape.label, build.scope = STATE_SPACE, f"{scope}{self.name}/"
        way = _by_kernel if layer.run.kernels else _mixed
        y = way(build, x, layer.shape.hidden, self, padding=layer.run.padding)
        build.tape.label, build.scope = label, scope
        return y


def _by_kernel(build: Build, x: Value, hidden: int, m: Mamba2, *, padding: bool) -> Value:
    """Projection, and one function for the rest. padding: what is padded is set to zero before."""
    if padding:
        x = without_padding(build.tape, x)
    projected = _projected(build, x, hidden, m)
    a = decays(build, m.heads)
    sizes = Fused(
        hidden, m.inner, m.convolved, m.groups, m.inner + m.convolved + m.heads, m.kernel, m.norm != "nothing",
        m.conv_bias, m.out_bias,
    )  # fmt: skip
    return fused_mamba2(build, projected, a, chunks_of(build, m), sizes)


def chunks_of(build: Build, m: Mamba2) -> Chunks:
    """The chunks of a step."""
    return Chunks(build.batch, -(-build.sequence // m.chunk), m.chunk, m.heads, m.head_dim, m.state)


def _mixed(build: Build, x: Value, hidden: int, m: Mamba2, *, padding: bool) -> Value:
    """The mixer's function, with the names that it has. padding: what is padded is set to zero, twice."""
    tape, tokens, item = build.tape, build.tokens, x.item
    if padding:
        x = without_padding(tape, x)
    projected = _projected(build, x, hidden, m)
    a = decays(build, m.heads)
    gate, mixed, dt = split(tape, projected, (tokens * m.inner, tokens * m.convolved, tokens * m.heads))
    mixed = causal_conv(build, mixed, m.convolved, m.kernel, bias=m.conv_bias, activation=m.activation)
    if padding:
        mixed = without_padding(tape, mixed)
    small = tokens * m.groups * m.state
    x, b, c = split(tape, mixed, (tokens * m.inner, small, small))
    y = chunk_scan(build, x, dt, a, b, c, chunks_of(build, m))
    y = _weighed(build, y, gate, m)
    return build.linear("out_proj", cast(tape, y, item), m.inner, hidden, bias=m.out_bias)


def _projected(build: Build, x: Value, hidden: int, m: Mamba2) -> Value:
    """Gate, what is convolved, and the steps."""
    width = m.inner + m.convolved + m.heads
    if not m.scaled:
        return build.linear("in_proj", x, hidden, width, bias=m.bias)
    build.frozen("mup_vector", width)
    numbers = Value(width, build.method.item, None)
    x = scale(build.tape, x)
    return multiply(build.tape, build.linear("in_proj", x, hidden, width, bias=m.bias), numbers)


def _weighed(build: Build, y: Value, gate: Value, m: Mamba2) -> Value:
    """The scan's output by the SiLU of the gate, and its norm."""
    tape, group = build.tape, m.inner // m.groups
    if m.norm == "gated":
        return gated_norm(build, y, gate, m.inner, group)
    if m.norm == "gated later":
        y = multiply(tape, build.weight("norm", m.inner), multiply(tape, y, inverse_rms(tape, y, group)))
        gate = cast(tape, gate, 4)
    return multiply(tape, y, pointwise(tape, gate))


def without_padding(tape: Tape, x: Value) -> Value:
    """X with zeros where tokens are padding: a product with a mask that is there anyway."""
    return scale(tape, x)


def decays(build: Build, n: int, *, item: int = 0) -> Value:
    """-exp(A) of n logarithms, in fp32. item: bytes of a logarithm, where they have a type of their own."""
    return scale(build.tape, exponential(build.tape, cast(build.tape, build.weight("A_log", n, item=item), 4)))


def gated_norm(build: Build, x: Value, gate: Value, width: int, group: int) -> Value:
    """An RMS norm over groups of x · silu(gate) in fp32, times the weight."""
    tape = build.tape
    before, tape.label = tape.label, NORM
    x = multiply(tape, x, pointwise(tape, cast(tape, gate, 4)))
    x = multiply(tape, x, inverse_rms(tape, x, group))
    x = multiply(tape, build.weight("norm", width), x)
    tape.label = before
    return x
