"""Activation checkpointing, non-reentrant as transformers uses it (torch 2.13, `utils/checkpoint.py`).

Forward nothing of a layer is kept but its input; when its backward pass first asks for a kept tensor, the layer runs
again up to the last tensor that is wanted, and then its backward pass goes on as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sizeup.estimate.training.tape import RECOMPUTED, Node, Storage, Tape, Value


class Made:
    """What a layer makes for later layers beside its output.

    kept: shared by all layers of a model: what a recomputation leaves alive until the last of them has run backward;
    None where it leaves nothing.
    """

    __slots__ = ("kept", "values")

    def __init__(self, kept: list[object] | None) -> None:
        self.kept = kept
        self.values: list[Value] = []


def checkpointed(
    tape: Tape,
    layer: Callable[[Value], Value],
    x: Value,
    *,
    selective: bool = False,
    offload: bool = False,
    made: Made | None = None,
) -> Value:
    """The layer's output, with a graph of one step that runs the layer again.

    selective: results of matrix products and attention are kept and not computed again. offload: the layer's input
    lies on the host and comes back when it is needed. made: where the layer puts what later layers read.
    """
    before = tape.grad
    tape.grad = False
    products: list[Storage | None] = []
    tape.kept = products if selective else None
    output = layer(x)
    tape.kept = None
    tape.grad = before
    n, item, storage = x.n, x.item, None if offload else x.storage

    def backward(grads: list[Value]) -> Sequence[Value | None]:
        return (_again(tape, layer, Value(n, item, storage), grads, products, made),)

    tape.record((x,), (output, *(made.values if made else ())), backward)
    if output.node is not None:
        output.node.many = True
    return output


def _again(
    tape: Tape,
    layer: Callable[[Value], Value],
    kept: Value,
    grads: list[Value],
    products: list[Storage | None],
    made: Made | None,
) -> Value | None:
    """Recompute the layer, run it backward, and return the gradient of its input.

    The gradient of the output is taken out of its list, so that nothing but the graph refers to it.
    """
    bottom = len(tape.nodes)
    leaf = Node([], lambda _g: (), [None])
    x = kept if kept.storage is not None else tape.value(kept.n, kept.item)
    x.node, x.needs = leaf, True
    del kept
    accumulating = tape.label
    tape.label = RECOMPUTED
    start = len(tape.log)
    outer, tape.cached = tape.cached, []
    tape.replayed = products or None
    output = layer(x)
    tape.replayed = None
    last = output.node
    if made is not None:
        _hand_on(made, grads)
    del output, x
    tape.drop_copies(tape.cached)
    tape.cached = outer
    _stop_early(tape, start)
    tape.label = accumulating
    if last is not None:
        last.grads[0] = grads.pop()
    del last
    _first_of_all(tape, start)
    tape.again = True
    tape.backward(bottom)
    tape.again = False
    return leaf.grads[0]


def _hand_on(made: Made, grads: list[Value]) -> None:
    """Gradients of what later layers read go on to the recomputed values.

    Where a dictionary that the layers share holds them, they stay with all that their own graph keeps: it is the
    first graph that runs backward, not theirs.
    """
    waiting: list[Node] = []
    for value in reversed(made.values):
        if made.kept is not None:
            made.kept.append(value.storage)
        grad = grads.pop()
        if value.node is not None:
            waiting.append(value.node)
            value.node.grads[value.slot] = grad
        del grad
    made.values.clear()
    seen: set[int] = set()
    while waiting and made.kept is not None:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            made.kept.append(node.backward)
            waiting.extend(edge[0] for edge in node.edges if edge is not None and isinstance(edge[0], Node))


def _first_of_all(tape: Tape, start: int) -> None:
    """What follows the last kept tensor (sums, casts, scales) keeps nothing: it runs before the layer runs again."""
    done = len(tape.log)
    tape.backward(tape.last_saver + 1)
    entries = tape.log[done:]
    del tape.log[done:]
    tape.log[start:start] = entries


def _stop_early(tape: Tape, start: int) -> None:
    """Drop what was made after the last kept tensor: recomputation ends there."""
    place = max(start, tape.last_save)
    tail = tape.log[place:]
    released = []
    made: dict[int, int] = {}
    for entry in tail:
        label = entry & 511
        if entry > label:
            made[entry] = made.get(entry, 0) + 1
        elif made.get(label + label - entry):
            made[label + label - entry] -= 1
        else:
            released.append(entry)
    tape.log[place:] = released
