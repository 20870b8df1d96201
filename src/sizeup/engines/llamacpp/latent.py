"""Multi-head latent attention in llama.cpp's graphs, and the choice of tokens in its sparse form.

Source: src/models/deepseek2.cpp, deepseek32.cpp and minicpm3.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from sizeup.engines.llamacpp.attention import attend, store
from sizeup.engines.llamacpp.builder import CACHE_BLOCK, Builder
from sizeup.engines.llamacpp.graph import FLOAT, HALF, INT, LONG, Node
from sizeup.engines.llamacpp.layers import Layer
from sizeup.models.mixers import Attention, Indexer, LatentAttention


def latent(b: Builder, layer: Layer, mixer: LatentAttention, source: Node) -> Node:
    """Multi-head latent attention in its absorbed form: all heads over one compressed key; expanded where it is so."""
    if layer.has("attn_kv_b"):
        return _expanded(b, layer, mixer, source)
    g, tokens = b.graph, b.sizes.tokens
    if layer.has("attn_q_a"):
        low = b.norm(b.multiply(layer, "attn_q_a", source), "attn_q_a_norm")
        if mixer.indexer and layer.has("indexer.attn_k"):
            b.chosen_tokens = _index(b, layer, mixer.indexer, low, source)
        q = b.multiply(layer, "attn_q_b", low)
    else:
        q = b.multiply(layer, "attn_q", source)
    q = g.view(q, (mixer.head_dim, mixer.heads, tokens))
    compressed = b.multiply(layer, "attn_kv_a_mqa", source)
    latent = g.view(compressed, (mixer.kv_rank, tokens), contiguous=False)
    k_rope = g.view(compressed, (mixer.rope_dim, 1, tokens), contiguous=False)
    roped = "no_rope" not in b.twists
    k_rope = g.op(k_rope.shape, k_rope, b.positions(), inplace=True) if roped else k_rope
    latent = b.norm(latent, "attn_kv_a_norm")
    q_nope = g.view(q, (mixer.nope_dim, mixer.heads, tokens), contiguous=False)
    q_rope = g.view(q, (mixer.rope_dim, mixer.heads, tokens), contiguous=False)
    q_rope = g.op(q_rope.shape, q_rope, b.positions(), inplace=True) if roped else q_rope
    absorbed = g.op((mixer.kv_rank, tokens, mixer.heads), *b.weight("attn_k_b"), g.view(q_nope, contiguous=False))
    queries = g.op((mixer.latent_elements, mixer.heads, tokens), g.view(absorbed, contiguous=False), q_rope)
    latent = g.view(latent, (mixer.kv_rank, 1, tokens))
    key = g.op((mixer.latent_elements, 1, tokens), latent, k_rope)
    g.expand(queries)
    g.expand(latent)
    g.expand(key)
    store(b, key, None, windowed=layer.windowed)
    return b.multiply(layer, "attn_output", _mix_latent(b, queries, mixer, windowed=layer.windowed))


def _expanded(b: Builder, layer: Layer, mixer: LatentAttention, source: Node) -> Node:
    """Keys and values of every head, computed from the compressed ones and cached so (MiniCPM3)."""
    g, tokens = b.graph, b.sizes.tokens
    low = b.norm(b.multiply(layer, "attn_q_a", source), "attn_q_a_norm") if layer.has("attn_q_a") else source
    q = g.view(b.multiply(layer, "attn_q_b" if layer.has("attn_q_b") else "attn_q", low))
    shape = (mixer.head_dim, mixer.heads, tokens)
    compressed = b.multiply(layer, "attn_kv_a_mqa", source)
    latent = b.norm(g.view(compressed, (mixer.kv_rank, tokens), contiguous=False), "attn_kv_a_norm")
    k_rope = g.view(compressed, (mixer.rope_dim, 1, tokens), contiguous=False)
    both = b.multiply(layer, "attn_kv_b", latent)
    k_nope = g.view(both, (mixer.nope_dim, mixer.heads, tokens), contiguous=False)
    v_shape = (mixer.value_dim, mixer.heads, tokens)
    v = g.op(v_shape, g.view(both, v_shape, contiguous=False))
    q = g.op(shape, g.view(q, shape), b.positions(), inplace=True)
    k_rope = g.op(k_rope.shape, k_rope, b.positions(), inplace=True)
    k = g.op(shape, k_nope, g.op((mixer.rope_dim, mixer.heads, tokens), k_rope))
    plain = Attention(mixer.heads, mixer.heads, mixer.head_dim, mixer.value_dim)
    return b.multiply(layer, "attn_output", attend(b, layer, plain, q, k, v, source))


def _mix_latent(b: Builder, queries: Node, mixer: LatentAttention, *, windowed: bool) -> Node:
    """The same mixing over compressed values, which each head then expands."""
    g, s = b.graph, b.sizes
    heads = g.view(g.view(queries), contiguous=False)
    mask = _sparse_mask(b, b.mask(windowed=windowed)) if mixer.indexer else b.mask(windowed=windowed)
    compressed, expanded = (mixer.kv_rank, s.tokens, mixer.heads), (mixer.value_dim, s.tokens, mixer.heads)
    stored = b.cached("keys", mixer.latent_elements, windowed=windowed)
    spread = b.weight("attn_v_b")
    if s.fused:
        extra = b.half_copies(stored, None)
        mixed = g.op((mixer.kv_rank, mixer.heads, s.tokens), heads, stored, mask, extra=extra)
        mixed = g.op(expanded, *spread, g.view(mixed, contiguous=False))
    else:
        scores = g.like(g.op((mask.shape[0], s.tokens, mixer.heads), stored, heads), mask)
        size = mask.shape[0] * s.key_bytes // CACHE_BLOCK * mixer.kv_rank * s.streams
        values = g.op((size,), stored, element=1)
        mixed = g.op(expanded, *spread, g.op(compressed, values, scores))
    return g.expand(g.op((mixer.value_dim * mixer.heads, s.tokens), g.view(mixed, contiguous=False)))


def _index(b: Builder, layer: Layer, indexer: Indexer, low: Node, source: Node) -> Node:
    """The lightning indexer: scores of all cells, and the best of them for each token."""
    g, s = b.graph, b.sizes
    shape = (indexer.head_dim, indexer.heads, s.tokens)
    matrix = b.input("indexer rotation", indexer.head_dim, indexer.head_dim)
    q = g.view(b.multiply(layer, "indexer.attn_q_b", low), shape)
    q = g.op(shape, matrix, g.op(shape, q, b.positions(), inplace=True))
    k = b.norm(b.multiply(layer, "indexer.attn_k", source), in_place=False)
    k = g.view(k, (indexer.head_dim, 1, s.tokens))
    k = g.op(k.shape, matrix, g.op(k.shape, k, b.positions(), inplace=True))
    cache = g.external(1, place=b.where.cache)
    g.store(cache, g.view(k), b.input("indexer slots", s.tokens, element=LONG))
    weights = g.view(b.multiply(layer, "indexer.proj", source))
    mask = b.input("indexer mask", s.full, s.tokens // s.streams, 1, s.streams, element=HALF)
    scores = g.op(mask.shape, g.view(q), g.like(weights), mask)
    best = (min(indexer.top_k, s.full), *mask.shape[1:])
    return g.op(best, g.op(best, scores, element=INT), element=INT)


def _sparse_mask(b: Builder, mask: Node) -> Node:
    """The mask with everything hidden but the indexer's choice."""
    g = b.graph
    element = HALF if b.sizes.fused else FLOAT
    hidden = g.op(mask.shape, mask, element=element, inplace=True)
    chosen = b.chosen_tokens
    assert chosen is not None  # noqa: S101  a layer that shares a choice follows one that makes it
    zeros = g.input(1, *chosen.shape)
    fill = g.like(zeros)
    shown = Node(mask.shape, 0, (fill, g.view(chosen, contiguous=False), g.view(hidden)), root=hidden, place=g.place)
    return g.op(mask.shape, g.view(shown), mask, element=element, inplace=True)
