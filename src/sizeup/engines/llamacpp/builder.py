"""The parts that llama.cpp's graphs are made of: norms, projections, attention, feed-forwards, mixtures.

Each function adds the nodes that the one of the same name adds in src/llama-graph.cpp, llama.cpp 0.5.0 (0c1e570);
operations that always work in place on a fresh result (biases, scales, activations) are left out, for they neither
take nor keep memory.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import msgspec

from sizeup.engines.llamacpp.backends import Backend
from sizeup.engines.llamacpp.graph import FLOAT, HALF, INT, LONG, Graph, Node
from sizeup.engines.llamacpp.layers import Layer

#: Quantized caches are rotated by a Hadamard matrix of this size, or a larger power of two that divides a key's head.
ROTATION = 64
#: Elements of a cache that are counted together: a whole number of blocks of every cache type.
CACHE_BLOCK = 32


class Sizes(msgspec.Struct, frozen=True):
    """What the sizes of a graph depend on, beside the model.

    tokens, rows: of the ubatch, and how many of them give logits. sequences: in the batch; streams: caches.
    full, windowed: cells a stream that the masks cover. fused: flash attention.
    rotate_keys, rotate_values: quantized caches. value_width: the most value elements of a layer's token.
    key_bytes, value_bytes: of CACHE_BLOCK elements in the cache; half_keys, half_values: whether they are F16.
    encoder_tokens: that cross attention looks at.
    Tokens, rows, cells and bytes may be extents, sizes that are left open: see `extent`.
    snapshots: of recurrent states. cached: whether there is a cache.
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
    key_bytes: int
    value_bytes: int
    half_keys: bool
    half_values: bool
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
        self._cache_bytes: dict[tuple[str, int, bool], int] = {}
        self.query_gate: Node | None = None
        self._norm_place = graph.place
        self.chosen_tokens: Node | None = None

    # ── inputs ────────────────────────────────────────────────────────────────────────────────────────────────

    def input(self, name: str, *shape: int, element: int = FLOAT) -> Node:
        """An input by name, made when it is first asked for; inputs are filled on the host."""
        if name not in self._inputs:
            self._inputs[name] = self.graph.input(*shape, element=element, place=self.host)
        return self._inputs[name]

    def once(self, name: str, make: Callable[[], Node]) -> Node:
        """A node that all layers share, made when the first asks for it."""
        if name not in self._inputs:
            self._inputs[name] = make()
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
        return self.biased(
            layer, stem, self.graph.op((layer.width(stem), *source.shape[1:]), *self.weight(stem), source)
        )

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
        known = what, elements, windowed
        if known not in self._cache_bytes:
            block = s.key_bytes if what == "keys" else s.value_bytes
            self._cache_bytes[known] = cells * elements * block // CACHE_BLOCK
        return self.graph.external(elements, cells, size=self._cache_bytes[known], place=self.where.cache)

    def half_copies(self, keys: Node, values: Node | None) -> int:
        """Bytes that a fused attention kernel wants for keys and values in half precision."""
        if not self.kernel.halves_cache:
            return 0
        return sum(
            prod(node.shape) * HALF
            for node, half in ((keys, self.sizes.half_keys), (values, self.sizes.half_values))
            if node is not None and (not half or self.kernel.halves_always)
        )

    def norm(self, source: Node, *stems: str, in_place: bool | None = None) -> Node:
        """RMS norm works in place on what nobody else reads; layer norm never does.

        stems: of its weight, the first that the layer has.
        """
        rms = "layer_norm" not in self.twists if in_place is None else in_place
        return self._scaled(self.graph.op(source.shape, source, inplace=rms), stems)

    def first_norm(self, source: Node) -> Node:
        """The norm that a layer begins with; only its weights are sure to be where the layer is."""
        rms = "layer_norm" not in self.twists
        self.graph.place = self._norm_place
        normed = self.graph.op(source.shape, source, inplace=rms)
        self.graph.place = self.where.compute
        if self._norm_place != self.where.compute:
            normed = self.graph.like(normed)
        return self._scaled(normed, ("attn_norm",))

    def _scaled(self, normed: Node, stems: tuple[str, ...]) -> Node:
        """Times the norm's weight, in place; it only counts when it has to be fetched from another device."""
        stem = next((stem for stem in stems if f"{stem}.weight" in self.weight_bytes), None)
        weight = self.weight(stem) if stem else ()
        return self.graph.like(normed, *weight) if weight else normed

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
