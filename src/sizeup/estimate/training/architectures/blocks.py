"""MiniMax-M3's index: which blocks of keys each query sees, and the mask of every head that follows from it.

The index has weights and makes a graph, but only numbers of blocks come of it: what it keeps goes when it returns, and
its weights get no gradient. Source: transformers 5.23, `models/minimax_m3_vl/modeling_minimax_m3_vl.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sizeup.estimate.training.basic import cast
from sizeup.estimate.training.tape import Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.layer import Layer


class Blocks(msgspec.Struct, frozen=True):
    """heads of `head_dim` score keys; of every `size` of them the best counts; `chosen` blocks are seen."""

    heads: int
    head_dim: int
    size: int
    chosen: int


def block_mask(layer: Layer, x: Value, item: int, blocks: Blocks) -> Value:
    """A number for every head, query and key, made of the blocks that each group of heads has chosen."""
    build = layer.build
    tape, pairs = build.tape, build.tokens * build.sequence
    chosen = _chosen(layer, x, blocks)
    rows = build.tokens * blocks.heads * (-(-build.sequence // blocks.size) + 1)
    inside = tape.value(chosen.n, 8)
    bias = tape.value(rows, item)
    kept = tape.value(blocks.heads * pairs, 1)
    kept = tape.value(layer.shape.head_count * pairs, 1)
    if layer.mask is None:
        tape.transient(pairs, pairs)
    keep = tape.value(layer.shape.head_count * pairs, 1)
    zeros = tape.value(keep.n, item)
    unseen = tape.value(keep.n, 1)
    found = tape.value(keep.n, item)
    del inside, bias, kept, keep, zeros, unseen
    return found


def _chosen(layer: Layer, x: Value, blocks: Blocks) -> Value:
    """Numbers of the blocks: scores of all keys in fp32, the largest of each block, the best blocks."""
    build, shape = layer.build, layer.shape
    tape, tokens, s = build.tape, build.tokens, build.sequence
    bottom, before = len(tape.nodes), build.idle
    build.idle = True
    q = build.linear("self_attn.indexer.q_proj", x, shape.hidden, blocks.heads * blocks.head_dim)
    q = layer.norm("self_attn.indexer.q_norm", q, blocks.head_dim)
    k = build.linear("self_attn.indexer.k_proj", x, shape.hidden, blocks.head_dim)
    k = layer.norm("self_attn.indexer.k_norm", k, blocks.head_dim)
    build.idle = before
    q, k = layer.turned(q), layer.turned(k)
    wide_q, wide_k = cast(tape, q, 4), cast(tape, k, 4)
    if tape.autocast:
        wide_q, wide_k = cast(tape, wide_q, tape.autocast), cast(tape, wide_k, tape.autocast)
    copies = tape.value(blocks.heads * wide_k.n, wide_k.item)
    scores = tape.value(tokens * blocks.heads * s, wide_q.item)
    future = tape.value(tokens * s, 1)
    masked = tape.value(scores.n, scores.item)
    count = -(-s // blocks.size)
    best = tape.value(tokens * blocks.heads * count, scores.item)
    n = tokens * blocks.heads * blocks.chosen if blocks.chosen < count else tokens * blocks.heads * count
    values, numbers = tape.value(n, scores.item), tape.value(n, 8)
    found = tape.value(n, 8)
    del tape.nodes[bottom:]
    del wide_q, wide_k, copies, future, masked, best, values, numbers
    return found
