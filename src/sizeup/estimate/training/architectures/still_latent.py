"""Latent attention of hybrids (transformers 5.23): without positions (Kimi Linear), or gated (Bailing)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.architectures.latent import Latent, expanded
from sizeup.estimate.training.attention import Heads, attend
from sizeup.estimate.training.basic import cast, heads, join, multiply, pointwise, split
from sizeup.estimate.training.tape import ATTENTION, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


class StillLatent(msgspec.Struct, frozen=True):
    """Ranks and sizes; bias: of the low projections and the last.

    turns: with positions after all, and a gate for each head (Bailing's hybrids).
    """

    latent: Latent
    bias: bool = False
    turns: bool = False

    @property
    def attends(self) -> bool:
        """It is given attention's mask."""
        return True

    def __call__(self, layer: Layer, x: Value) -> Value:
        """Queries, one compressed vector expanded to keys and values, attention, output."""
        build, shape, m = layer.build, layer.shape, self.latent
        tape, tokens, count, hidden = build.tape, build.tokens, shape.head_count, shape.hidden
        before, tape.label = tape.label, ATTENTION
        q = self._queries(layer, x)
        compressed = build.linear("self_attn.kv_a_proj_with_mqa", x, hidden, m.kv_rank + m.rope_dim, bias=self.bias)
        low, shared = split(tape, compressed, (tokens * m.kv_rank, tokens * m.rope_dim))
        low = build.rms("kv_a_layernorm", low, m.kv_rank)
        if self.turns:
            q, shared = self._turned(layer, q, shared)
        wide = build.linear("self_attn.kv_b_proj", low, m.kv_rank, count * (m.nope_dim + m.value_dim))
        key, value = split(tape, heads(tape, wide), (tokens * count * m.nope_dim, tokens * count * m.value_dim))
        keys = expanded(tape, key, shared, tokens * count * m.key_dim)
        sizes = Heads(build.batch, build.sequence, build.sequence, count, count, m.key_dim, m.value_dim)
        y = attend(tape, q, keys, value, sizes, layer.way(), layer.mask)
        del q, keys, key, value, wide, low, shared
        if self.turns:
            gate = build.linear("self_attn.g_proj", x, hidden, count)
            gate = cast(tape, pointwise(tape, cast(tape, gate, 4), keeps_output=True), x.item)
            y = multiply(tape, y, gate)
        y = build.linear("self_attn.o_proj", y, count * m.value_dim, hidden, bias=self.bias)
        tape.label = before
        return y

    def _turned(self, layer: Layer, q: Value, shared: Value) -> tuple[Value, Value]:
        """Queries and the shared part of the keys with their positions."""
        tape, m = layer.build.tape, self.latent
        n = q.n // m.key_dim
        passed, part = split(tape, q, (n * m.nope_dim, n * m.rope_dim))
        part, shared = layer.turned(part), layer.turned(shared)
        query = join(tape, (passed, part))
        query.headed = True
        return query, shared

    def _queries(self, layer: Layer, x: Value) -> Value:
        build, m, width = layer.build, self.latent, layer.shape.head_count * self.latent.key_dim
        if not m.q_rank:
            return heads(build.tape, build.linear("self_attn.q_proj", x, layer.shape.hidden, width))
        low = build.linear("self_attn.q_a_proj", x, layer.shape.hidden, m.q_rank, bias=self.bias)
        low = build.rms("q_a_layernorm", low, m.q_rank)
        return heads(build.tape, build.linear("self_attn.q_b_proj", low, m.q_rank, width))
