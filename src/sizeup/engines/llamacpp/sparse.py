"""Block-sparse attention in llama.cpp's graphs (MiniMax-M3): an indexer scores blocks of cells for each head group.

It runs with flash attention and one stream for each sequence; otherwise llama.cpp falls back to dense attention.
Source: src/models/minimax-m3.cpp, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from sizeup.engines.llamacpp.builder import Builder
from sizeup.engines.llamacpp.graph import FLOAT, HALF, INT, LONG, Node, Shape
from sizeup.engines.llamacpp.layers import Layer
from sizeup.models.mixers import Attention, Indexer

#: Cells of a block (`indexer.block_size`), which configurations give and anatomies leave out.
BLOCK = 128


def is_sparse(b: Builder, mixer: Attention) -> bool:
    """Whether this layer chooses blocks in this graph."""
    s = b.sizes
    return mixer.indexer is not None and s.cached and s.fused and s.streams == s.sequences


def index(b: Builder, layer: Layer, indexer: Indexer, source: Node) -> Node:
    """The indexer's queries; its keys go to a cache of their own."""
    g, tokens = b.graph, b.sizes.tokens
    shapes = {"q": (indexer.head_dim, indexer.heads, tokens), "k": (indexer.head_dim, 1, tokens)}
    made = {}
    for part, shape in shapes.items():
        flat = g.view(b.multiply(layer, f"indexer.{part}_proj", source), shape)
        normed = b.norm(flat, f"indexer.{part}_norm")
        made[part] = g.op(shape, normed, b.positions(), inplace=True)
    cache = g.external(1, place=b.where.cache)
    g.store(cache, g.view(made["k"]), b.input("indexer slots", tokens, element=LONG))
    return made["q"]


def mix_blocks(b: Builder, q: Node, queries: Node, mixer: Attention, stored: tuple[Node, ...]) -> Node:
    """Attention over the chosen blocks, stream by stream: (heads · value_dim, tokens)."""
    g, s = b.graph, b.sizes
    assert mixer.indexer is not None  # noqa: S101  asked before
    each = s.tokens // s.streams
    width = mixer.value_dim * mixer.heads
    total: Node | None = None
    for stream in range(s.streams):
        mask = _block_mask(b, mixer.indexer, queries, each)
        heads = g.view(q, (mixer.head_dim, mixer.heads, each), contiguous=False)
        mixed = g.op((mixer.value_dim, mixer.heads, each), heads, *stored, mask, extra=b.half_copies(*stored))
        mixed = g.view(g.op(mixed.shape, g.view(mixed, contiguous=False)), (width, each))
        total = mixed if total is None else g.op((width, each * (stream + 1)), total, mixed)
    assert total is not None  # noqa: S101  there is a stream
    return total


def _block_mask(b: Builder, indexer: Indexer, queries: Node, tokens: int) -> Node:
    """The mask of one stream: causal, and open only for the blocks that score best.

    Sizes are those of a full cache: at start llama.cpp reserves for 256 positions only, and grows as they fill.
    """
    g, cells, heads = b.graph, b.sizes.full, indexer.heads
    blocks = -(-cells // BLOCK)
    places = blocks * BLOCK
    bias = b.input("block bias", blocks, b.sizes.tokens)
    seen = b.input("positions seen", places, b.sizes.tokens)
    slots = b.input("cells of positions", places * b.sizes.streams, element=INT)
    blocks_of_cells = b.input("blocks of cells", cells * b.sizes.streams, element=INT)
    causal = b.once("single mask", lambda: g.op(b.mask(windowed=False).shape, b.mask(windowed=False)))

    keys = g.op((indexer.head_dim, places), b.cached("keys", indexer.head_dim, windowed=False), g.view(slots))
    products = g.op((places, heads * tokens), keys, g.view(queries, contiguous=False))
    scores = _over(b, products, g.view(products), g.view(seen, contiguous=False))
    best = g.op((blocks, heads, tokens), scores)
    ranked = g.like(best, g.view(bias, contiguous=False))
    chosen = g.op((min(indexer.top_k // BLOCK, blocks), heads, tokens), ranked, element=INT)

    hidden: Node = g.op((blocks, 1, tokens), g.view(bias, contiguous=False))
    hidden = g.op(hidden.shape, hidden, element=HALF)
    hidden = g.op((blocks, heads, tokens), hidden, element=HALF)
    zeros = g.like(g.op(chosen.shape, chosen))
    opened = _over(b, hidden, g.view(zeros), g.view(chosen), g.view(hidden))
    turned: Node = g.op((blocks, tokens, heads), g.view(opened, contiguous=False), element=HALF)
    turned = g.op((tokens * heads, blocks), g.view(turned, contiguous=False), element=HALF)
    spread = g.op((tokens * heads, cells), turned, g.view(blocks_of_cells))
    spread = g.op((cells, tokens * heads), g.view(spread, contiguous=False))
    masked = _over(b, spread, g.view(spread), g.view(causal, contiguous=False))
    return g.op((cells, tokens, 1, heads), g.view(masked), element=HALF)


def _over(b: Builder, target: Node, *sources: Node) -> Node:
    """An operation that writes over its target."""
    shape: Shape = target.shape
    return Node(shape, target.size, sources, layout=(FLOAT, *shape), root=target, place=b.graph.place)
