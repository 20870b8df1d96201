"""The dense half of a layer: with a gate, with gate and up in one matrix, or plain."""

from __future__ import annotations

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.basic import dropout, multiply, split
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.tape import Value


def feed_forward(build: Build, shape: DecoderShape, x: Value) -> Value:
    """act(gate(x)) · up(x), or act(up(x)), then down."""
    tape, h, inner, bias = build.tape, shape.hidden, shape.ffn, shape.mlp_bias
    up, down = shape.name("mlp.up_proj"), shape.name("mlp.down_proj")
    if shape.mlp == "plain":
        y = build.linear(up, x, h, inner, bias=bias, apart=shape.product_bias)
        y = dropout(tape, activate(tape, y, shape.activation), shape.inner_dropout)
        return build.linear(down, y, inner, h, bias=bias, apart=shape.product_bias)
    if shape.mlp == "fused":
        both = build.linear(shape.name("mlp.gate_up_proj"), x, h, 2 * inner, bias=bias)
        gate, straight = split(tape, both, (both.n // 2, both.n // 2))
        product = multiply(tape, straight, activate(tape, gate, shape.activation))
        return build.linear(down, product, inner, h, bias=bias)
    return build.linear(
        down,
        multiply(
            tape,
            activate(tape, build.linear(shape.name("mlp.gate_proj"), x, h, inner, bias=bias), shape.activation),
            build.linear(up, x, h, inner, bias=bias),
        ),
        inner,
        h,
        bias=bias,
    )
