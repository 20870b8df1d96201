"""A compute graph in miniature, and which of its results hold memory from when until when.

A node knows its size, what it reads, and whether it may take over its input's memory. `lives_of` lists in execution
order which buffers are taken and given back, exactly like ggml_gallocr: inputs first; results of operations that work
in place take over the memory of an input that nobody else reads. Where the buffers are put: `replay`.

Source: ggml_visit_parents_graph in ggml/src/ggml.c, ggml_gallocr_alloc_graph_impl in ggml/src/ggml-alloc.c,
llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from operator import is_

FLOAT, HALF, INT, LONG = 4, 2, 4, 8
Shape = tuple[int, ...]


class Node:
    """A result, a view of one, an input, or memory that is allocated elsewhere (weights, caches).

    shape: fastest dimension first, as in ggml. layout: equal for nodes of the same type, shape and strides; None for a
    view whose strides are its own. root: the node whose memory a view shows. external: its memory isn't the graph's.
    place: the device it is computed on; None for a view, which is wherever its root is.
    """

    kept = is_weight = placed = owned = False
    children = views = buffer = 0

    def __init__(
        self,
        shape: Shape,
        size: int,
        sources: tuple[Node, ...] = (),
        *,
        layout: tuple[int, ...] | None = None,
        root: Node | None = None,
        inplace: bool = False,
        is_input: bool = False,
        external: bool = False,
        place: int | None = None,
    ) -> None:
        self.shape, self.size, self.sources, self.layout, self.root = shape, size, sources, layout, root
        self.inplace, self.is_input, self.external, self.place = inplace, is_input, external, place

    @property
    def home(self) -> Node:
        """The node whose memory this one shows: itself, unless it is a view."""
        return self if self.root is None else self.root

    @property
    def is_view(self) -> bool:
        """Whether it is a mere view, on whatever device its memory is; a store is computed."""
        return self.root is not None and self.place is None

    @property
    def tokens(self) -> int:
        """Extent of its second dimension."""
        return self.shape[1] if len(self.shape) > 1 else 1


def _trim(layout: Shape) -> Shape:
    """The layout without trailing ones: how ggml compares shapes."""
    end = len(layout)
    while end > 2 and layout[end - 1] == 1:
        end -= 1
    return layout[:end]


def _same(one: Shape | None, other: Shape | None) -> bool:
    """Whether two layouts are the same; open sizes are compared only where all else is."""
    if one is None or other is None:
        return False
    if len(one) == len(other) and all(map(is_, one, other)):
        return True
    one, other = _trim(one), _trim(other)
    if len(one) != len(other):
        return False
    if any(a != b for a, b in zip(one, other, strict=True) if type(a) is int and type(b) is int):
        return False
    return one == other


class Graph:
    """Nodes in execution order. `place`: the device that operations are on from now."""

    def __init__(self, place: int = 0) -> None:
        self.nodes: list[Node] = []
        self.leaves: list[Node] = []
        self.place = place
        self._sizes: dict[tuple[Shape, int], int] = {}

    def input(self, *shape: int, element: int = FLOAT, place: int | None = None) -> Node:
        """A tensor that is filled before the graph runs."""
        node = Node(shape, prod(shape) * element, layout=(element, *shape), is_input=True)
        node.place = self.place if place is None else place
        return node

    def external(self, *shape: int, size: int = 0, place: int | None = None) -> Node:
        """Memory that isn't the graph's, a cache."""
        return Node(shape, size, external=True, place=self.place if place is None else place)

    def weight(self, size: int, place: int) -> Node:
        """A weight; to be read on another device it is copied in a piece of the graph of its own."""
        node = Node((size,), size, external=True, place=place)
        node.is_weight = True
        return node

    def op(self, shape: Shape, *sources: Node, element: int = FLOAT, inplace: bool = False, extra: int = 0) -> Node:
        """The result of an operation; inplace: it may take over the memory of one of its sources.

        extra: bytes that a backend's kernel wants behind the result.
        """
        size = self._sizes.get((shape, element))
        if size is None:
            size = self._sizes[shape, element] = prod(shape) * element
        if extra:
            size += extra
        return Node(shape, size, sources, layout=(element, *shape), inplace=inplace, place=self.place)

    def like(self, source: Node, *others: Node) -> Node:
        """The result of an elementwise operation that may work in place: of the first source's shape."""
        return self.op(source.shape, source, *others, inplace=True)

    def view(self, source: Node, shape: Shape | None = None, *, contiguous: bool = True) -> Node:
        """The same memory seen otherwise: a reshape (contiguous), a permutation, a slice."""
        kept = source.shape if shape is None else shape
        layout = (FLOAT, *kept) if contiguous and source.layout is not None else None
        return Node(kept, source.size, (source,), layout=layout, root=source.root or source)

    def store(self, cache: Node, *sources: Node) -> Node:
        """Write into memory that isn't the graph's, now."""
        return self.expand(Node(cache.shape, 0, sources, root=cache, place=cache.place))

    def expand(self, node: Node) -> Node:
        """Put a node and all it needs into the execution order, each source before, first sources first."""
        if node.placed:
            return node
        node.placed = True
        stack = [node]
        while stack:
            current = stack[-1]
            for source in current.sources:
                if not source.placed:
                    source.placed = True
                    stack.append(source)
                    break
            else:
                stack.pop()
                if not current.external:
                    (self.leaves if current.is_input else self.nodes).append(current)
        return node


def with_copies(graph: Graph, copies: int = 1) -> tuple[list[Node], list[Node]]:
    """(leaves, nodes) with a copy of everything that is read on another device than it is on.

    The graph is cut where the device changes; what a piece reads from elsewhere is copied at its start, once for each
    device: no backend reads another's memory, nor the host's. copies: 1, or the number of batches in flight
    (pipeline): then all inputs and copies exist that many times, all the time.
    Source: ggml_backend_sched_split_graph in ggml/src/ggml-backend.cpp.
    """
    nodes: list[Node] = []
    leaves: list[Node] = []
    piece: list[Node] = []
    known: dict[tuple[int, int], Node] = {}
    current: int | None = None
    has_inputs = False
    for node in graph.nodes:
        place = None if node.is_view else node.place
        if place is None:
            piece.append(node)
            continue
        moved = [s for s in node.sources if s.home.place != place]
        if place != current or (has_inputs and any(s.is_weight for s in moved)):
            nodes += piece
            piece, current, has_inputs = [], place, False
        for source in moved:
            copy = known.get((id(source), place))
            if copy is None:
                copy = known[id(source), place] = Node(source.shape, source.size, (), layout=source.layout, place=place)
                nodes += [Node((), 0, (source,), place=source.home.place), copy]
                has_inputs = True
                if copies > 1:
                    copy.kept = True
                    leaves += [copy, *(Node((), copy.size, place=place) for _ in range(copies - 1))]
            node.sources = tuple(copy if s is source else s for s in node.sources)
        piece.append(node)
    nodes += piece
    for leaf in graph.leaves:
        leaves.append(leaf)
        if copies > 1 and leaf.is_input:
            leaf.kept = True
            leaves += [Node((), leaf.size, place=leaf.place) for _ in range(copies - 1)]
    return leaves, nodes


class Lives:
    """The buffers of one place in the order they come and go.

    events: n when buffer n is taken, ~n when it is given back. numbers: for each event, which of `sizes` that is.
    """

    def __init__(self) -> None:
        self.buffers = 0
        self.events: list[int] = []
        self.numbers: list[int] = []
        self._known: dict[int, int] = {}

    @property
    def sizes(self) -> list[int]:
        """The sizes that occur."""
        return list(self._known)

    def take(self, size: int) -> int:
        """The number of a new buffer."""
        buffer = self.buffers
        self.buffers = buffer + 1
        self._add(buffer, size)
        return buffer

    def give(self, buffer: int, size: int) -> None:
        """So much of a buffer is free again."""
        self._add(~buffer, size)

    def _add(self, event: int, size: int) -> None:
        self.events.append(event)
        self.numbers.append(self._known.setdefault(size, len(self._known)))


class _Owners:
    """One pass over a graph: who has memory of its own, and until when."""

    def __init__(self, places: Iterable[int]) -> None:
        self.lives = {place: Lives() for place in places}

    def run(self, leaves: list[Node], nodes: list[Node]) -> None:
        for leaf in leaves:
            self.settle(leaf)
        for node in nodes:
            if node.root is not None:
                node.root.views += 1
            for source in node.sources:
                source.children += 1
        for node in nodes:
            if node.root is None and not node.owned:
                self.settle(node)
            for source in node.sources:
                source.children -= 1
                if not source.children and not source.views:
                    self.release(source)

    def settle(self, node: Node) -> None:
        """Find memory for a node that shows no other's."""
        node.owned = True
        if node.inplace:
            for source in node.sources:
                if self.takes_over(node, source):
                    return
        assert node.place is not None  # noqa: S101  only views have no place
        node.buffer = self.lives[node.place].take(node.size)

    def takes_over(self, node: Node, source: Node) -> bool:
        """Let a node have its source's memory when it is the last reader and both have the same layout.

        Never through a view: ggml doesn't count views as its own.
        """
        if not source.owned or source.kept or source.children != 1 or source.views:
            return False
        if not _same(source.layout, node.layout):
            return False
        node.buffer, node.place, source.owned = source.buffer, source.place, False
        return True

    def release(self, source: Node) -> None:
        """The memory goes back after the last reader."""
        home = source
        if source.root is not None:
            home = source.root
            home.views -= 1
            if home.views or home.children:
                return
        if home.owned and not home.kept:
            assert home.place is not None  # noqa: S101  only views have no place
            self.lives[home.place].give(home.buffer, home.size)
            home.owned = False


def lives_of(graph: Graph, places: Iterable[int], copies: int = 1) -> dict[int, Lives]:
    """Place → its buffers. The graph is used up by it. copies: as in `with_copies`."""
    owners = _Owners(places)
    if len(owners.lives) > 1:
        owners.run(*with_copies(graph, copies))
    else:
        owners.run(graph.leaves, graph.nodes)
    return owners.lives
