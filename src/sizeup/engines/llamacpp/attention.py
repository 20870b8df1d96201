"""Attention in llama.cpp's graphs: projections, cache, scores, mixing.

Source: build_attn and build_attn_mha in src/llama-graph.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from sizeup.engines.llamacpp.builder import CACHE_BLOCK, Builder
from sizeup.engines.llamacpp.graph import FLOAT, HALF, INT, Node
from sizeup.engines.llamacpp.layers import Layer
from sizeup.engines.llamacpp.sparse import index, is_sparse, mix_blocks
from sizeup.models.mixers import Attention


def attention(b: Builder, layer: Layer, mixer: Attention, source: Node) -> Node:
    """Grouped-query attention, projections included: (hidden, tokens)."""
    q, k, v = _queries_keys_values(b, layer, mixer, source)
    mixed = attend(b, layer, mixer, q, k, v, source)
    if b.query_gate is not None:
        gate = b.graph.op(mixed.shape, b.query_gate)
        mixed = b.graph.op(mixed.shape, mixed, gate, inplace=True)
        b.query_gate = None
    if layer.has("attn_gate"):
        mixed = _gated(b, layer, mixer, mixed, source)
    return b.multiply(layer, "attn_output" if layer.has("attn_output") else "attn_o", mixed)


def _gated(b: Builder, layer: Layer, mixer: Attention, mixed: Node, source: Node) -> Node:
    """The result times a gate made of what attention read: one value for each, or for each head."""
    g = b.graph
    gate = b.multiply(layer, "attn_gate", source)
    if gate.shape[0] != mixer.heads:
        return g.op(mixed.shape, mixed, gate, inplace=True)
    heads = (mixer.value_dim, mixer.heads, b.sizes.tokens)
    return g.view(g.like(g.view(mixed, heads), g.view(gate, (1, *heads[1:]))), mixed.shape)


def _queries_keys_values(
    b: Builder, layer: Layer, mixer: Attention, source: Node
) -> tuple[Node, Node | None, Node | None]:
    g, tokens = b.graph, b.sizes.tokens
    q_shape = (mixer.head_dim, mixer.heads, tokens)
    k_shape = (mixer.head_dim, mixer.kv_heads, tokens)
    v_shape = (mixer.value_dim, mixer.kv_heads, tokens)
    k: Node | None = None
    v: Node | None = None
    if layer.has("attn_qkv"):
        merged = b.multiply(layer, "attn_qkv", source)
        q = g.view(merged, q_shape, contiguous=False)
        k = g.view(merged, k_shape, contiguous=False)
        v = g.view(merged, v_shape, contiguous=False)
    else:
        q = _headed(b, layer, "attn_q", source, q_shape)
        if layer.has("attn_k") and not mixer.shares_cache:
            k = _headed(b, layer, "attn_k", source, k_shape)
            v = _headed(b, layer, "attn_v", source, v_shape) if layer.has("attn_v") else g.view(k, v_shape)
    return _turned(b, layer, "attn_q", q), _turned(b, layer, "attn_k", k) if k else None, v


def _has_rope(b: Builder, layer: Layer) -> bool:
    return "no_rope" not in b.twists and (layer.windowed or "rope_in_windows" not in b.twists)


def _headed(b: Builder, layer: Layer, stem: str, source: Node, shape: tuple[int, ...]) -> Node:
    """A projection seen as heads; a norm over all heads comes before, one over each head after."""
    flat = b.multiply(layer, stem, source)
    norm = layer.tensors.get(f"{stem}_norm.weight")
    if norm and norm[-1] == flat.shape[0]:
        flat = b.norm(flat, f"{stem}_norm")
    if flat.shape[0] == 2 * shape[0] * shape[1]:
        b.query_gate = b.graph.view(flat, shape, contiguous=False)
        return b.graph.view(flat, shape, contiguous=False)
    return b.graph.view(flat, shape)


def _turned(b: Builder, layer: Layer, stem: str, heads: Node) -> Node:
    """Norm over each head, then rotary positions."""
    norm = layer.tensors.get(f"{stem}_norm.weight")
    if norm and norm[-1] == heads.shape[0]:
        heads = b.norm(heads, f"{stem}_norm")
    if not _has_rope(b, layer):
        return heads
    heads = b.graph.op(heads.shape, heads, b.positions(), inplace=True)
    if "scaled_queries" in b.twists and stem == "attn_q":
        heads = b.graph.like(heads, b.input("query scale", 1, 1, b.sizes.tokens))
    return heads


def attend(b: Builder, layer: Layer, mixer: Attention, q: Node, k: Node | None, v: Node | None, source: Node) -> Node:
    """Store keys and values, and mix: (heads · value_dim, tokens)."""
    g, windowed = b.graph, layer.windowed
    queries = index(b, layer, mixer.indexer, source) if mixer.indexer and is_sparse(b, mixer) else None
    if b.sizes.cached:
        key_matrix = b.rotation("keys", mixer.head_dim, windowed=windowed)
        value_matrix = b.rotation("values", mixer.value_dim, windowed=windowed)
        q = g.expand(b.rotate(q, key_matrix))
        v = g.expand(b.rotate(v, value_matrix)) if v else None
        k = g.expand(b.rotate(k, key_matrix)) if k else None
        store(b, k, v, windowed=windowed)
        stored = (
            b.cached("keys", mixer.kv_heads * mixer.head_dim, windowed=windowed),
            b.cached("values", mixer.kv_heads * mixer.value_dim, windowed=windowed),
        )
        if queries is not None:
            return b.rotate(mix_blocks(b, q, queries, mixer, stored), value_matrix)
        mixed = mix(b, q, mixer, b.mask(windowed=windowed), stored=stored, bias=_relative_bias(b, mixer))
        return b.rotate(mixed, value_matrix)
    g.expand(q)
    assert k is not None and v is not None  # noqa: S101, PT018  nothing to share without a cache
    g.expand(k)
    g.expand(v)
    return mix(b, q, mixer, b.mask(windowed=windowed), keys=k, values=v, bias=_relative_bias(b, mixer))


def cross(b: Builder, layer: Layer, mixer: Attention, source: Node) -> Node:
    """Attention over the encoder's output, whose keys and values are computed anew."""
    g, s = b.graph, b.sizes
    encoded = b.input("encoder output", source.shape[0], s.encoder_tokens)
    q = g.view(b.multiply(layer, "cross_attn_q", source), (mixer.head_dim, mixer.heads, s.tokens))
    shape = (mixer.head_dim, mixer.kv_heads, s.encoder_tokens)
    k = g.view(b.multiply(layer, "cross_attn_k", encoded), shape)
    v = g.view(b.multiply(layer, "cross_attn_v", encoded), shape)
    for node in (q, k, v):
        g.expand(node)
    mask = b.input("cross mask", s.encoder_tokens, s.tokens, element=HALF if s.fused else FLOAT)
    return b.multiply(layer, "cross_attn_o", mix(b, q, mixer, mask, keys=k, values=v))


def _relative_bias(b: Builder, mixer: Attention) -> Node | None:
    """T5's learned bias of scores by distance: one value for each head, cell and token."""
    if "relative_bias" not in b.twists:
        return None
    g, s = b.graph, b.sizes
    cells = s.full if s.cached else s.tokens
    buckets = b.input("buckets", cells, s.tokens, element=INT)
    rows = g.op((mixer.heads, cells * s.tokens), g.view(buckets, (cells * s.tokens,)))
    return g.op((cells, s.tokens, mixer.heads), g.view(g.view(rows), contiguous=False))


def store(b: Builder, k: Node | None, v: Node | None, *, windowed: bool) -> None:
    """Write keys and values into the cache; without flash attention values are stored the other way round."""
    g, cache = b.graph, b.graph.external(1, place=b.where.cache)
    if k is not None:
        g.store(cache, g.view(k), b.slots("keys", windowed=windowed))
    if v is None:
        return
    if b.sizes.fused:
        flat = g.view(v)
    else:
        flat = g.view(v) if v.layout is not None else g.op(v.shape, v)
        width = v.shape[0] * v.shape[1]
        if width < b.sizes.value_width:
            flat = g.op((b.sizes.value_width, b.sizes.tokens), flat)
        flat = g.view(flat)
    g.store(cache, flat, b.slots("values", windowed=windowed))


def mix(
    b: Builder,
    q: Node,
    mixer: Attention,
    mask: Node,
    *,
    keys: Node | None = None,
    values: Node | None = None,
    stored: tuple[Node, ...] = (),
    bias: Node | None = None,
) -> Node:
    """Scores, softmax, and the values' mean: build_attn_mha. A bias of the scores rules flash attention out.

    keys, values: computed just now; stored: both in the cache.
    """
    g, s = b.graph, b.sizes
    heads = g.view(g.view(q), contiguous=False)
    if s.fused and bias is None:
        casts = [g.op(n.shape, g.view(n, contiguous=False), element=HALF) for n in (keys, values) if n]
        extra = b.half_copies(*stored) if stored else 0
        shape = (mixer.value_dim, mixer.heads, s.tokens)
        mixed = g.op(shape, heads, *casts, *stored, mask, extra=extra)
        return g.expand(g.view(mixed, (mixer.value_dim * mixer.heads, s.tokens)))
    keyed = (g.view(keys, contiguous=False),) if keys else stored[:1]
    scores = g.op((mask.shape[0], s.tokens, mixer.heads), *keyed, heads)
    if bias is not None:
        scores = g.like(scores, bias)
    turned = _turned_values(b, mixer, mask.shape[0], values, stored)
    mixed = g.op((mixer.value_dim, s.tokens, mixer.heads), *turned, g.like(scores, mask))
    return g.expand(g.op((mixer.value_dim * mixer.heads, s.tokens), g.view(mixed, contiguous=False)))


def _turned_values(
    b: Builder, mixer: Attention, cells: int, values: Node | None, stored: tuple[Node, ...]
) -> tuple[Node, ...]:
    """Values the other way round: a copy, except in a cache without flash attention, which stores them so."""
    g, s = b.graph, b.sizes
    if values is not None:
        return (g.op(values.shape, g.view(values, contiguous=False)),)
    if not s.fused:
        return stored[1:]
    size = cells * s.value_bytes // CACHE_BLOCK * mixer.value_dim * mixer.kv_heads * s.streams
    return (g.op((size,), *stored[1:], element=1),)
