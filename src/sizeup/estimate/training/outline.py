"""A recording in short: how high each piece's log goes and what it adds, for any sizes that it holds for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sizeup.estimate.training.program import Recording
from sizeup.estimate.training.tape import ROUND, Blocks, Height, added, height, labelled

#: Blocks by what stands for them, with the number of times that a point of a log has more of them than the one before.
Change = tuple[tuple[int, int], ...]


#: Times that a log is summed up entry by entry before it is worth the time to find its summits.
_PATIENCE = 4


class Log:
    """A log, and what is known of it whatever its sizes are."""

    __slots__ = ("_added", "_asked", "_summits", "entries")

    def __init__(self, entries: tuple[int, ...]) -> None:
        self.entries = entries
        self._added: tuple[tuple[int, int, int], ...] | None = None
        self._summits: tuple[tuple[Change, int], ...] | None = None
        self._asked = 0

    def height(self, blocks: Blocks) -> Height:
        """The highest running sum and where it is reached; when asked often, of the points alone that can be it."""
        if self._summits is None:
            self._asked += 1
            if self._asked <= _PATIENCE:
                return height(self.entries, blocks)
            self._summits = summits(self.entries)
        level = top = entry = 0
        for change, place in self._summits:
            for number, times in change:
                level += times * blocks[number]
            if level > top:
                top, entry = level, place
        return Height(top * ROUND, entry, self.net(blocks))

    def added(self) -> tuple[tuple[int, int, int], ...]:
        """What the log adds in all: label, number of blocks, times."""
        if self._added is None:
            self._added = added(self.entries)
        return self._added

    def net(self, blocks: Blocks) -> int:
        """What the log adds in all, in bytes."""
        return sum([times * blocks[number] for _, number, times in self.added()]) * ROUND

    def by_label(self, blocks: Blocks, until: int | None = None) -> dict[int, int]:
        """What it adds in bytes by label, up to that entry."""
        return labelled(self.added() if until is None else added(self.entries[:until]), blocks)


def summits(entries: Sequence[int]) -> tuple[tuple[Change, int], ...]:
    """The points of a log that may be its highest, each as a change from the one before.

    A point is left out if one beside it has all that it has: the blocks that it has more are cancelled out by equal
    ones. Sizes are more than 0.
    """
    found: list[tuple[dict[int, int], int]] = [({}, 0)]
    change: dict[int, int] = {}
    taken = 0
    for place, entry in enumerate(entries, 1):
        number = entry >> 9
        if number > 0:
            taken, more = place, 1
        elif number < 0:
            if taken:
                change = _settled(found, change, taken)
            taken, more, number = 0, -1, -number
        else:
            continue
        times = change.get(number, 0) + more
        if times:
            change[number] = times
        else:
            del change[number]
    if taken:
        _settled(found, change, taken)
    return tuple([(tuple(change.items()), place) for change, place in found])


def _settled(found: list[tuple[dict[int, int], int]], change: dict[int, int], place: int) -> dict[int, int]:
    """Add a point to those found, unless the last has all of it; drop those that it has all of. Returns what is left.

    The first of equal points stays.
    """
    while True:
        if all(times < 0 for times in change.values()):
            return change
        if found and all(times > 0 for times in change.values()):
            change = _joined(found.pop()[0], change)
            if found:
                continue
        found.append((change, place))
        return {}


def _joined(first: dict[int, int], second: dict[int, int]) -> dict[int, int]:
    both = Counter(first)
    both.update(second)
    return {number: times for number, times in both.items() if times}


class Outline:
    """The logs of a recording's pieces (forward, what goes after it, backward), the order of the step, its phases.

    phases: name, whether it is of the backward pass, places of its segments in the order in which they run.
    """

    def __init__(self, recording: Recording) -> None:
        pieces = recording.pieces
        self.order = recording.order
        self.names = {key: piece.name for key, piece in pieces.items()}
        self.forward = {key: Log(piece.forward) for key, piece in pieces.items()}
        self.release = {key: Log(piece.release) for key, piece in pieces.items()}
        self.backward = {key: Log(piece.backward) for key, piece in pieces.items()}
        self.phases = _phases([pieces[key].layer for key in recording.order])


def _phases(is_layer: list[bool]) -> list[tuple[str, bool, list[int]]]:
    """The phases of a step whose segments are layers, or not."""
    last = len(is_layer) - 1
    layers = [place for place, layer in enumerate(is_layer) if layer]
    found = [("forward", False, list(range(last))), ("loss", False, [last])]
    backward: dict[str, list[int]] = {}
    for place in range(last, -1, -1):
        backward.setdefault(_backward_phase(place, last, layers), []).append(place)
    return [phase for phase in found if phase[2]] + [(name, True, places) for name, places in backward.items()]


def _backward_phase(place: int, last: int, layers: list[int]) -> str:
    if place == last:
        return "backward of the head"
    if layers and place == layers[-1]:
        return "backward of the last layer"
    if layers and place == layers[0]:
        return "backward of the first layer"
    return "backward of the layers" if layers and layers[0] < place < layers[-1] else "backward of the ends"
