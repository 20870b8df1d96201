"""A dry autograd: what torch's engine holds while it runs a step, with sizes instead of values.

Operations on `Value` (`elementwise`, `norms`, `linear`, `attention` …) write every allocation and every release to the
tape's log, in torch's order. What is alive follows from ordinary references: a value is released when the last name,
graph node or gradient that needs it is gone, exactly as in torch, whose Python model code has the same local names.

The backward pass follows torch 2.13, `torch/csrc/autograd/engine.cpp`: nodes run in the reverse order of their making
(the highest sequence number first); a node's incoming gradient and what it saved are released after it has run and
before its results are passed on; gradients that meet at one value are added in place if nothing else refers to the
first of them, else into a new tensor.

A log entry is ± bytes + label: bytes are multiples of 512 (the allocator's rounding), so the low nine bits are free
for the label. Where sizes are left open (`open_sizes`), a number that stands for a size takes the place of its bytes.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import msgspec

from sizeup.estimate.training.open_sizes import OpenSize, Sheet

ROUND = 512
_LABEL_BITS = ROUND - 1

#: What an allocation is for; its place in this tuple is its label.
LABELS = (
    "other", "embedding", "norm", "attention", "mlp", "experts", "state space", "adapter", "residual", "positions",
    "logits and loss", "weight copies", "recomputation", "temporaries", "gradients", "communication",
)  # fmt: skip
(
    OTHER, EMBEDDING, NORM, ATTENTION, MLP, EXPERTS, STATE_SPACE, ADAPTER, RESIDUAL, POSITIONS,
    LOSS, WEIGHT_COPIES, RECOMPUTED, TEMPORARY, GRADIENT, COMMUNICATION,
) = range(len(LABELS))  # fmt: skip


def rounded(size: Any) -> int:
    """Bytes that the allocator hands out for a request: the next multiple of 512; for an open size its stand-in."""
    return size.stored(1) if type(size) is OpenSize else (size + ROUND - 1) // ROUND * ROUND


class Storage(msgspec.Struct, eq=False, gc=False):
    """One allocation, written to the log by who makes it; when the last reference to it goes, it writes that itself."""

    log: list[int]
    entry: int

    def __del__(self) -> None:
        entry = self.entry
        label = entry & _LABEL_BITS
        self.log.append(label + label - entry)

    @property
    def size(self) -> int:
        """Bytes as allocated."""
        return self.entry >> 9 << 9

    def relabel(self, label: int) -> None:
        """Book the same bytes under another label."""
        entry = self.entry
        old = entry & _LABEL_BITS
        self.entry = entry - old + label
        self.log.append(old + old - entry)
        self.log.append(self.entry)


class Value(msgspec.Struct, eq=False):
    """A tensor: elements, bytes of each, and the storage it lies in.

    node, slot: which output of which graph node it is. needs: whether a gradient flows to it.
    view: a view whose base is remembered, so that no gradient is added to it in place.
    strided: its memory isn't in the order of its shape, so that a matrix product copies it first.
    headed: it lies head by head in memory, and not token by token.
    """

    n: int
    item: int
    storage: Storage | None
    node: Node | None = None
    slot: int = 0
    needs: bool = False
    view: bool = False
    strided: bool = False
    headed: bool = False

    @property
    def bytes(self) -> int:
        """Bytes without the allocator's rounding."""
        return self.n * self.item


class Parameter(Value, eq=False):
    """A weight. Its bytes are counted apart (they are there before the step); its gradient is on the tape.

    rows: of a matrix, its outputs. copy: what autocast made of it. uses: how many steps still owe it a gradient.
    """

    rows: int = 0
    grad: Value | None = None
    copy: Value | None = None
    uses: int = 0


Edge = tuple["Node | Parameter", int, int, int] | None
Backward = Callable[[Value], Sequence[Value | None]]


class Node(msgspec.Struct, eq=False):
    """A step of the graph: where its results go, and how they come about from the gradients of its outputs."""

    edges: list[Edge]
    backward: Callable[..., Sequence[Value | None]]
    grads: list[Value | None]
    many: bool = False


def _spent(_grad: object) -> Sequence[Value | None]:
    """Stands in for what a node has released."""
    return ()


def _edge(value: Value) -> Edge:
    """Where the gradient of a value that needs one goes."""
    node = value.node
    if node is not None:
        return (node, value.slot, value.n, value.item)
    if isinstance(value, Parameter):
        value.uses += 1
        return (value, 0, value.n, value.item)
    return None


def _references(grads: list[Value | None], slot: int) -> tuple[int, int]:
    value = grads[slot]
    return sys.getrefcount(value), sys.getrefcount(value.storage) if value is not None else 0


# What a gradient counts when only its slot refers to it (interpreters count their own references differently).
_SOLE = _references([Value(1, 1, Storage([], ROUND))], 0)


class Tape:
    """The log of a step, its graph, and what is switched on.

    autocast: bytes of the compute type that matrix products cast to; 0 without autocast.
    grad: whether a graph is made. accumulating: whether parameters still hold gradients of an earlier micro-batch.
    eight_bit: whether matrix products take copies of one byte. sheet: of the sizes that are left open.
    kept: where selective recomputation collects what it keeps; replayed: what it finds again. again: whether a layer
    runs backward that was computed again (what it saved goes as soon as it is read).
    """

    def __init__(
        self, *, autocast: int = 0, accumulating: bool = False, eight_bit: bool = False, sheet: Sheet | None = None
    ) -> None:
        self.log: list[int] = []
        self.nodes: list[Node] = []
        self.grad = True
        self.label = OTHER
        self.autocast = autocast
        self.eight_bit = eight_bit
        self.sheet = sheet
        self.kept: list[Storage | None] | None = None
        self.replayed: list[Storage | None] | None = None
        self.accumulating = accumulating
        self.cached: list[Parameter] = []
        self.segment = 0
        self.again = False
        self.last_save = 0
        self.last_saver = 0

    def value(self, n: Any, item: int) -> Value:
        """A new tensor."""
        if type(n) is OpenSize:
            entry = (n.entries.get(item) or n.stored(item)) + self.label
        else:
            entry = (n * item + _LABEL_BITS & -ROUND) + self.label
        self.log.append(entry)
        return Value(n, item, Storage(self.log, entry))

    def transient(self, *sizes: int) -> None:
        """Tensors that are there at once and gone after."""
        entries = [rounded(size) + self.label for size in sizes]
        self.log.extend(entries)
        label = self.label
        self.log.extend([label + label - entry for entry in entries])

    def allocated(self, size: int) -> Any:
        """Bytes of an allocation, to be computed with; the log may have a stand-in for them."""
        return size if self.sheet is None else self.sheet.allocated(size)

    def gained(self, start: int) -> dict[int, Any]:
        """What the log has gained since an entry, in bytes by label, to be computed with."""
        sums: dict[int, Any] = {}
        for label, number, times in added(self.log[start:]):
            sums[label] = sums.get(label, 0) + times * self.allocated(number * ROUND)
        return sums

    def saved(self) -> None:
        """Note that the operation at hand keeps something for its backward pass (recomputation goes this far)."""
        self.last_save = len(self.log)
        self.last_saver = len(self.nodes)

    def record(
        self, inputs: Sequence[Value | None], outputs: Sequence[Value], backward: Callable[..., Sequence[Value | None]]
    ) -> None:
        """Put a step on the graph, if any input needs a gradient and a graph is made."""
        if not self.grad:
            return
        edges = [_edge(value) if value is not None and value.needs else None for value in inputs]
        if not any(edges):
            return
        if len(outputs) == 1:
            node = Node(edges, backward, [None])
            output = outputs[0]
            output.node, output.slot, output.needs = node, 0, True
        else:
            node = Node(edges, backward, [None] * len(outputs), many=True)
            for slot, output in enumerate(outputs):
                output.node, output.slot, output.needs = node, slot, True
        self.nodes.append(node)

    def product(self, n: int, item: int, inputs: Sequence[Value | None], backward: Backward) -> Value:
        """The result of a matrix product or attention."""
        output = self.computed(n, item)
        self.record(inputs, (output,), backward)
        return output

    def computed(self, n: int, item: int) -> Value:
        """A tensor that a matrix product or attention makes: selective recomputation keeps it instead of redoing it."""
        if self.replayed:
            return Value(n, item, self.replayed.pop(0))
        output = self.value(n, item)
        if self.kept is not None:
            self.kept.append(output.storage)
        return output

    def result(self, n: int, item: int, inputs: Sequence[Value | None], backward: Backward) -> Value:
        """A new tensor made from inputs, with its step on the graph."""
        output = self.value(n, item)
        if self.grad:
            edges = [_edge(value) if value is not None and value.needs else None for value in inputs]
            if any(edges):
                node = Node(edges, backward, [None])
                self.nodes.append(node)
                output.node, output.needs = node, True
        return output

    def backward(self, until: int = 0) -> None:
        """Run the graph from its newest node down to the node of that number."""
        nodes = self.nodes
        while len(nodes) > until:
            node = nodes.pop()
            if node.many:
                grads = node.grads
                if all(grad is None for grad in grads):
                    continue
                node.grads = []
                results = list(node.backward(grads))
            else:
                grad = node.grads[0]
                if grad is None:
                    continue
                node.grads = []
                if len(node.edges) == 1:
                    (result,) = node.backward(grad)
                    del grad
                    edge, node.edges, node.backward = node.edges[0], [], _spent
                    if edge is not None and result is not None:
                        if (result.n is not edge[2] and result.n != edge[2]) or result.item != edge[3]:
                            result = self.fitted(result, edge[2], edge[3])
                        self.send(edge, result)
                    del edge, result
                    continue
                grads = [grad]
                del grad
                results = list(node.backward(grads[0]))
            kept = None if self.again else node.backward
            edges, node.edges, node.backward = node.edges, [], _spent
            self._fit(edges, results)
            del grads, kept
            self._pass_on(edges, results)
            del edges

    def _fit(self, edges: list[Edge], results: list[Value | None]) -> None:
        """Sum and cast the results; what came in and what was saved is still there, but for what was recomputed."""
        for place, edge in enumerate(edges):
            result = results[place]
            if (
                edge is not None
                and result is not None
                and ((result.n is not edge[2] and result.n != edge[2]) or result.item != edge[3])
            ):
                results[place] = self.fitted(result, edge[2], edge[3])
            del result

    def _pass_on(self, edges: list[Edge], results: list[Value | None]) -> None:
        for place, edge in enumerate(edges):
            result = results[place]
            results[place] = None
            if edge is not None and result is not None:
                self.send(edge, result)
            del result

    def fitted(self, grad: Value, n: int, item: int) -> Value:
        """A gradient summed to the shape and cast to the type of what it belongs to (`validate_outputs`)."""
        if grad.n != n:
            grad = self.value(n, grad.item)
        if grad.item != item:
            grad = self.value(n, item)
        return grad

    def send(self, edge: Edge, grad: Value) -> None:
        """Add a gradient to what has arrived at a node or parameter."""
        if edge is None:
            return
        target, slot = edge[0], edge[1]
        if isinstance(target, Parameter):
            self._to_parameter(target, grad)
            return
        grads = target.grads
        if grads[slot] is None:
            grads[slot] = grad
            return
        old = grads[slot]
        if old is not None and not old.view and self._sole(grads, slot, old):
            return
        del old
        grads[slot] = self.value(grad.n, grad.item)

    @staticmethod
    def _sole(grads: list[Value | None], slot: int, old: Value) -> bool:
        del old
        value, storage = _references(grads, slot)
        return value <= _SOLE[0] + 1 and storage <= _SOLE[1]

    def _to_parameter(self, parameter: Parameter, grad: Value) -> None:
        """Gradients of a shared weight are added first (`InputBuffer`), then kept (`AccumulateGrad`)."""
        parameter.uses -= 1
        arrived = parameter.grad
        if arrived is None:
            parameter.grad = grad
        elif arrived.view:
            del arrived
            parameter.grad = self.value(grad.n, grad.item)
        if parameter.uses > 0:
            return
        if self.accumulating:
            parameter.grad = None
        elif parameter.grad is not None and parameter.grad.storage is not None:
            parameter.grad.storage.relabel(GRADIENT)
            parameter.grad.view = False

    def drop_copies(self, cached: list[Parameter]) -> None:
        """Forget autocast's cached copies of those weights."""
        for parameter in cached:
            parameter.copy = None
        cached.clear()


class Blocks(dict[int, int]):
    """Blocks of 512 bytes by what stands for them in a log; a plain number stands for itself."""

    def __missing__(self, number: int) -> int:
        found = number if number >= 0 else -self[-number]
        self[number] = found
        return found


class Height(msgspec.Struct, frozen=True):
    """The highest running sum of a log in bytes (0 at least), how many entries in it is reached, and the sum."""

    top: int
    entry: int
    net: int


def height(log: Sequence[int], blocks: Blocks | None = None) -> Height:
    """How high a log goes, and where it ends."""
    sizes = [entry >> 9 for entry in log]
    running = list(accumulate(sizes if blocks is None else map(blocks.__getitem__, sizes)))
    top = max(running, default=0)
    if top <= 0:
        return Height(0, 0, running[-1] * ROUND if running else 0)
    return Height(top * ROUND, running.index(top) + 1, running[-1] * ROUND)


def added(log: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """What a log adds in all: label, blocks or what stands for them, how often."""
    sums: dict[int, int] = {}
    for entry, times in Counter(log).items():
        label = entry & _LABEL_BITS
        taken, more = (entry, times) if entry > label else (label + label - entry, -times)
        sums[taken] = sums.get(taken, 0) + more
    return tuple([(taken & _LABEL_BITS, taken >> 9, times) for taken, times in sums.items() if times])


def net(log: Sequence[int]) -> int:
    """What a log adds in all, in bytes."""
    return sum([entry >> 9 for entry in log]) * ROUND


def by_label(log: Sequence[int]) -> dict[int, int]:
    """What a log adds, in bytes by label."""
    return labelled(added(log), Blocks())


def labelled(parts: Sequence[tuple[int, int, int]], blocks: Blocks) -> dict[int, int]:
    """What was added, in bytes by label."""
    sums: dict[int, int] = {}
    for label, number, times in parts:
        sums[label] = sums.get(label, 0) + times * blocks[number]
    return {label: count * ROUND for label, count in sums.items() if count}
