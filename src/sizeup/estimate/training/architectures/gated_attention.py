"""Attention whose query projection also makes a gate for its output (Qwen3-Next and Qwen3.5, transformers 5.23)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.attention import Heads, attend
from sizeup.estimate.training.basic import copy, heads, multiply, pointwise, split
from sizeup.estimate.training.tape import ATTENTION, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


class GatedAttention(msgspec.Struct, frozen=True):
    """bias: of all its projections."""

    bias: bool = False

    @property
    def attends(self) -> bool:
        """It is given attention's mask."""
        return True

    def __call__(self, layer: Layer, x: Value) -> Value:
        """Queries and gate from one projection, norms, rotation, attention, the sigmoid of the gate, output."""
        build, shape = layer.build, layer.shape
        tape, width = build.tape, shape.head_count * shape.head_dim
        before, tape.label = tape.label, ATTENTION
        both = build.linear("self_attn.q_proj", x, shape.hidden, 2 * width, bias=self.bias)
        q, gate = split(tape, both, (build.tokens * width, build.tokens * width))
        gate = copy(tape, gate)
        del both
        q = layer.norm("q_norm", q, shape.head_dim)
        k = heads(tape, self._small(layer, "k_proj", x))
        k = layer.norm("k_norm", k, shape.head_dim)
        v = heads(tape, self._small(layer, "v_proj", x))
        if layer.rotary is not None:
            q, k = layer.all_turned(q, k)
        sizes = Heads(
            build.batch, build.sequence, build.sequence, shape.head_count, shape.kv_heads, shape.head_dim,
            shape.head_dim,
        )  # fmt: skip
        y = attend(tape, q, k, v, sizes, layer.way(), layer.mask)
        del q, k, v
        y = multiply(tape, y, pointwise(tape, gate, keeps_output=True))
        y = build.linear("self_attn.o_proj", y, width, shape.hidden, bias=self.bias)
        tape.label = before
        return y

    def _small(self, layer: Layer, name: str, x: Value) -> Value:
        shape = layer.shape
        width = shape.kv_heads * shape.head_dim
        return layer.build.linear(f"self_attn.{name}", x, shape.hidden, width, bias=self.bias)
