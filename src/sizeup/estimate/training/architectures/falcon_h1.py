"""Falcon-H1's layers: Mamba 2 and attention side by side on one norm, and numbers that multiply almost everything.

Source: transformers 5.23, `models/falcon_h1/modeling_falcon_h1.py`. Both halves keep names until the layer returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.basic import add, multiply, scale
from sizeup.estimate.training.tape import MLP, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


def falcon_h1(layer: Layer, x: Value) -> Value:
    """Norm, both halves, the feed-forward."""
    tape, residual = layer.build.tape, x
    x = layer.norm("input_layernorm", x)
    scanned = scale(tape, layer.mixed(x))
    attended = scale(tape, layer.attended(scale(tape, x)))
    x = add(tape, scanned, attended)
    x = add(tape, residual, x)
    residual = x
    x = layer.norm("pre_ff_layernorm", x)
    x = _feed_forward(layer, x)
    return add(tape, residual, x)


def _feed_forward(layer: Layer, x: Value) -> Value:
    """down(up(x) · act(gate(x) · a)) · b."""
    build, shape = layer.build, layer.shape
    tape, h, inner, bias = build.tape, shape.hidden, shape.ffn, shape.mlp_bias
    before, tape.label = tape.label, MLP
    up = build.linear("feed_forward.up_proj", x, h, inner, bias=bias)
    gate = activate(tape, scale(tape, build.linear("feed_forward.gate_proj", x, h, inner, bias=bias)), shape.activation)
    y = multiply(tape, up, gate)
    del up, gate
    y = scale(tape, build.linear("feed_forward.down_proj", y, inner, h, bias=bias))
    tape.label = before
    return y
