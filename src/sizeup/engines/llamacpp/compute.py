"""The compute buffers: what llama.cpp reserves for the intermediate results of its largest graph.

The graph of one batch is rebuilt in miniature and run through llama.cpp's own allocation rules, so the figure is the
allocator's and no rule of thumb. Layers that repeat are built as often as it takes for the pattern to settle.

Source: sched_reserve and graph_reserve in src/llama-context.cpp, build_arch_graph in src/models/*.cpp,
llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

import msgspec

from sizeup.engines.llamacpp.backends import CPU, Backend
from sizeup.engines.llamacpp.builder import Builder, Sizes
from sizeup.engines.llamacpp.cache import cache_sizes, context_tokens, layer_memories, uses_flash_attention
from sizeup.engines.llamacpp.graph import INT, Graph, Node, peak_bytes
from sizeup.engines.llamacpp.layers import Layer, Trunk, trunk
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.recurrent import recurrent
from sizeup.engines.llamacpp.setting import UNQUANTIZED, LlamaSetting
from sizeup.engines.llamacpp.twists import twists_of
from sizeup.engines.llamacpp.weights import HOST, Assignment
from sizeup.models.mixers import LatentAttention
from sizeup.models.model import Model


#: Context that is assumed where a model names none.
DEFAULT_CONTEXT = 2048


class PlacedCompute(msgspec.Struct, frozen=True):
    """Compute buffers: one on each GPU, one on the host."""

    gpus: tuple[int, ...]
    host: int


def graph_sizes(model: Model, setting: LlamaSetting) -> Sizes:
    """The sizes of the graph that is reserved at start: a full ubatch over a full cache."""
    tokens = min(context_tokens(setting), setting.ubatch_tokens)
    tokens = -(-tokens // setting.parallel) * setting.parallel
    memories = layer_memories(model)
    cells = cache_sizes(model, setting) if memories else None
    heads = {m.key_head for m in memories if m.keys}
    values = {m.value_head for m in memories if m.values}
    return Sizes(
        tokens=tokens,
        rows=tokens if "encoder" in twists_of(trunk(model).architecture) else min(tokens, setting.output_rows),
        sequences=setting.parallel,
        streams=cells.streams if cells else 1,
        full=cells.full if cells else tokens,
        windowed=cells.windowed if cells else tokens,
        fused=uses_flash_attention(setting),
        rotate_keys=setting.cache_k.lower() not in UNQUANTIZED and len(heads) == 1,
        rotate_values=setting.cache_v.lower() not in UNQUANTIZED and len(values) == 1,
        value_width=max((m.values for m in memories), default=0),
        key_type=setting.cache_k.upper(),
        value_type=setting.cache_v.upper(),
        snapshots=setting.recurrent_snapshots,
        encoder_tokens=model.context or DEFAULT_CONTEXT,
        cached=bool(memories),
    )


def compute_buffers(
    model: Model, setting: LlamaSetting, assignment: Assignment, backends: tuple[Backend, ...]
) -> PlacedCompute:
    """The buffers on each device for this setting."""
    peaks = _peaks(model, graph_sizes(model, setting), settled(trunk(model).order))
    gpus = [peaks if gpu in assignment.gpus else 0 for gpu in range(len(backends))]
    return PlacedCompute(tuple(gpus), peaks if not assignment.gpus else 0)


@by_model
def _peaks(model: Model, sizes: Sizes, order: tuple[int, ...]) -> int:
    graph = Graph(HOST)
    build(model, graph, sizes, order)
    _reserve_for_skipped(model, graph, sizes, order)
    return peak_bytes(graph, {HOST: CPU.alignment})[HOST]


def settled(order: tuple[int, ...]) -> tuple[int, ...]:
    """The layers that decide the peak: each run of kinds seen once with its neighbours, and both ends."""
    last = len(order) - 1
    seen: set[tuple[int, ...]] = set()
    kept = []
    for place, kind in enumerate(order):
        around = order[max(0, place - 2) : place + 2]
        if place < 2 or place >= last - 1 or around not in seen:
            kept.append(kind)
        seen.add(around)
    return tuple(kept)


def _reserve_for_skipped(model: Model, graph: Graph, sizes: Sizes, order: tuple[int, ...]) -> None:
    """Sparse attention holds a zeroed tensor for every layer from the start, also for the layers left out here."""
    layers = trunk(model)
    for kind, layer in enumerate(layers.kinds):
        mixer = layer.attention()
        if isinstance(mixer, LatentAttention) and mixer.indexer:
            skipped = layers.order.count(kind) - order.count(kind)
            zeros = min(mixer.indexer.top_k, sizes.full) * sizes.tokens
            graph.leaves[:0] = [graph.input(zeros) for _ in range(skipped)]


def build(model: Model, graph: Graph, sizes: Sizes, order: tuple[int, ...]) -> Node:
    """The graph of one batch through those layers, by the number of their kind."""
    layers = trunk(model)
    b = Builder(graph, sizes, twists_of(layers.architecture))
    cur = _embed(b, layers, model.hidden)
    for place, kind in enumerate(order):
        cur = _layer(b, layers.kinds[kind], cur, last=place == len(order) - 1)
    return graph.expand(_head(b, layers, cur, model.vocabulary))


def _embed(b: Builder, layers: Trunk, hidden: int) -> Node:
    """Token embeddings; the same for a batch of embeddings is reserved beside them."""
    g, tokens = b.graph, b.sizes.tokens
    ids = b.input("tokens", tokens, element=INT)
    embedded = g.expand(g.op((hidden, tokens), ids))
    g.expand(b.input("embeddings", hidden, tokens))
    if "position_embd.weight" in layers.outside:
        embedded = g.like(embedded, g.op((hidden, tokens), b.positions()))
    if "token_embd_norm.weight" in layers.outside:
        embedded = b.norm(embedded)
    return embedded


def _layer(b: Builder, layer: Layer, residual: Node, *, last: bool) -> Node:
    """One layer: mixer and feed-forward, each with its norms, each added to the residual."""
    g = b.graph
    last = last and "late_rows" not in b.twists
    normed = b.norm(residual) if layer.has("attn_norm") or "plain_norm" in b.twists else residual
    if "norm_first" in b.twists:
        g.expand(normed)
    mixed = _mix(b, layer, normed, residual)
    if cross := layer.cross():
        residual = g.op(mixed.shape, mixed, residual, inplace=True)
        mixed = b.cross(layer, cross, b.norm(residual))
    if last:
        mixed, residual = b.take_rows(mixed), b.take_rows(residual)
    if not layer.has_mixer or not layer.has_feed_forward:
        return g.op(mixed.shape, mixed, residual, inplace=True)
    if layer.has("layer_output_norm") and layer.has("attn_output_norm"):
        return _post_norm_layer(b, layer, mixed, residual)
    before, after = _norms_of_the_second_half(b, layer)
    if not before and not after:
        return _parallel(b, layer, mixed, b.take_rows(normed) if last else normed, residual)
    if "parallel_norms" in b.twists:
        return _parallel(b, layer, mixed, b.norm(residual), residual)
    if after and layer.has("post_attention_norm"):
        mixed = b.norm(mixed)
    middle = g.op(mixed.shape, mixed, residual, inplace=True)
    forward = b.feed_forward(layer, b.norm(middle) if before else middle)
    if after:
        forward = b.norm(forward)
    return g.op(forward.shape, forward, middle, inplace=True)


def _norms_of_the_second_half(b: Builder, layer: Layer) -> tuple[bool, bool]:
    """Whether there is a norm before the feed-forward, and after it."""
    after = layer.has("post_ffw_norm")
    named_otherwise = layer.has("attn_output_norm") or (layer.has("post_attention_norm") and not after)
    return layer.has("ffn_norm") or named_otherwise or "plain_norm" in b.twists, after


def _mix(b: Builder, layer: Layer, normed: Node, residual: Node) -> Node:
    """The layer's mixer; both where there are two side by side; the feed-forward in a layer that has nothing else."""
    mixer, state = layer.attention(), layer.recurrent()
    if isinstance(mixer, LatentAttention):
        return b.latent(layer, mixer, normed)
    if mixer is None:
        return b.feed_forward(layer, normed) if state is None else recurrent(b, layer, state, normed)
    mixed = b.attention(layer, mixer, normed)
    if state is None:
        return mixed
    return b.graph.op(mixed.shape, mixed, recurrent(b, layer, state, b.norm(residual)), inplace=True)


def _parallel(b: Builder, layer: Layer, mixed: Node, normed: Node, residual: Node) -> Node:
    """Attention and feed-forward side by side on the same residual."""
    forward = b.feed_forward(layer, normed)
    pair = (mixed, forward) if "attention_first" in b.twists else (forward, mixed)
    both = b.graph.op(forward.shape, *pair, inplace=True)
    return b.graph.op(both.shape, both, residual, inplace=True)


def _post_norm_layer(b: Builder, layer: Layer, mixed: Node, residual: Node) -> Node:
    """BERT: norms after each half."""
    g = b.graph
    middle = b.norm(g.op(mixed.shape, mixed, residual, inplace=True))
    forward = b.feed_forward(layer, middle)
    return b.norm(g.op(forward.shape, forward, middle, inplace=True))


def _head(b: Builder, layers: Trunk, cur: Node, vocabulary: int) -> Node:
    """Final norm and logits; both are results, which are never freed."""
    if "output_norm.weight" in layers.outside or "plain_norm" in b.twists:
        cur = b.norm(cur)
    cur.kept = True
    if "late_rows" in b.twists:
        cur = b.take_rows(cur)
        cur.kept = True
    if "headless" in b.twists:
        return cur
    logits = b.graph.op((vocabulary, *cur.shape[1:]), cur)
    logits.kept = True
    return logits
