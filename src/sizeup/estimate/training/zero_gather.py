"""Stage 3 of ZeRO: which weights DeepSpeed has whole on a rank at each point of the step.

Before each module runs (also one without weights of its own: a layer, an activation), the next weights of the traced
order are gathered until they are `prefetch` elements (whole weights: the last one may go beyond), as long as fewer
than `live` are there; so these run ahead until that many are. Several at once arrive in one tensor, from which each is
copied out; it stays until the last of them has been used. A weight goes when its module is done, unless the next use
is fewer than `reuse` elements of weights away: a small model's weights, and a large one's last layers, stay from the
forward pass until the backward pass has used them. Weights below `persistence` elements are never given back.

Stacked experts are multiplied through a transposed view, which the graph keeps: unless the layer is recomputed, their
gathered weights stay until the backward pass, which gathers them once more. (They are found again where the whole
model begins its backward pass: that is what their distance counts to.)

Source: DeepSpeed 0.19, `runtime/zero/partitioned_param_coordinator.py`, `partition_parameters.py`.
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.program import Piece, Recording
from sizeup.estimate.training.tape import WEIGHT_COPIES, rounded

#: Modules of a layer without weights of their own: itself, its attention, its feed-forward, the activation.
BARE = 4


class Gather(msgspec.Struct, frozen=True):
    """What DeepSpeed gathers and keeps, in elements; its defaults."""

    prefetch: int = 50_000_000
    live: int = 1_000_000_000
    reuse: int = 1_000_000_000
    persistence: int = 100_000


class Use(msgspec.Struct, frozen=True):
    """A module that runs: which weight it has, at what place of the step's order, elements and bytes.

    Elements are 0 where it has none, or one that is always whole. stacked: several experts in one
    tensor, and several such tensors.
    """

    weight: tuple[int, int]
    place: int
    n: int
    size: int
    stacked: bool = False


def gathered(recording: Recording, limits: Gather, *, recomputed: bool = False) -> Recording:
    """The same step with the weights that are whole while each segment runs. recomputed: layers are."""
    forward = uses(recording, limits.persistence)
    heights = Coordinator(forward + forward[::-1], limits).heights(len(forward), keeps=not recomputed)
    return _with_heights(recording, heights)


def uses(recording: Recording, persistence: int) -> list[Use]:
    """The modules in the order in which the forward pass runs them. A tied head uses the embedding."""
    found: list[Use] = []
    last = len(recording.order) - 1
    for place, key in enumerate(recording.order):
        piece = recording.pieces[key]
        if piece.layer or place == 0:
            found += [Use((place, -1), place, 0, 0)] * BARE
        stacks = [(n, weight) for n, weight in enumerate(piece.weights) if weight.kind == "experts"]
        for number, weight in enumerate(piece.weights):
            if weight.kind == "experts" and number > stacks[0][0]:
                continue
            together = [stack for _, stack in stacks] if weight.kind == "experts" else [weight]
            large = [other for other in together if other.n > persistence]
            size = sum(rounded(part) for other in large for part in other.sizes)
            found.append(Use((place, number), place, sum(other.n for other in large), size, weight.kind == "experts"))
    table = next((use for use in found if use.n), None)
    if table is not None and table.place == 0 and not any(use.n for use in found if use.place == last):
        found.append(msgspec.structs.replace(table, place=last))
    return found


class Parcel:
    """Weights that come in one tensor. left: those that were not used yet; copied: whether they lie apart, too."""

    def __init__(self, uses: dict[tuple[int, int], Use]) -> None:
        self.uses = uses
        self.left = set(uses)
        self.copied = False
        self.size = sum(use.size for use in uses.values())


class Coordinator:
    """Walks the uses of a step, and notes how many bytes of weights are whole.

    whole: weights that are there. parcels: what came and of which some is still to be used. ahead: uses that were
    looked at. available: elements that are whole or on their way. held: bytes that only the graph holds.
    """

    def __init__(self, trace: list[Use], limits: Gather) -> None:
        self.trace, self.limits = trace, limits
        self.whole: dict[tuple[int, int], Use] = {}
        self.held: dict[tuple[int, int], int] = {}
        self.parcels: list[Parcel] = []
        self.ahead = self.turn = 0
        self.available = 0
        self.fetched: dict[tuple[int, int], int] = {}
        self.distance = [0]
        for use in trace:
            self.distance.append(self.distance[-1] + use.n)
        self.next_use: list[int | None] = []
        later: dict[tuple[int, int], int] = {}
        for step in range(len(trace) - 1, -1, -1):
            self.next_use.append(later.get(trace[step].weight))
            later[trace[step].weight] = step
        self.next_use.reverse()

    def heights(self, half: int, *, keeps: bool) -> list[tuple[bool, int, int, int]]:
        """At each use: whether it is in the backward pass, its place, bytes that are whole before and while it runs."""
        found, self.turn = [], half
        for step, use in enumerate(self.trace):
            before = self._fetch(step, use)
            found.append((step >= half, use.place, before, self._bytes()))
            if step >= half:
                self.held.pop(use.weight, None)
            gone = self._release(step, use)
            if gone and use.stacked and keeps and step < half:
                self.held[use.weight] = use.size
        return found

    def _bytes(self) -> int:
        whole = sum([use.size for use in self.whole.values()]) + sum(self.held.values())
        return whole + sum([parcel.size for parcel in self.parcels])

    def _fetch(self, step: int, use: Use) -> int:
        before = 0
        parcel = next((parcel for parcel in self.parcels if use.weight in parcel.left), None)
        if parcel is not None:
            before = self._unpacked(parcel)
            parcel.left.discard(use.weight)
            if not parcel.left:
                self.parcels.remove(parcel)
        elif use.n and use.weight not in self.whole:
            self.available += use.n
            self.whole[use.weight] = use
            before = self._bytes() + (use.size if use.stacked else 0)
        self.ahead = max(self.ahead, step + 1)
        self._prefetch()
        return before

    def _unpacked(self, parcel: Parcel) -> int:
        """A single weight lies in its parcel; of several each is copied out."""
        if not parcel.copied:
            parcel.copied = True
            self.whole |= parcel.uses
            if len(parcel.uses) == 1 and not any(use.stacked for use in parcel.uses.values()):
                parcel.size = 0
        return self._bytes()

    def _prefetch(self) -> None:
        most, elements = min(self.limits.live - self.available, self.limits.prefetch), 0
        wanted: dict[tuple[int, int], Use] = {}
        while self.ahead < len(self.trace) and elements < most:
            use = self.trace[self.ahead]
            self.fetched[use.weight] = self.ahead
            self.ahead += 1
            if not use.n:
                continue
            coming = any(use.weight in parcel.left for parcel in self.parcels)
            if not coming and use.weight not in self.whole and use.weight not in wanted:
                wanted[use.weight] = use
                elements += use.n
        if wanted:
            self.available += elements
            self.parcels.append(Parcel(wanted))

    def _release(self, step: int, use: Use) -> bool:
        """Give a weight back unless it stays; whether it went."""
        later = self.next_use[step]
        if not use.n:
            return False
        if later is not None and use.stacked:
            later = min(later, self.turn)
        near = later is not None and self.distance[later] - self.distance[step + 1] < self.limits.reuse
        if near or self.fetched.get(use.weight, -1) > step:
            return False
        del self.whole[use.weight]
        self.available -= use.n
        return True


def _with_heights(recording: Recording, heights: list[tuple[bool, int, int, int]]) -> Recording:
    """What is whole stands around each log; what was whole before the first use of a segment, at its start."""
    first: dict[tuple[bool, int], int] = {}
    most: dict[tuple[bool, int], int] = {}
    for back, place, before, during in heights:
        at = (back, place)
        most[at] = max(most.get(at, 0), during, before if at in first else 0)
        first.setdefault(at, before)
    made: dict[str, Piece] = {}
    keys = []
    for place, key in enumerate(recording.order):
        up, down = (most.get((back, place), 0) for back in (False, True))
        start, turn = (first.get((back, place), 0) for back in (False, True))
        label = f"{key} {up} {down} {start} {turn}"
        if label not in made:
            piece = recording.pieces[key]
            made[label] = msgspec.structs.replace(
                piece, forward=_around(piece.forward, start, up), backward=_around(piece.backward, turn, down)
            )
        keys.append(label)
    return Recording(made, tuple(keys))


def _around(log: tuple[int, ...], start: int, size: int) -> tuple[int, ...]:
    opening = (start + WEIGHT_COPIES, WEIGHT_COPIES - start) if start else ()
    return (*opening, size + WEIGHT_COPIES, *log, WEIGHT_COPIES - size) if size else (*opening, *log)
