"""Zamba's Mamba: its scan in a few heads, each with projections of its own for step, B and C.

The heads' scans run one after another; their outputs are joined. Source: transformers 5.23, `ZambaMambaMixer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.architectures.causal_conv import causal_conv
from sizeup.estimate.training.architectures.mamba import in_rows
from sizeup.estimate.training.architectures.mamba2 import decays, without_padding
from sizeup.estimate.training.architectures.reordered import batched, seen
from sizeup.estimate.training.architectures.scan_kernels import kernel_conv, kernel_scan
from sizeup.estimate.training.architectures.selective_scan import selective_scan
from sizeup.estimate.training.basic import cast, copy, cut, join, split, spread
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import STATE_SPACE, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


class ZambaMamba(msgspec.Struct, frozen=True, kw_only=True):
    """inner channels in `heads`, each channel with `state` elements; rank: of a head's step. kernel: taps."""

    inner: int
    heads: int
    state: int
    rank: int
    kernel: int
    bias: bool = False
    conv_bias: bool = True
    activation: str = "silu"

    def __call__(self, layer: Layer, x: Value) -> Value:
        """The mixer's output."""
        build = layer.build
        label, scope = build.tape.label, build.scope
        build.tape.label, build.scope = STATE_SPACE, f"{scope}mamba/"
        if layer.run.padding:
            x = without_padding(build.tape, x)
        y = _mixed(build, x, layer.shape.hidden, self, layer.run)
        build.tape.label, build.scope = label, scope
        return y


def _mixed(build: Build, x: Value, hidden: int, m: ZambaMamba, run: Run) -> Value:
    """The mixer's function, with the names that it has; what is padded is set to zero once more."""
    tape, tokens, item = build.tape, build.tokens, x.item
    projected = build.linear("in_proj", x, hidden, 2 * m.inner, bias=m.bias)
    mixed, gate = split(tape, projected, (tokens * m.inner, tokens * m.inner))
    mixed = copy(tape, mixed)
    convolve, scan = (kernel_conv, kernel_scan) if run.kernels else (causal_conv, selective_scan)
    mixed = convolve(build, mixed, m.inner, m.kernel, bias=m.conv_bias, activation=m.activation)
    if run.padding:
        mixed = without_padding(tape, mixed)
    mixed, gate = seen(tape, mixed), seen(tape, gate)
    small, narrow = m.rank + 2 * m.state, tokens * m.heads
    parts = _by_head(build, "x_proj_weight", m, mixed, small * m.inner, narrow * small, copied=m.heads > 1)
    dt, b, c = split(tape, parts, (narrow * m.rank, narrow * m.state, narrow * m.state))
    dt = _by_head(build, "dt_proj_weight", m, dt, m.rank * m.inner, tokens * m.inner, copied=False)
    bias = cast(tape, build.weight("dt_proj_bias", m.inner), 4)
    a = decays(build, m.inner * m.state, item=4)
    skip = build.weight("D", m.inner)
    outputs: list[Value] = []
    for _ in range(m.heads):
        of_head = [cut(tape, part, part.n // m.heads) for part in (mixed, dt, a, b, c, skip, gate, bias)]
        of_head[5] = cast(tape, of_head[5], 4)
        outputs.append(scan(build, *of_head))
        of_head.clear()
    y = join(tape, outputs)
    return build.linear("out_proj", in_rows(build, cast(tape, y, item)), m.inner, hidden, bias=m.bias)


def _by_head(build: Build, name: str, m: ZambaMamba, x: Value, n: int, outputs: int, *, copied: bool) -> Value:
    """A product of every head with its own matrix, spread to all sequences.

    copied: whether x lies sequence by sequence, so that it is copied where there are several.
    """
    tape = build.tape
    weight: Value = build.weight(name, n, n // m.inner, "experts", m.heads)
    if tape.autocast:
        weight = cast(tape, weight, tape.autocast)
    if build.batch > 1:
        weight = spread(tape, weight, n * build.batch)
        x = copy(tape, x) if copied else x
    return seen(tape, batched(tape, weight, x, outputs))
