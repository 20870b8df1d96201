"""The step of an encoder-decoder: two stacks of layers, the second of which looks at the first's output, and the loss.

Every family's program says what a stack begins and ends with, what its layer computes and how the loss is made
(`Parts`); how they follow each other, and which of them are alike, is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sizeup.estimate.training.build import Build
from sizeup.estimate.training.checkpointing import Made, checkpointed
from sizeup.estimate.training.program import Segment, State
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.tape import Value

ENCODER, DECODER = "encoder", "decoder"


class StackLayer:
    """A layer of a stack; called, it takes the stream and returns the next. Families say how (`forward`).

    rows: tokens of a sequence in this stack. made: what the layer makes for later ones, beside its output.
    """

    def __init__(self, build: Build, state: State, stack: str) -> None:
        self.build, self.decoder = build, stack == DECODER
        self.scope, self.rows = build.scope, build.sequence
        self.mask, self.cross_mask = held(state, "mask"), held(state, "cross mask")
        self.encoded = held(state, "encoded") if self.decoder else None
        self.made = Made(None)

    def __call__(self, x: Value) -> Value:
        """The stream after the layer, which may be recomputed when the step is elsewhere."""
        self.build.scope, self.build.sequence = self.scope, self.rows
        return self.forward(x)

    def forward(self, x: Value) -> Value:
        """What the layer computes."""
        raise NotImplementedError

    def hand_on(self, state: State) -> None:
        """Put what the layer made for later ones where they find it."""


class Parts(msgspec.Struct, frozen=True):
    """A family's own parts. start, end: of a stack, whose name they are given. layer: makes one of its layers.

    kind: in what a layer of that number differs from others of its stack.
    """

    start: Callable[[Build, State, str], None]
    layer: Callable[..., StackLayer]
    end: Callable[[Build, State, str], None]
    loss: Callable[[Build, State], None]
    kind: Callable[[str, int], str] = lambda _stack, _number: ""


def segments(encoder_layers: int, decoder_layers: int, parts: Parts, run: Run) -> list[Segment]:
    """The step: encoder, decoder, head and loss.

    The last layer of a stack is a kind of its own: its gradients of what all layers share are the first to come.
    """
    found: list[Segment] = []
    number = 0
    for stack, layers in ((ENCODER, encoder_layers), (DECODER, decoder_layers)):
        found.append(Segment(f"{stack} start", _end(parts.start, stack), f"{stack} embedding"))
        kinds: dict[str, Callable[[Build, State], None]] = {}
        for place in range(layers):
            again = bool(run.checkpoint) and run.checkpoint[number]
            name = "first" if place == 0 else "last" if place == layers - 1 else "middle"
            key = " ".join((stack, name, "again" * again, parts.kind(stack, place))).rstrip()
            if key not in kinds:
                kinds[key] = _layer_runner(parts, run, stack, place, again=again)
            found.append(Segment(key, kinds[key], f"{stack} layer", layer=True))
            number += 1
        found.append(Segment(f"{stack} end", _end(parts.end, stack), f"{stack} end"))
    found.append(Segment("loss", parts.loss, "head and loss"))
    return found


def _end(part: Callable[[Build, State, str], None], stack: str) -> Callable[[Build, State], None]:
    def run(build: Build, state: State) -> None:
        build.sequence = build.target if stack == DECODER else build.source
        build.scope = stack
        part(build, state, stack)

    return run


def _layer_runner(parts: Parts, run: Run, stack: str, number: int, *, again: bool) -> Callable[[Build, State], None]:
    def forward(build: Build, state: State) -> None:
        build.scope = f"{stack}{len(build.made)}/"
        layer = parts.layer(build, state, stack, number=number)
        if again:
            state.x = checkpointed(
                build.tape, layer, state.hidden, selective=run.selective, offload=run.offload, made=layer.made
            )
        else:
            state.x = layer(state.hidden)
        layer.hand_on(state)

    return forward


def hand_over(state: State, x: Value, stack: str) -> None:
    """A stack is done: its names go, but the encoder's output stays for the decoder."""
    encoded = x if stack == ENCODER else held(state, "encoded")
    state.held.clear()
    state.held["encoded"] = encoded
    state.x = x


def held(state: State, name: str) -> Value | None:
    """A value that the model's code has a name for."""
    found = state.held.get(name)
    return found if isinstance(found, Value) else None
