"""The parts that llama.cpp's graphs are made of: norms, projections, attention, feed-forwards, mixtures.

Each function adds the nodes that the one of the same name adds in src/llama-graph.cpp, llama.cpp 0.5.0 (0c1e570);
operations that always work in place on a fresh result (biases, scales, activations) are left out, for they neither
take nor keep memory.
"""

from __future__ import annotations

import msgspec

from math import prod

from sizeup.engines.llamacpp.backends import Backend
from sizeup.engines.llamacpp.graph import FLOAT, HALF, INT, LONG, Graph, Node
from sizeup.engines.llamacpp.layers import Layer
from sizeup.formats.storage import STORAGES
from sizeup.models.mixers import Attention, Indexer, LatentAttention

#: Quantized caches are rotated by a Hadamard matrix of this size, or a larger power of two that divides a key's head.
ROTATION = 64


class Sizes(msgspec.Struct, frozen=True):
    """What the sizes of a graph depend on, beside the model.

    tokens, rows: of the ubatch, and how many of them give logits. sequences: in the batch; streams: caches.
    full, windowed: cells a stream that the masks cover. fused: flash attention.
    rotate_keys, rotate_values: quantized caches. value_width: the most value elements of a layer's token.
    key_type, value_type: of the cache. encoder_tokens: that cross attention looks at. snapshots: of recurrent states. cached: whether there is a cache.
    """

    tokens: int
    rows: int
    sequences: int
    streams: int
    full: int
    windowed: int
    fused: bool
    rotate_keys: bool
    rotate_values: bool
    value_width: int
    key_type: str
    value_type: str
    encoder_tokens: int
    snapshots: int
    cached: bool


class Where(msgspec.Struct, frozen=True):
    """Where a layer's things are: its operations, its cache, its weights, its routed experts, and their operations."""

    compute: int
    cache: int
    weights: int
    experts: int
    expert_compute: int


class Builder:
    """A graph in the making, for one batch of `sizes`; twists: what the architecture does its own way.

    host: the place of inputs. kernels: place → what that device's backend asks for beyond results.
    """

    def __init__(
        self, graph: Graph, sizes: Sizes, twists: frozenset[str], kernels: dict[int, Backend], host: int
    ) -> None:
        self.graph, self.sizes, self.twists = graph, sizes, twists
        self.kernels, self.host = kernels, host
        self.where = Where(*[graph.place] * 5)
        self.weight_bytes: dict[str, int] = {}
        self._inputs: dict[str, Node] = {}
        self._query_gate: Node | None = None
        self._norm_place = graph.place
        self.chosen_tokens: Node | None = None

    # ── inputs ────────────────────────────────────────────────────────────────────────────────────────────────

    def input(self, name: str, *shape: int, element: int = FLOAT) -> Node:
        """An input by name, made when it is first asked for; inputs are filled on the host."""
        if name not in self._inputs:
            self._inputs[name] = self.graph.input(*shape, element=element, place=self.host)
        return self._inputs[name]

    def positions(self) -> Node:
        """Positions of the tokens."""
        per_token = 4 if "mrope" in self.twists else 1
        return self.input("positions", self.sizes.tokens * per_token, element=INT)

    def output_rows(self) -> Node:
        """Which tokens give logits."""
        return self.input("output rows", self.sizes.rows, element=INT)

    def mask(self, *, windowed: bool) -> Node:
        """Which cells each token sees: half precision for flash attention, single without."""
        s = self.sizes
        cells = (s.windowed if windowed else s.full) if s.cached else s.tokens
        element = HALF if s.fused else FLOAT
        name = "window mask" if windowed else "mask"
        return self.input(name, cells, s.tokens // s.streams, 1, s.streams, element=element)

    def slots(self, what: str, *, windowed: bool) -> Node:
        """Cells that the batch's keys (or values, one index each without flash attention) go to."""
        s = self.sizes
        each = s.value_width if what == "values" and not s.fused else 1
        return self.input(f"{what} slots {windowed}", s.tokens * each, element=LONG)

    def rotation(self, what: str, head: int, *, windowed: bool) -> Node | None:
        """The Hadamard matrix for a quantized cache of keys or values; None when there is none."""
        wanted = self.sizes.rotate_keys if what == "keys" else self.sizes.rotate_values
        if not wanted or head % ROTATION:
            return None
        size = ROTATION
        while what == "keys" and head % (2 * size) == 0:
            size *= 2
        return self.input(f"{what} rotation {windowed}", size, size)

    # ── small parts ───────────────────────────────────────────────────────────────────────────────────────────

    def enter(self, where: Where, weight_bytes: dict[str, int], *, norm_stays: bool = False) -> None:
        """The next nodes belong to a layer whose things are there. weight_bytes: of its tensors, by stem.

        norm_stays: when the layer before is on another GPU, the first norm is still computed there.
        """
        left = self.graph.place
        self._norm_place = left if norm_stays and left != self.host else where.compute
        self.where, self.weight_bytes, self.graph.place = where, weight_bytes, where.compute

    def weight(self, stem: str, suffix: str = "weight") -> tuple[Node, ...]:
        """A weight as a source, when it lies elsewhere than it is used."""
        place = self.where.experts if stem.endswith("_exps") else self.where.weights
        if place == self.graph.place:
            return ()
        return (self.graph.weight(self.weight_bytes.get(f"{stem}.{suffix}", 0), place),)

    def multiply(self, layer: Layer, stem: str, source: Node) -> Node:
        """A projection: (width, tokens …)."""
        return self.biased(layer, stem, self.graph.op((layer.width(stem), *source.shape[1:]), *self.weight(stem), source))

    def biased(self, layer: Layer, stem: str, product: Node) -> Node:
        """A bias works in place; it only counts when it has to be fetched from another device."""
        bias = self.weight(stem, "bias") if layer.has(stem, "bias") else ()
        return self.graph.like(product, *bias) if bias else product

    @property
    def kernel(self) -> Backend:
        """The backend of the device that nodes are on now."""
        return self.kernels[self.where.compute]

    def cached(self, what: str, elements: int, *, windowed: bool) -> Node:
        """The keys or values of a layer in the cache, as a source."""
        s = self.sizes
        cells = (s.windowed if windowed else s.full) * s.streams
        storage = STORAGES[s.key_type if what == "keys" else s.value_type]
        size = cells * elements * storage.block_bytes // storage.block_elements
        return self.graph.external(elements, cells, size=size, place=self.where.cache)

    def half_copies(self, keys: Node, values: Node | None) -> int:
        """Bytes that a fused attention kernel wants for keys and values in half precision."""
        if not self.kernel.halves_cache:
            return 0
        return sum(
            prod(node.shape) * HALF
            for node, kind in ((keys, self.sizes.key_type), (values, self.sizes.value_type))
            if node is not None and (kind != "F16" or self.kernel.halves_always)
        )

    def norm(self, source: Node, *, in_place: bool | None = None) -> Node:
        """RMS norm works in place on what nobody else reads; layer norm never does."""
        rms = "layer_norm" not in self.twists if in_place is None else in_place
        return self.graph.op(source.shape, source, inplace=rms)

    def first_norm(self, source: Node) -> Node:
        """The norm that a layer begins with; only its weights are sure to be where the layer is."""
        if self._norm_place == self.where.compute:
            return self.norm(source)
        self.graph.place = self._norm_place
        normed = self.norm(source)
        self.graph.place = self.where.compute
        return self.graph.like(normed)

    def rotate(self, source: Node, matrix: Node | None) -> Node:
        """Heads times a Hadamard matrix."""
        if matrix is None:
            return source
        g = self.graph
        flat = g.view(source) if source.layout is not None else g.op(source.shape, source)
        return g.view(g.op(source.shape, matrix, flat))

    def take_rows(self, source: Node) -> Node:
        """Only the rows that give logits."""
        return self.graph.op((source.shape[0], self.sizes.rows), source, self.output_rows())

    # ── attention ─────────────────────────────────────────────────────────────────────────────────────────────

    def attention(self, layer: Layer, mixer: Attention, source: Node) -> Node:
        """Grouped-query attention, projections included: (hidden, tokens)."""
        q, k, v = self._queries_keys_values(layer, mixer, source)
        mixed = self.attend(layer, mixer, q, k, v)
        if self._query_gate is not None:
            gate = self.graph.op(mixed.shape, self._query_gate)
            mixed = self.graph.op(mixed.shape, mixed, gate, inplace=True)
            self._query_gate = None
        return self.multiply(layer, "attn_output" if layer.has("attn_output") else "attn_o", mixed)

    def _queries_keys_values(self, layer: Layer, mixer: Attention, source: Node) -> tuple[Node, Node | None, Node | None]:
        g, tokens = self.graph, self.sizes.tokens
        q_shape = (mixer.head_dim, mixer.heads, tokens)
        k_shape = (mixer.head_dim, mixer.kv_heads, tokens)
        v_shape = (mixer.value_dim, mixer.kv_heads, tokens)
        k: Node | None = None
        v: Node | None = None
        if layer.has("attn_qkv"):
            merged = self.multiply(layer, "attn_qkv", source)
            q = g.view(merged, q_shape, contiguous=False)
            k = g.view(merged, k_shape, contiguous=False)
            v = g.view(merged, v_shape, contiguous=False)
        else:
            q = self._headed(layer, "attn_q", source, q_shape)
            if layer.has("attn_k"):
                k = self._headed(layer, "attn_k", source, k_shape)
                v = self._headed(layer, "attn_v", source, v_shape) if layer.has("attn_v") else g.view(k, v_shape)
        return self._turned(layer, "attn_q", q), self._turned(layer, "attn_k", k) if k else None, v

    def _has_rope(self, layer: Layer) -> bool:
        return "no_rope" not in self.twists and (layer.windowed or "rope_in_windows" not in self.twists)

    def _headed(self, layer: Layer, stem: str, source: Node, shape: tuple[int, ...]) -> Node:
        """A projection seen as heads; a norm over all heads comes before, one over each head after."""
        flat = self.multiply(layer, stem, source)
        norm = layer.tensors.get(f"{stem}_norm.weight")
        if norm and norm[-1] == flat.shape[0]:
            flat = self.norm(flat)
        if flat.shape[0] == 2 * shape[0] * shape[1]:
            self._query_gate = self.graph.view(flat, shape, contiguous=False)
            return self.graph.view(flat, shape, contiguous=False)
        return self.graph.view(flat, shape)

    def _turned(self, layer: Layer, stem: str, heads: Node) -> Node:
        """Norm over each head, then rotary positions."""
        norm = layer.tensors.get(f"{stem}_norm.weight")
        if norm and norm[-1] == heads.shape[0]:
            heads = self.norm(heads)
        if not self._has_rope(layer):
            return heads
        heads = self.graph.op(heads.shape, heads, self.positions(), inplace=True)
        if "scaled_queries" in self.twists and stem == "attn_q":
            heads = self.graph.like(heads, self.input("query scale", 1, 1, self.sizes.tokens))
        return heads

    def attend(self, layer: Layer, mixer: Attention, q: Node, k: Node | None, v: Node | None) -> Node:
        """Store keys and values, and mix: (heads · value_dim, tokens)."""
        g, windowed = self.graph, layer.windowed
        if self.sizes.cached:
            key_matrix = self.rotation("keys", mixer.head_dim, windowed=windowed)
            value_matrix = self.rotation("values", mixer.value_dim, windowed=windowed)
            q = g.expand(self.rotate(q, key_matrix))
            v = g.expand(self.rotate(v, value_matrix)) if v else None
            k = g.expand(self.rotate(k, key_matrix)) if k else None
            self._store(k, v, windowed=windowed)
            stored = (
                self.cached("keys", mixer.kv_heads * mixer.head_dim, windowed=windowed),
                self.cached("values", mixer.kv_heads * mixer.value_dim, windowed=windowed),
            )
            mixed = self.mix(q, mixer, self.mask(windowed=windowed), stored=stored, bias=self._relative_bias(mixer))
            return self.rotate(mixed, value_matrix)
        g.expand(q)
        assert k is not None and v is not None  # noqa: S101, PT018  nothing to share without a cache
        g.expand(k)
        g.expand(v)
        return self.mix(q, mixer, self.mask(windowed=windowed), keys=k, values=v, bias=self._relative_bias(mixer))

    def cross(self, layer: Layer, mixer: Attention, source: Node) -> Node:
        """Attention over the encoder's output, whose keys and values are computed anew."""
        g, s = self.graph, self.sizes
        encoded = self.input("encoder output", source.shape[0], s.encoder_tokens)
        q = g.view(self.multiply(layer, "cross_attn_q", source), (mixer.head_dim, mixer.heads, s.tokens))
        shape = (mixer.head_dim, mixer.kv_heads, s.encoder_tokens)
        k = g.view(self.multiply(layer, "cross_attn_k", encoded), shape)
        v = g.view(self.multiply(layer, "cross_attn_v", encoded), shape)
        for node in (q, k, v):
            g.expand(node)
        mask = self.input("cross mask", s.encoder_tokens, s.tokens, element=HALF if s.fused else FLOAT)
        return self.multiply(layer, "cross_attn_o", self.mix(q, mixer, mask, keys=k, values=v))

    def _relative_bias(self, mixer: Attention) -> Node | None:
        """T5's learned bias of scores by distance: one value for each head, cell and token."""
        if "relative_bias" not in self.twists:
            return None
        g, s = self.graph, self.sizes
        cells = s.full if s.cached else s.tokens
        buckets = self.input("buckets", cells, s.tokens, element=INT)
        rows = g.op((mixer.heads, cells * s.tokens), g.view(buckets, (cells * s.tokens,)))
        return g.op((cells, s.tokens, mixer.heads), g.view(g.view(rows), contiguous=False))

    def _store(self, k: Node | None, v: Node | None, *, windowed: bool) -> None:
        g, cache = self.graph, self.graph.external(1, place=self.where.cache)
        if k is not None:
            g.store(cache, g.view(k), self.slots("keys", windowed=windowed))
        if v is None:
            return
        if self.sizes.fused:
            flat = g.view(v)
        else:
            flat = g.view(v) if v.layout is not None else g.op(v.shape, v)
            width = v.shape[0] * v.shape[1]
            if width < self.sizes.value_width:
                flat = g.op((self.sizes.value_width, self.sizes.tokens), flat)
            flat = g.view(flat)
        g.store(cache, flat, self.slots("values", windowed=windowed))

    def mix(
        self,
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
        g, s = self.graph, self.sizes
        heads = g.view(g.view(q), contiguous=False)
        if s.fused and bias is None:
            casts = [g.op(n.shape, g.view(n, contiguous=False), element=HALF) for n in (keys, values) if n]
            extra = self.half_copies(*stored) if stored else 0
            shape = (mixer.value_dim, mixer.heads, s.tokens)
            mixed = g.op(shape, heads, *casts, *stored, mask, extra=extra)
            return g.expand(g.view(mixed, (mixer.value_dim * mixer.heads, s.tokens)))
        keyed = (g.view(keys, contiguous=False),) if keys else stored[:1]
        scores = g.op((mask.shape[0], s.tokens, mixer.heads), *keyed, heads)
        if bias is not None:
            scores = g.like(scores, bias)
        turned = self._turned_values(mixer, mask.shape[0], values, stored)
        mixed = g.op((mixer.value_dim, s.tokens, mixer.heads), *turned, g.like(scores, mask))
        return g.expand(g.op((mixer.value_dim * mixer.heads, s.tokens), g.view(mixed, contiguous=False)))

    def _turned_values(
        self, mixer: Attention, cells: int, values: Node | None, stored: tuple[Node, ...]
    ) -> tuple[Node, ...]:
        """Values the other way round: a copy, except in a cache without flash attention, which stores them so."""
        g, s = self.graph, self.sizes
        if values is not None:
            return (g.op(values.shape, g.view(values, contiguous=False)),)
        if not s.fused:
            return stored[1:]
        size = STORAGES[s.value_type].row_bytes(cells) * mixer.value_dim * mixer.kv_heads * s.streams
        return (g.op((size,), *stored[1:], element=1),)

    def latent(self, layer: Layer, mixer: LatentAttention, source: Node) -> Node:
        """Multi-head latent attention in its absorbed form: all heads over one compressed key."""
        g, tokens = self.graph, self.sizes.tokens
        if layer.has("attn_q_a"):
            low = self.norm(self.multiply(layer, "attn_q_a", source))
            if mixer.indexer and layer.has("indexer.attn_k"):
                self.chosen_tokens = self._index(layer, mixer.indexer, low, source)
            q = self.multiply(layer, "attn_q_b", low)
        else:
            q = self.multiply(layer, "attn_q", source)
        q = g.view(q, (mixer.head_dim, mixer.heads, tokens))
        compressed = self.multiply(layer, "attn_kv_a_mqa", source)
        latent = g.view(compressed, (mixer.kv_rank, tokens), contiguous=False)
        k_rope = g.view(compressed, (mixer.rope_dim, 1, tokens), contiguous=False)
        roped = "no_rope" not in self.twists
        k_rope = g.op(k_rope.shape, k_rope, self.positions(), inplace=True) if roped else k_rope
        latent = self.norm(latent)
        q_nope = g.view(q, (mixer.nope_dim, mixer.heads, tokens), contiguous=False)
        q_rope = g.view(q, (mixer.rope_dim, mixer.heads, tokens), contiguous=False)
        q_rope = g.op(q_rope.shape, q_rope, self.positions(), inplace=True) if roped else q_rope
        absorbed = g.op((mixer.kv_rank, tokens, mixer.heads), *self.weight("attn_k_b"), g.view(q_nope, contiguous=False))
        queries = g.op((mixer.latent_elements, mixer.heads, tokens), g.view(absorbed, contiguous=False), q_rope)
        latent = g.view(latent, (mixer.kv_rank, 1, tokens))
        key = g.op((mixer.latent_elements, 1, tokens), latent, k_rope)
        g.expand(queries)
        g.expand(latent)
        g.expand(key)
        self._store(key, None, windowed=layer.windowed)
        return self.multiply(layer, "attn_output", self._mix_latent(queries, mixer, windowed=layer.windowed))

    def _mix_latent(self, queries: Node, mixer: LatentAttention, *, windowed: bool) -> Node:
        """The same mixing over compressed values, which each head then expands."""
        g, s = self.graph, self.sizes
        heads = g.view(g.view(queries), contiguous=False)
        mask = self._sparse_mask(self.mask(windowed=windowed)) if mixer.indexer else self.mask(windowed=windowed)
        compressed, expanded = (mixer.kv_rank, s.tokens, mixer.heads), (mixer.value_dim, s.tokens, mixer.heads)
        stored = self.cached("keys", mixer.latent_elements, windowed=windowed)
        spread = self.weight("attn_v_b")
        if s.fused:
            extra = self.half_copies(stored, None)
            mixed = g.op((mixer.kv_rank, mixer.heads, s.tokens), heads, stored, mask, extra=extra)
            mixed = g.op(expanded, *spread, g.view(mixed, contiguous=False))
        else:
            scores = g.like(g.op((mask.shape[0], s.tokens, mixer.heads), stored, heads), mask)
            size = STORAGES[s.key_type].row_bytes(mask.shape[0]) * mixer.kv_rank * s.streams
            values = g.op((size,), stored, element=1)
            mixed = g.op(expanded, *spread, g.op(compressed, values, scores))
        return g.expand(g.op((mixer.value_dim * mixer.heads, s.tokens), g.view(mixed, contiguous=False)))

    def _index(self, layer: Layer, indexer: Indexer, low: Node, source: Node) -> Node:
        """The lightning indexer: scores of all cells, and the best of them for each token."""
        g, s = self.graph, self.sizes
        shape = (indexer.head_dim, indexer.heads, s.tokens)
        matrix = self.input("indexer rotation", indexer.head_dim, indexer.head_dim)
        q = g.view(self.multiply(layer, "indexer.attn_q_b", low), shape)
        q = g.op(shape, matrix, g.op(shape, q, self.positions(), inplace=True))
        k = self.norm(self.multiply(layer, "indexer.attn_k", source), in_place=False)
        k = g.view(k, (indexer.head_dim, 1, s.tokens))
        k = g.op(k.shape, matrix, g.op(k.shape, k, self.positions(), inplace=True))
        cache = g.external(1, place=self.where.cache)
        g.store(cache, g.view(k), self.input("indexer slots", s.tokens, element=LONG))
        weights = g.view(self.multiply(layer, "indexer.proj", source))
        mask = self.input("indexer mask", s.full, s.tokens // s.streams, 1, s.streams, element=HALF)
        scores = g.op(mask.shape, g.view(q), g.like(weights), mask)
        best = (min(indexer.top_k, s.full), *mask.shape[1:])
        return g.op(best, g.op(best, scores, element=INT), element=INT)

    def _sparse_mask(self, mask: Node) -> Node:
        """The mask with everything hidden but the indexer's choice."""
        g = self.graph
        element = HALF if self.sizes.fused else FLOAT
        hidden = g.op(mask.shape, mask, element=element, inplace=True)
        chosen = self.chosen_tokens
        assert chosen is not None  # noqa: S101  a layer that shares a choice follows one that makes it
        zeros = g.input(1, *chosen.shape)
        fill = g.like(zeros)
        shown = Node(mask.shape, 0, (fill, g.view(chosen, contiguous=False), g.view(hidden)), root=hidden, place=g.place)
        return g.op(mask.shape, g.view(shown), mask, element=element, inplace=True)

    # ── feed-forward ──────────────────────────────────────────────────────────────────────────────────────────

    def mlp(self, layer: Layer, source: Node, suffix: str = "") -> Node:
        """A dense feed-forward, gated when there is a gate, or when `up` is twice as wide as `down` reads."""
        g = self.graph
        up = self.multiply(layer, f"ffn_up{suffix}", source)
        inner = layer.tensors[f"ffn_down{suffix}.weight"][-1]
        if layer.has(f"ffn_gate{suffix}"):
            gate = self.multiply(layer, f"ffn_gate{suffix}", source)
            up = g.op(up.shape, gate, up)
        elif up.shape[0] == 2 * inner:
            up = g.op((inner, *up.shape[1:]), up)
        return self.multiply(layer, f"ffn_down{suffix}", up)

    def mixture(self, layer: Layer, source: Node, routed_by: Node | None = None) -> Node:
        """Routed experts: router, choice, the chosen experts' feed-forwards side by side, their weighted sum.

        Afterwards nodes are still put where the experts were computed, like in llama.cpp until the next weight.
        routed_by: what the router reads, when the experts read something narrower.
        """
        g = self.graph
        forward = layer.feed_forward
        experts, chosen_count = forward.experts, forward.experts_per_token
        tokens, hidden = source.tokens, source.shape[0]
        logits = self.multiply(layer, "ffn_gate_inp", source if routed_by is None else routed_by)
        probabilities = logits if "late_softmax" in self.twists else g.like(logits)
        biased = g.like(probabilities) if layer.has("exp_probs_b", "bias") else probabilities
        order = g.op((experts, tokens), logits if "raw_choice" in self.twists else biased, element=INT)
        chosen = g.view(order, (chosen_count, tokens), contiguous=False)
        weights = g.op((1, chosen_count, tokens), g.view(probabilities, (1, experts, tokens)), chosen)
        if "plain_weights" not in self.twists:
            flat = g.view(weights, (chosen_count, tokens))
            total = g.op((1, tokens), flat)
            weights = g.view(g.op(flat.shape, flat, total, inplace=True), (1, chosen_count, tokens))
        g.expand(weights)
        cur = g.view(source, (hidden, 1, tokens))
        if "weights_first" in self.twists:
            cur = g.like(g.op((hidden, chosen_count, tokens), cur), weights)
        g.place = self.where.expert_compute
        inner = self._experts(layer, cur, chosen)
        mixed = g.op((hidden, chosen_count, tokens), *self.weight("ffn_down_exps"), inner, chosen)
        mixed = self.biased(layer, "ffn_down_exps", mixed)
        kept = (mixed, weights) if self.kernel.keeps_experts and "weights_first" not in self.twists else ()
        if "weights_first" not in self.twists:
            mixed = g.op(mixed.shape, mixed, weights, inplace=not kept)
        g.expand(mixed)
        return self._sum_experts(mixed, hidden, tokens, chosen_count, kept)

    def _experts(self, layer: Layer, cur: Node, chosen: Node) -> Node:
        g = self.graph
        chosen_count, tokens = chosen.shape
        width = layer.tensors["ffn_down_exps.weight"][-1]
        shape = (width, chosen_count, tokens)
        if layer.has("ffn_gate_up_exps"):
            merged = g.op((2 * width, chosen_count, tokens), *self.weight("ffn_gate_up_exps"), cur, chosen)
            merged = self.biased(layer, "ffn_gate_up_exps", merged)
            halves = [g.view(merged, shape, contiguous=False) for _ in range(2)]
            return g.op(shape, *halves)
        up = self.biased(layer, "ffn_up_exps", g.op(shape, *self.weight("ffn_up_exps"), cur, chosen))
        if not layer.has("ffn_gate_exps"):
            return up
        gate = self.biased(layer, "ffn_gate_exps", g.op(shape, *self.weight("ffn_gate_exps"), cur, chosen))
        return g.op(shape, gate, up)

    def _sum_experts(self, mixed: Node, hidden: int, tokens: int, count: int, kept: tuple[Node, ...]) -> Node:
        """The chosen experts' results added up one after the other, on views of them.

        kept: what a fused kernel still reads in the end.
        """
        g = self.graph
        parts = [g.expand(g.view(mixed, (hidden, tokens), contiguous=False)) for _ in range(count)]
        total = parts[0]
        for part in parts[1:]:
            total = g.expand(g.op((hidden, tokens), total, part, inplace=True))
        if kept:
            g.expand(Node((), 0, kept, place=g.place))
        return total if count > 1 else g.op((hidden, tokens), total)

    def feed_forward(self, layer: Layer, source: Node) -> Node:
        """Whatever feed-forward the layer has: dense, mixture, mixture beside shared experts."""
        if not layer.has("ffn_gate_inp") or not layer.has("ffn_down_exps"):
            return self.mlp(layer, source)
        if layer.has("ffn_latent_down"):
            inner = self.mixture(layer, self.multiply(layer, "ffn_latent_down", source), source)
            self.graph.place = self.where.compute
            mixed = self.multiply(layer, "ffn_latent_up", inner)
        else:
            mixed = self.mixture(layer, source)
        if not layer.has("ffn_up_shexp"):
            return mixed
        self.graph.place = self.where.compute
        shared = self.mlp(layer, source, "_shexp")
        if layer.has("ffn_gate_inp_shexp"):
            gate = self.graph.op((1, source.tokens), source)
            shared = self.graph.like(shared, gate)
        return self.graph.op(mixed.shape, mixed, shared, inplace=True)
