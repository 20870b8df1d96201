"""The mixer of Mamba (Gu and Dao 2023) as transformers runs it without kernel packages.

One projection gives what is convolved and the gate; the convolved channels give a step of low rank, B and C for each
token; then the scan and the output projection. Channels lie before tokens in memory.
Source: transformers 5.23, `models/mamba/modeling_mamba.py`; Falcon-Mamba and Jamba norm the step, B and C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.architectures.causal_conv import causal_conv
from sizeup.estimate.training.architectures.mamba2 import decays, without_padding
from sizeup.estimate.training.architectures.reordered import seen
from sizeup.estimate.training.architectures.scan_kernels import Selective, fused_mamba, kernel_conv, kernel_scan
from sizeup.estimate.training.architectures.selective_scan import selective_scan
from sizeup.estimate.training.basic import cast, copy, split
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.norms import rms_norm
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import STATE_SPACE, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


class Mamba(msgspec.Struct, frozen=True, kw_only=True):
    """inner channels, each with `state` elements; rank: of the step. kernel: taps of the convolution.

    bias: of both projections. norms: of step, B and C: `plain` (without weights), `weighted` or none. name: of the
    module. activation: after the convolution.
    """

    inner: int
    state: int
    rank: int
    kernel: int
    bias: bool = False
    conv_bias: bool = True
    norms: str = ""
    name: str = "mixer"
    activation: str = "silu"

    def __call__(self, layer: Layer, x: Value) -> Value:
        """The mixer's output."""
        build = layer.build
        label, scope = build.tape.label, build.scope
        build.tape.label, build.scope = STATE_SPACE, f"{scope}{self.name}/"
        if layer.run.padding:
            x = without_padding(build.tape, x)
        y = _mixed(build, x, layer.shape.hidden, self, layer.run)
        build.tape.label, build.scope = label, scope
        return y


def _mixed(build: Build, x: Value, hidden: int, m: Mamba, run: Run) -> Value:
    """The mixer's function, with the names that it has; what is padded is set to zero once more."""
    tape, tokens, item = build.tape, build.tokens, x.item
    projected = build.linear("in_proj", x, hidden, 2 * m.inner, bias=m.bias)
    a = decays(build, m.inner * m.state)
    if run.kernels and m.norms != "weighted":
        return fused_mamba(
            build, projected, a, hidden, Selective(m.inner, m.state, m.rank, m.kernel, m.bias, m.conv_bias)
        )
    mixed, gate = split(tape, projected, (tokens * m.inner, tokens * m.inner))
    convolve = kernel_conv if run.kernels else causal_conv
    mixed = convolve(build, mixed, m.inner, m.kernel, bias=m.conv_bias, activation=m.activation)
    if run.padding:
        mixed = without_padding(tape, mixed)
    parts = build.linear("x_proj", in_rows(build, mixed), m.inner, m.rank + 2 * m.state)
    dt, b, c = split(tape, parts, (tokens * m.rank, tokens * m.state, tokens * m.state))
    dt = _normed(build, m.norms, "dt", dt, m.rank, m.inner)
    b = _normed(build, m.norms, "b", b, m.state)
    c = _normed(build, m.norms, "c", c, m.state)
    weight = build.weight("dt_proj", m.rank * m.inner, m.inner, "matrix")
    build.unused_adapter("dt_proj", m.rank, m.inner)
    dt = copy(tape, seen(tape, linear(tape, dt, weight), copied_back=build.batch > 1))
    bias = cast(tape, build.weight("dt_proj.bias", m.inner), 4)
    scan = kernel_scan if run.kernels else selective_scan
    y = scan(build, seen(tape, mixed), dt, a, b, c, cast(tape, build.weight("D", m.inner), 4), gate, bias)
    return build.linear("out_proj", in_rows(build, cast(tape, y, item)), m.inner, hidden, bias=m.bias)


def in_rows(build: Build, x: Value) -> Value:
    """Channels of each token side by side, as a product wants them: a copy if there are several sequences."""
    tape = build.tape
    x = seen(tape, cast(tape, x, tape.autocast) if tape.autocast else x)
    return copy(tape, x) if build.batch > 1 else x


def _normed(build: Build, norms: str, name: str, x: Value, width: int, full: int = 0) -> Value:
    """The step, B or C with its norm. full: length of a weight that isn't used, where it has another."""
    if norms == "weighted":
        return build.rms(f"{name}_layernorm", x, width)
    if norms != "plain":
        return x
    build.frozen(f"{name}_layernorm", full or width)
    return rms_norm(build.tape, x, None, width)
