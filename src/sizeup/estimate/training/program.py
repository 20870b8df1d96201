"""A model as segments of a step: before the layers, each kind of layer with its numbers, after them, the loss.

A segment is run once for each of its kinds, however many layers are of that kind: what a layer adds and the height it
reaches are the same wherever it stands (simulating 2 and 4 layers gave the full depth to the byte in 80 cases). The
first layer has a kind of its own, since its input lives longer or needs no gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.build import Build, Weight
from sizeup.estimate.training.tape import TEMPORARY, Storage, Value


class State:
    """What the code of a model keeps in names while it runs: hidden states, masks, tables, an encoder's output.

    lasting: leaves of the graph with their gradients, which go when the loss does, after the backward pass. returned:
    what the model returns beside the logits: it goes with them.
    """

    def __init__(self) -> None:
        self.lasting: list[object] = []
        self.returned: list[Value] = []
        self.x: Value | None = None
        self.loss: Value | None = None
        self.logits: Value | None = None
        self.held: dict[str, object] = {}

    @property
    def hidden(self) -> Value:
        """The stream between layers."""
        if self.x is None:
            raise ValueError("the program has no hidden state yet")
        return self.x


class Segment(msgspec.Struct, frozen=True):
    """One part of a step. key: its kind. run: its forward pass. name: for people. layer: whether it is one of many.

    kind: tells its kind when its turn comes, by what it is given: segments of several keys may then be alike.
    """

    key: str
    run: Callable[[Build, State], None]
    name: str = ""
    layer: bool = False
    kind: Callable[[State], str] | None = None


class Piece(msgspec.Struct, frozen=True):
    """What one kind of segment writes to the log, forward and backward, and the weights it makes.

    release: what goes when the forward pass is over (autocast's cached copies of weights).
    """

    name: str
    forward: tuple[int, ...]
    release: tuple[int, ...]
    backward: tuple[int, ...]
    weights: tuple[Weight, ...]
    layer: bool


class Recording(msgspec.Struct, frozen=True):
    """The pieces by key, and the keys in the order of the step."""

    pieces: dict[str, Piece]
    order: tuple[str, ...]


def record(build: Build, segments: list[Segment], *, keeps_outputs: bool) -> Recording:
    """Run each kind of segment forward, then all of them backward, and cut the log at their seams."""
    tape, state = build.tape, State()
    kinds: dict[str, str] = {}
    chosen: dict[str, Segment] = {}
    log = tape.log
    cuts, nodes, weights, copies, returned = [0], [], [], [], []
    for segment in segments:
        if segment.key in kinds:
            continue
        kind = kinds[segment.key] = segment.key if segment.kind is None else segment.kind(state)
        if kind in chosen:
            continue
        chosen[kind] = segment
        nodes.append(len(tape.nodes))
        build.weights, tape.cached, state.returned = [], [], []
        segment.run(build, state)
        weights.append(tuple(build.weights))
        copies.append(tape.cached)
        returned.append(state.returned)
        cuts.append(len(log))
    outputs = state.logits
    state.logits, state.returned = None, []
    if not keeps_outputs:
        del outputs
    cuts[-1] = len(log)
    released = [len(log)]
    for cached, tensors in zip(copies, returned, strict=True):
        tape.drop_copies(cached)
        if not keeps_outputs:
            tensors.clear()
        released.append(len(log))
    tape.label = TEMPORARY
    _start_backward(tape.value(1, 4), state)
    after: list[tuple[int, int]] = []
    start = released[-1]
    for place in range(len(chosen) - 1, -1, -1):
        tape.backward(nodes[place])
        if place == 0:
            state.lasting.clear()
        after.append((start, len(log)))
        start = len(log)
    after.reverse()
    pieces = {
        kind: Piece(
            segment.name or segment.key,
            tuple(log[cuts[place] : cuts[place + 1]]),
            tuple(log[released[place] : released[place + 1]]),
            tuple(log[after[place][0] : after[place][1]]),
            weights[place],
            segment.layer,
        )
        for place, (kind, segment) in enumerate(chosen.items())
    }
    return Recording(pieces, tuple([kinds[segment.key] for segment in segments]))


class NothingTrains(ValueError):
    """No weight of the program wants a gradient."""


def _start_backward(seed: Value, state: State) -> None:
    """The gradient of the loss with respect to itself. Raises NothingTrains when nothing wants one."""
    loss = state.loss
    if loss is None or loss.node is None:
        raise NothingTrains
    loss.node.grads[0] = seed


__all__ = ["Piece", "Recording", "Segment", "State", "Storage", "record"]
