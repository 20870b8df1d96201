"""The gate of low rank on A.X K2's norms. Source: transformers 5.23, `models/axk2/modeling_axk2.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizeup.estimate.training.basic import cast, multiply, pointwise
from sizeup.estimate.training.tape import Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


def gated_norm(layer: Layer, name: str, x: Value) -> Value:
    """Y · sigmoid(fc2(silu(fc1(y)))) with y = norm(x); the sigmoid and the product in fp32."""
    build, hidden, rank = layer.build, layer.shape.hidden, layer.shape.gate_rank
    y = layer.norm(f"{name}.norm", x)
    low = pointwise(build.tape, build.linear(f"{name}.mlp.fc1", y, hidden, rank))
    gate = build.linear(f"{name}.mlp.fc2", low, rank, hidden)
    gate = pointwise(build.tape, cast(build.tape, gate, 4), keeps_output=True)
    return cast(build.tape, multiply(build.tape, y, gate), y.item)
