"""The peak of one step: the pieces of the program put together over the whole depth, moment by moment.

static     weights, buffers, optimizer states, inputs (and gradients, between micro-batches)
forward    static + what the segments before have left + the height inside the segment
backward   the same, last segment first; gradients stay, kept activations go
step       static + gradients + the optimizer's temporaries
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.build import Weight, stored_bytes
from sizeup.estimate.training.optimizers import Optimizer
from sizeup.estimate.training.program import Recording
from sizeup.estimate.training.tape import by_label, height, net, rounded


class Static(msgspec.Struct, frozen=True):
    """Bytes that are there before the step begins."""

    weights: int
    buffers: int
    states: int
    inputs: int
    gradients: int = 0
    masters: int = 0
    reference: int = 0
    buckets: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, name) for name in self.__struct_fields__)


class Moment(msgspec.Struct, frozen=True):
    """The highest point of one phase. place: index of the segment in the step's order; entry: in its log.

    peak: bytes in all. before: bytes on top of the static ones when the segment begins.
    """

    phase: str
    segment: str
    peak: int
    place: int
    entry: int
    backward: bool


def moments(recording: Recording, static: int) -> tuple[list[Moment], int]:
    """The highest point of each phase of forward and backward, and the bytes left when backward is over."""
    order, pieces = recording.order, recording.pieces
    up = {key: height(piece.forward) for key, piece in pieces.items()}
    down = {key: height(piece.backward) for key, piece in pieces.items()}
    released = {key: net(piece.release) for key, piece in pieces.items()}
    best: dict[str, Moment] = {}
    level = static
    last = len(order) - 1
    for place, key in enumerate(order):
        phase = "loss" if place == last else "forward"
        _offer(best, phase, pieces[key].name, level + up[key].top, place, up[key].entry, backward=False)
        level += up[key].net
    level += sum([released[key] for key in order])
    layers = [place for place, key in enumerate(order) if pieces[key].layer]
    for place in range(last, -1, -1):
        key = order[place]
        phase = _backward_phase(place, last, layers)
        _offer(best, phase, pieces[key].name, level + down[key].top, place, down[key].entry, backward=True)
        level += down[key].net
    return list(best.values()), level


def _backward_phase(place: int, last: int, layers: list[int]) -> str:
    if place == last:
        return "backward of the head"
    if layers and place == layers[-1]:
        return "backward of the last layer"
    if layers and place == layers[0]:
        return "backward of the first layer"
    return "backward of the layers" if layers and layers[0] < place < layers[-1] else "backward of the ends"


def _offer(
    best: dict[str, Moment], phase: str, segment: str, height: int, place: int, entry: int, *, backward: bool
) -> None:
    if phase not in best or height > best[phase].peak:
        best[phase] = Moment(phase, segment, height, place, entry, backward)


def composition(recording: Recording, moment: Moment) -> dict[int, int]:
    """What is alive at a moment beside the static bytes, by label."""
    sums: dict[int, int] = {}
    counts: dict[tuple[str, str], int] = {}
    order = recording.order
    for place, key in enumerate(order):
        if moment.backward or place < moment.place:
            counts[key, "forward"] = counts.get((key, "forward"), 0) + 1
        if moment.backward:
            counts[key, "release"] = counts.get((key, "release"), 0) + 1
        if moment.backward and place > moment.place:
            counts[key, "backward"] = counts.get((key, "backward"), 0) + 1
    for (key, part), count in counts.items():
        _gather(sums, by_label(getattr(recording.pieces[key], part)), count)
    piece = recording.pieces[order[moment.place]]
    log = piece.backward if moment.backward else piece.forward
    _gather(sums, by_label(log[: moment.entry]), 1)
    return sums


def _gather(sums: dict[int, int], more: dict[int, int], count: int) -> None:
    for label, size in more.items():
        sums[label] = sums.get(label, 0) + size * count


def counted_weights(recording: Recording) -> list[tuple[Weight, int]]:
    """Every weight with the number of times the model has it."""
    counts: dict[str, int] = {}
    for key in recording.order:
        counts[key] = counts.get(key, 0) + 1
    return [(weight, counts[key]) for key, piece in recording.pieces.items() for weight in piece.weights]


def weight_bytes(weights: list[tuple[Weight, int]]) -> int:
    """Bytes of all weights."""
    return sum(count * stored_bytes([weight]) for weight, count in weights)


def state_bytes(weights: list[tuple[Weight, int]], optimizer: Optimizer) -> int:
    """Bytes of the optimizer's states on the device; those in managed memory aren't the allocator's."""
    states = sum(count * sum(map(rounded, optimizer.state(weight))) for weight, count in weights if weight.trains)
    return states + optimizer.tables


def managed_bytes(weights: list[tuple[Weight, int]], optimizer: Optimizer) -> int:
    """Bytes of the optimizer's states in memory that moves between host and device."""
    managed = optimizer.managed
    if managed is None:
        return 0
    return sum(count * sum(managed(weight)) for weight, count in weights if weight.trains)


def gradient_bytes(weights: list[tuple[Weight, int]]) -> int:
    """Bytes of the gradients of all that trains."""
    return sum(count * rounded(weight.n * weight.item) for weight, count in weights if weight.trains)
