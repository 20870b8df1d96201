"""Image features into the places that a text keeps for them (`masked_scatter`), and again into its first layers.

Kernels that look for true places make lists of them: 8 bytes an element of the stream forward, 24 an element of the
features backward (torch 2.13, `aten/src/ATen/native/cuda/IndexKernel.cpp`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sizeup.estimate.training.basic import cast, copy, join
from sizeup.estimate.training.build import Build
from sizeup.estimate.training.program import State
from sizeup.estimate.training.tape import EMBEDDING, RESIDUAL, Value

if TYPE_CHECKING:
    from sizeup.estimate.training.architectures.shape import DecoderShape
    from sizeup.estimate.training.architectures.vision_shape import Tower

LISTED = 24


def with_features(build: Build, state: State, shape: DecoderShape, tower: Tower) -> Value:
    """The embeddings of the text with the features of its images in them."""
    tape, projector = build.tape, tower.projector
    if shape.axes:
        state.held["places"] = tape.value(3 * build.tokens, 8)
    before, tape.label = tape.label, EMBEDDING
    features, words = state.hidden, value_of(state, "words")
    del state.held["words"]
    state.x = None
    state.held["features"] = features
    if projector.joined:
        features = join(tape, (features,))
    features = cast(tape, features, words.item)
    if projector.returned:
        state.returned.append(Value(features.n, features.item, features.storage))
    state.held["image features"] = features
    state.held["image mask"] = mask = tape.value(build.tokens, 1)
    n, item, sizes, wants = words.n, words.item, features.n, (words.needs, features.needs)

    def backward(_g: Value, _keep: object = mask.storage) -> Sequence[Value | None]:
        of_words = tape.value(n, item) if wants[0] else None
        of_features = tape.value(sizes, item) if wants[1] else None
        if wants[1]:
            tape.transient(LISTED * sizes)
        return of_words, of_features

    output = tape.value(n, item)
    tape.transient(8 * n, n)
    tape.saved()
    tape.record((words, features), (output,), backward)
    tape.label = before
    return output


def value_of(state: State, name: str) -> Value:
    """A tensor that the model keeps under that name. Raises TypeError when it is none."""
    found = state.held[name]
    if not isinstance(found, Value):
        raise TypeError(f"{name} is no tensor")
    return found


def deepened(place: int) -> Callable[[Build, State], None]:
    """The stream after a layer, with the features of that layer of the tower added where the images are."""

    def forward(build: Build, state: State) -> None:
        tape, found, mask = build.tape, value_of(state, f"deep {place}"), value_of(state, "image mask")
        before, tape.label = tape.label, RESIDUAL
        x = copy(tape, state.hidden)
        features = cast(tape, found, x.item)
        state.x = added(build, x, features, mask)
        tape.label = before

    return forward


def added(build: Build, x: Value, features: Value, mask: Value) -> Value:
    """`x[mask] = x[mask] + features`, in place."""
    tape, n, item, rows = build.tape, x.n, x.item, features.n
    keep = mask.storage

    def of_chosen(_g: Value, _keep: object = keep) -> Sequence[Value | None]:
        return (tape.value(n, item),)

    chosen = tape.result(rows, item, (x,), of_chosen)
    total = tape.result(rows, item, (chosen, features), lambda g: (g, g))
    del chosen

    def backward(g: Value, _keep: object = keep) -> Sequence[Value | None]:
        zeros = tape.value(rows, item)
        of_x = tape.value(n, g.item)
        del zeros
        return of_x, tape.value(rows, item)

    output = Value(n, item, x.storage)
    tape.saved()
    tape.record((x, total), (output,), backward)
    return output
