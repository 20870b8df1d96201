"""Multi-head latent attention (DeepSeek-V2 and V3) as transformers 5.23 trains it: everything is expanded.

Queries through a low rank (or not), keys and values from one compressed vector; the rotated part of the key is shared
by all heads and copied to each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sizeup.estimate.training.architectures.indexer import Index, chosen_keys, sparse_mask
from sizeup.estimate.training.attention import Heads, Way, attend
from sizeup.estimate.training.basic import cast, copy, heads, join, multiply, pointwise, scale, split
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.tape import ATTENTION, Tape, Value


class Latent(msgspec.Struct, frozen=True):
    """Ranks and sizes of the parts of a head. q_rank 0: one full query projection.

    scaled: what is multiplied by a number: the `parts` of the query and the latent (LongCat), both `latents` (dots3),
    or the whole `query` (Mistral 4). shared_norm: the key's rotary part is normed. gate: the output is weighed by a
    sigmoid, of each `head`, or of each channel and `joined` to the query projection, which also sees the query's latent
    before its norm (A.X K2).
    """

    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    scaled: str = ""
    shared_norm: bool = False
    gate: str = ""

    @property
    def key_dim(self) -> int:
        """Length of a key."""
        return self.nope_dim + self.rope_dim


def latent_attention(
    build: Build,
    x: Value,
    hidden: int,
    count: int,
    m: Latent,
    way: Way,
    mask: Value | None,
    turn: Callable[[Value], Value],
    *,
    index: Index | None = None,
    chosen: Value | None = None,
) -> tuple[Value, Value | None]:
    """Projections, rotation of the rotary parts, expansion, attention, output."""
    tape, tokens = build.tape, build.tokens
    before, tape.label = tape.label, ATTENTION
    names: list[Value] = []
    q, low, gate = _queries(build, x, hidden, count, m, names)
    passed, turned = split(tape, q, (tokens * count * m.nope_dim, tokens * count * m.rope_dim))
    latent, shared = _latents(build, x, hidden, m, names)
    if m.scaled == "parts":
        passed, turned = scale(tape, passed), scale(tape, turned)
    turned, shared = turn(turned), turn(shared)
    query = join(tape, (passed, turned))
    if m.scaled == "query":
        query = scale(tape, query)
    query.headed = True
    wide = build.linear("self_attn.kv_b_proj", latent, m.kv_rank, count * (m.nope_dim + m.value_dim))
    key, value = split(tape, heads(tape, wide), (tokens * count * m.nope_dim, tokens * count * m.value_dim))
    keys = expanded(tape, key, shared, tokens * count * m.key_dim)
    sizes = Heads(build.batch, build.sequence, build.sequence, count, count, m.key_dim, m.value_dim)
    if index is not None and mask is not None:
        chosen = chosen_keys(build, x, low, hidden, m.q_rank, index, mask, turn)
    if chosen is not None and mask is not None:
        mask, _unseen = sparse_mask(build, mask, chosen)
    y = attend(tape, query, keys, value, sizes, way, mask)
    if gate is not None:
        opened = pointwise(tape, cast(tape, gate, 4), keeps_output=True)
        y = cast(tape, multiply(tape, y, opened), y.item)
    if m.gate == "head":
        opened = pointwise(tape, build.linear("self_attn.g_proj", x, hidden, count), keeps_output=True)
        y = multiply(tape, y, opened)
    y = build.linear("self_attn.o_proj", y, count * m.value_dim, hidden)
    tape.label = before
    return y, chosen


def _latents(build: Build, x: Value, hidden: int, m: Latent, names: list[Value]) -> tuple[Value, Value]:
    """What keys and values are made of, and the key's rotary part that all heads share. names: of the caller."""
    tape, tokens = build.tape, build.tokens
    compressed = build.linear("self_attn.kv_a_proj_with_mqa", x, hidden, m.kv_rank + m.rope_dim)
    names.append(compressed)
    latent, shared = split(tape, compressed, (tokens * m.kv_rank, tokens * m.rope_dim))
    if m.scaled == "latents":
        latent = copy(tape, latent)
    latent = build.rms("kv_a_layernorm", latent, m.kv_rank)
    if m.scaled in {"parts", "latents"}:
        latent = scale(tape, latent)
    if m.shared_norm:
        shared = build.rms("k_rope_only_layernorm", shared, m.rope_dim)
    return latent, shared


def _queries(
    build: Build, x: Value, hidden: int, count: int, m: Latent, names: list[Value]
) -> tuple[Value, Value, Value | None]:
    """Queries as heads, what they are made of, and the gate that is joined to them. names: of the caller."""
    tape, width = build.tape, count * m.key_dim
    if not m.q_rank:
        return heads(tape, build.linear("self_attn.q_proj", x, hidden, width)), x, None
    compressed = build.linear("self_attn.q_a_proj", x, hidden, m.q_rank)
    low = build.rms("q_a_layernorm", compressed, m.q_rank)
    if m.gate == "joined":
        names.append(compressed)
        both = join(tape, (low, compressed))
        wide = build.linear("self_attn.q_gate_proj", both, 2 * m.q_rank, width + count * m.value_dim)
        tokens = build.tokens
        query, gate = split(tape, heads(tape, wide), (tokens * width, tokens * count * m.value_dim))
        return query, low, copy(tape, gate)
    del compressed
    if m.scaled == "latents":
        low = scale(tape, low)
    return heads(tape, build.linear("self_attn.q_b_proj", low, m.q_rank, width)), low, None


def expanded(tape: Tape, key: Value, shared: Value, n: int) -> Value:
    """A new tensor that both parts are copied into; each part's gradient is a copy, the shared one's is summed."""
    first, second = key.n, shared.n

    def backward(g: Value) -> Sequence[Value | None]:
        return tape.value(first, g.item), tape.value(second, g.item)

    return tape.result(n, key.item, (key, shared), backward)
