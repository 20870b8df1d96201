"""The dense half of a layer: with a gate, with gate and up in one matrix, or plain."""

from __future__ import annotations

from sizeup.estimate.training.activations import activate, xielu
from sizeup.estimate.training.architectures.experts import clamped_gate
from sizeup.estimate.training.architectures.gemma3n import largest_only
from sizeup.estimate.training.architectures.layer_norms import norm
from sizeup.estimate.training.architectures.ranks import gathered, parted
from sizeup.estimate.training.architectures.rwkv import channel_mix
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.basic import dropout, multiply, split
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.tape import Value


def feed_forward(build: Build, shape: DecoderShape, x: Value) -> Value:
    """act(gate(x)) · up(x), or act(up(x)), then down."""
    tape, h, inner, bias = build.tape, shape.hidden, shape.ffn, shape.mlp_bias
    if shape.mlp == "channel mix":
        return channel_mix(build, x, h, inner)
    up, down = shape.name("mlp.up_proj"), shape.name("mlp.down_proj")
    if shape.mlp == "plain":
        return plain_down(build, shape, plain_up(build, shape, x))
    if shape.mlp in {"fused", "clamped"}:
        ways = shape.ways if "mlp" in shape.gathered else 1
        both = build.linear(shape.name("mlp.gate_up_proj"), x, h, 2 * inner // ways, bias=bias)
        if ways > 1:
            both = gathered(tape, both, ways)
        if shape.mlp == "clamped":
            return build.linear(down, clamped_gate(tape, both, halves=True), inner, h, bias=bias)
        gate, straight = split(tape, both, (both.n // 2, both.n // 2))
        product = multiply(tape, straight, activate(tape, gate, shape.activation))
        if ways > 1:
            product = parted(tape, product, ways)
        return build.linear(down, product, inner // ways, h, bias=bias)
    gate = build.linear(shape.name("mlp.gate_proj"), x, h, inner, bias=bias)
    if shape.sparse_gate:
        gate = largest_only(tape, gate, inner)
    y = multiply(tape, activate(tape, gate, shape.activation), build.linear(up, x, h, inner, bias=bias))
    if shape.sub_norms:
        y = norm(build, shape, "mlp.ffn_sub_norm", y, inner)
    return build.linear(down, y, inner, h, bias=bias)


def plain_up(build: Build, shape: DecoderShape, x: Value) -> Value:
    """up(x)."""
    return build.linear(
        shape.name("mlp.up_proj"), x, shape.hidden, shape.ffn, bias=shape.mlp_bias, apart=shape.product_bias
    )


def plain_down(build: Build, shape: DecoderShape, y: Value) -> Value:
    """down(act(y)), with the dropout between them."""
    y = dropout(build.tape, activated(build, shape, y), shape.inner_dropout)
    return build.linear(
        shape.name("mlp.down_proj"), y, shape.ffn, shape.hidden, bias=shape.mlp_bias, apart=shape.product_bias
    )


def activated(build: Build, shape: DecoderShape, x: Value) -> Value:
    """The activation, with its weights if it has any."""
    if shape.activation != "xielu":
        return activate(build.tape, x, shape.activation)
    return xielu(build.tape, x, build.weight("mlp.act_fn.alpha_p", 1), build.weight("mlp.act_fn.alpha_n", 1))
