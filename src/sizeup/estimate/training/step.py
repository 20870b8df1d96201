"""The peak of one step: the pieces of the program put together over the whole depth, moment by moment.

static     weights, buffers, optimizer states, inputs (and gradients, between micro-batches)
forward    static + what the segments before have left + the height inside the segment
backward   the same, last segment first; gradients stay, kept activations go
step       static + gradients + the optimizer's temporaries
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate

import msgspec

from sizeup.estimate.training.build import Weight, stored_bytes
from sizeup.estimate.training.optimizers import Optimizer
from sizeup.estimate.training.outline import Log, Outline
from sizeup.estimate.training.program import Recording
from sizeup.estimate.training.tape import COMMUNICATION, GRADIENT, WEIGHT_COPIES, Blocks, rounded

#: Labels of what all micro-batches in flight share.
_SHARED = frozenset({WEIGHT_COPIES, COMMUNICATION, GRADIENT})


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


def moments(outline: Outline, blocks: Blocks, static: int) -> tuple[list[Moment], int]:
    """The highest point of each phase of forward and backward, and the bytes left when backward is over."""
    order = outline.order
    up = {key: log.height(blocks) for key, log in outline.forward.items()}
    down = {key: log.height(blocks) for key, log in outline.backward.items()}
    levels = list(accumulate([up[key].net for key in order], initial=static))
    rising = [level + up[key].top for level, key in zip(levels, order, strict=False)]
    released = {key: log.net(blocks) for key, log in outline.release.items()}
    full = levels[-1] + sum([released[key] for key in order])
    levels = list(accumulate([down[key].net for key in reversed(order)], initial=full))
    falling = [level + down[key].top for level, key in zip(levels, reversed(order), strict=False)]
    falling.reverse()
    found = []
    for phase, backward, places in outline.phases:
        peaks, heights = (falling, down) if backward else (rising, up)
        place = max(places, key=peaks.__getitem__)
        key = order[place]
        found.append(Moment(phase, outline.names[key], peaks[place], place, heights[key].entry, backward))
    return found, levels[-1]


def composition(outline: Outline, blocks: Blocks, moment: Moment) -> dict[int, int]:
    """What is alive at a moment beside the static bytes, by label."""
    sums: dict[int, int] = {}
    for logs, keys in ran(outline, moment):
        for key, count in Counter(keys).items():
            _gather(sums, logs[key].by_label(blocks), count)
    _gather(sums, running(outline, moment).by_label(blocks, moment.entry), 1)
    return sums


def ran(outline: Outline, moment: Moment) -> list[tuple[dict[str, Log], tuple[str, ...]]]:
    """The logs that were written whole before a moment, and of which segments."""
    order, place = outline.order, moment.place
    if not moment.backward:
        return [(outline.forward, order[:place])]
    return [(outline.forward, order), (outline.release, order), (outline.backward, order[place + 1 :])]


def running(outline: Outline, moment: Moment) -> Log:
    """The log that is being written at a moment."""
    return (outline.backward if moment.backward else outline.forward)[outline.order[moment.place]]


def last_moment(outline: Outline) -> Moment:
    """The end of the backward pass."""
    return Moment("end", "", 0, 0, len(outline.backward[outline.order[0]].entries), backward=True)


def kept_bytes(outline: Outline, blocks: Blocks) -> int:
    """What a forward pass leaves for its backward pass: of each micro-batch in flight, unlike gathered weights."""
    sums: dict[int, int] = {}
    for key in outline.order:
        _gather(sums, outline.forward[key].by_label(blocks), 1)
    return max(0, sum(size for label, size in sums.items() if label not in _SHARED))


def received_bytes(outline: Outline, blocks: Blocks) -> dict[int, int]:
    """What a pipeline stage gives back without having made it, by label: its input, its output's gradient, tables."""
    sums: dict[int, int] = {}
    for key in outline.order:
        for logs in (outline.forward, outline.release, outline.backward):
            _gather(sums, logs[key].by_label(blocks), 1)
    return {label: -size for label, size in sums.items() if size < 0}


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
