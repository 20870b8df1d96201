"""A model as segments of a step: before the layers, each kind of layer with its numbers, after them, the loss.

A segment is run once for each of its kinds, however many layers are of that kind: what a layer adds and the height it
reaches are the same wherever it stands (simulating 2 and 4 layers gave the full depth to the byte in 80 cases). The
first layer has a kind of its own, since its input lives longer or needs no gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.build import Build, Weight
from sizeup.estimate.training.tape import TEMPORARY, Parameter, Storage, Value


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


class Kind(msgspec.Struct, frozen=True):
    """What a segment has in common with those that run alike.

    opened: what it is the first to be given, and therefore the last to let go: when its backward pass is over.
    """

    name: str
    opened: tuple[object, ...] = ()


class Segment(msgspec.Struct, frozen=True):
    """One part of a step. key: its kind. run: its forward pass. name: for people. layer: whether it is one of many.

    kind: tells its kind when its turn comes, by what it is given: segments of several keys may then be alike.
    """

    key: str
    run: Callable[[Build, State], None]
    name: str = ""
    layer: bool = False
    kind: Callable[[State], Kind] | None = None


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


class _Part(msgspec.Struct):
    """A kind of segment while it is recorded. node: the number of its first node; opened: by the piece's name."""

    segment: Segment
    node: int
    weights: list[Weight]
    copies: list[Parameter]
    returned: list[Value]
    forward: tuple[int, ...] = ()
    release: tuple[int, ...] = ()
    backward: tuple[int, ...] = ()
    opened: dict[str, list[object]] = {}
    let_go: dict[str, tuple[int, ...]] = {}

    def opens(self, kind: Kind) -> str:
        """The name of the piece of a segment of this kind."""
        if not kind.opened:
            return kind.name
        name = f"{kind.name} opens" + f" {len(self.opened)}" * bool(self.opened)
        self.opened[name] = list(kind.opened)
        return name

    def pieces(self, kind: str) -> dict[str, Piece]:
        """The piece of this kind, and those that let something go at their end."""
        segment, weights = self.segment, tuple(self.weights)
        name = segment.name or segment.key
        return {
            key: Piece(name, self.forward, self.release, self.backward + more, weights, segment.layer)
            for key, more in [(kind, ()), *self.let_go.items()]
        }


def record(build: Build, segments: list[Segment], *, keeps_outputs: bool, piped: bool = False) -> Recording:
    """Run each kind of segment forward, then all of them backward, and cut the log at their seams.

    keeps_outputs: the model's outputs live through the backward pass; piped: and as long as the step.
    """
    state = State()
    parts: dict[str, _Part] = {}
    names: dict[str, str] = {}
    for segment in segments:
        if segment.key not in names:
            kind = Kind(segment.key) if segment.kind is None else segment.kind(state)
            if kind.name not in parts:
                parts[kind.name] = _forward(build, state, segment)
            names[segment.key] = parts[kind.name].opens(kind)
    _between(build, state, list(parts.values()), keeps_outputs=keeps_outputs, piped=piped)
    _backward(build, state, list(parts.values()))
    order = tuple([names[segment.key] for segment in segments])
    pieces = {name: piece for kind, part in parts.items() for name, piece in part.pieces(kind).items()}
    return Recording({name: pieces[name] for name in dict.fromkeys(order)}, order)


def _forward(build: Build, state: State, segment: Segment) -> _Part:
    tape = build.tape
    part = _Part(segment, len(tape.nodes), [], [], [])
    build.weights, tape.cached, state.returned = part.weights, part.copies, part.returned
    start = len(tape.log)
    segment.run(build, state)
    part.forward = tuple(tape.log[start:])
    return part


def _between(build: Build, state: State, parts: list[_Part], *, keeps_outputs: bool, piped: bool) -> None:
    """The model returns: outputs that nobody keeps through the backward pass go, and what autocast has cached."""
    log = build.tape.log
    start = len(log)
    if keeps_outputs and piped:
        state.held["outputs"] = state.logits
    elif keeps_outputs:
        state.lasting.append(state.logits)
    state.logits, state.returned = None, []
    parts[-1].forward += tuple(log[start:])
    for part in parts:
        start = len(log)
        build.tape.drop_copies(part.copies)
        if not keeps_outputs:
            part.returned.clear()
        part.release = tuple(log[start:])


def _backward(build: Build, state: State, parts: list[_Part]) -> None:
    tape, log = build.tape, build.tape.log
    start = len(log)
    tape.label = TEMPORARY
    _start_backward(tape.value(1, 4), state)
    for part in reversed(parts):
        tape.backward(part.node)
        if part is parts[0]:
            state.lasting.clear()
            for other in parts:
                other.returned.clear()
        part.backward, start = tuple(log[start:]), len(log)
        for name, things in part.opened.items():
            things.clear()
            part.let_go[name], start = tuple(log[start:]), len(log)


class NothingTrains(ValueError):
    """No weight of the program wants a gradient."""


def _start_backward(seed: Value, state: State) -> None:
    """The gradient of the loss with respect to itself. Raises NothingTrains when nothing wants one."""
    loss = state.loss
    if loss is None or loss.node is None:
        raise NothingTrains
    loss.node.grads[0] = seed


__all__ = ["Piece", "Recording", "Segment", "State", "Storage", "record"]
