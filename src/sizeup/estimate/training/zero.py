"""ZeRO as DeepSpeed 0.19 does it: who holds what, the buckets that gradients pass through, and the optimizer's step.

Of N ranks each holds, for P elements that train (an element of a weight: w bytes, 2 or 4):

    stage 1   4P/N of master copies and the states of as many elements in fp32, whatever the weights are in;
              all gradients until the backward pass is over, then they are reduced, bucket by bucket (with
              `overlap_comm` as in stage 2)
    stage 2   the same; a gradient goes into the bucket as it comes, and with it to its owner when the bucket is full
    stage 3   w/N of every weight (of those below `persistence` elements: all), 4P/N of masters and the states,
              wP/N of gradients, and the bucket, at all times; gathered weights: see `zero_gather`

    bucket    w · `reduce_bucket_size`, however small the model is (5·10⁸ elements: 1 GB in 16 bits); twice with
              `overlap_comm` in stages 1 and 2. It is there from the first gradient to the end of the backward pass.
    reducing  what is in the bucket is joined into a new tensor first (stage 3: unless it is a single one)
    owner     keeps gradients whole, also those that its part only touches: the rank that touches most is the worst
    step      gradients' norms in fp64, one after the other, then the part in w bytes and in fp32; then the optimizer,
              on one flat weight (stage 3: one for each 10⁹ elements of the part)

Verified against DeepSpeed 0.19.8 itself on fake tensors, for one rank of a fake world (scripts/sharded_grid.py).
Source: `runtime/zero/stage_1_and_2.py`, `stage3.py`, `parameter_offload.py`; Rajbhandari et al. 2020, 2021.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sizeup.estimate.training.build import Weight
from sizeup.estimate.training.optimizers import Optimizer
from sizeup.estimate.training.program import Piece, Recording
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.step import Static, gradient_bytes, state_bytes, weight_bytes
from sizeup.estimate.training.tape import COMMUNICATION, GRADIENT, ROUND, Blocks, rounded
from sizeup.estimate.training.zero_gather import Gather, gathered

BUCKET_ELEMENTS = 500_000_000
#: Elements of a part that the optimizer steps at once in stage 3 (`sub_group_size`).
SUB_GROUP = 1_000_000_000
MASTER, NORM = 4, 8

#: Buffers of pinned memory through which states and weights go to NVMe; elements of the latter; of weights that stay.
STATE_BUFFERS, WEIGHT_BUFFERS, WEIGHT_BUFFER, WEIGHTS_ON_HOST = 4, 5, 100_000_000, 1_000_000_000

Counted = list[tuple[Weight, int]]


class Zero(msgspec.Struct, frozen=True):
    """stage, ranks, bytes of a gradient's element, elements of the bucket; overlap: two buckets in stages 1 and 2.

    accumulating: gradients of earlier micro-batches are held. optimizer_to, weights_to: `cpu` or `nvme`, where the
    optimizer's part and the weights' parts lie instead (ZeRO-Offload, ZeRO-Infinity). recomputed: layers run again.
    """

    stage: int
    world: int
    item: int
    bucket: int = BUCKET_ELEMENTS
    overlap: bool = False
    accumulating: bool = False
    optimizer_to: str = ""
    weights_to: str = ""
    gather: Gather = Gather()
    recomputed: bool = False

    @property
    def host(self) -> bool:
        """Whether the optimizer steps on the host."""
        return bool(self.optimizer_to)

    @property
    def as_they_come(self) -> bool:
        """Whether a gradient goes into the bucket as soon as it is there, and not after the backward pass."""
        return self.stage > 1 or self.overlap

    @property
    def bucket_bytes(self) -> int:
        """Bytes of the bucket, or of both."""
        return rounded(self.bucket * self.item) * (2 if self.overlap and self.stage < 3 else 1)


def zero_of(setting: TrainSetting) -> Zero | None:
    """How a setting asks for ZeRO; None when it doesn't."""
    if not setting.sharding.startswith("zero"):
        return None
    return Zero(
        int(setting.sharding[-1]),
        setting.data_parallel,
        setting.weight_item,
        setting.reduce_bucket,
        setting.overlap_comm,
        setting.accumulating,
        place_of(setting.offload_optimizer),
        place_of(setting.offload_weights),
        Gather(setting.prefetch_bucket, setting.live_parameters, setting.reuse_distance, setting.persistence_threshold),
        setting.checkpointing != "none",
    )


def place_of(wanted: bool | str) -> str:
    """Where something is offloaded to: `cpu`, `nvme`, or nowhere."""
    return "cpu" if wanted is True else wanted or ""


def share(size: int, ways: int) -> int:
    """The largest rank's part of so much."""
    return -(-size // ways)


def trained_elements(weights: Counted) -> int:
    """Elements of all that trains."""
    return sum(count * weight.n for weight, count in weights if weight.trains)


def flat_weights(elements: int) -> Counted:
    """What the optimizer is given: a rank's part in fp32, in groups."""
    full, rest = divmod(elements, SUB_GROUP)
    made = [(_flat(SUB_GROUP), full), (_flat(rest), 1)]
    return [(weight, count) for weight, count in made if count and weight.n]


def _flat(n: int) -> Weight:
    return Weight("flat", "vector", n, MASTER, (MASTER * n,), trains=True)


class Owner(msgspec.Struct, frozen=True):
    """A rank and the gradients that it keeps: from the element `start` of all to `end`, those it touches being whole.

    elements: of them. largest: of the part of one weight.
    """

    rank: int
    start: int
    end: int
    elements: int
    largest: int


def owner(sizes: list[int], world: int) -> Owner:
    """The rank whose gradients are most. sizes: elements of what trains, in the model's order."""
    total = sum(sizes)
    part = share(total, world)
    best = Owner(0, 0, part, 0, 0)
    place = at = 0
    for rank in range(world):
        start, end = rank * part, min((rank + 1) * part, total)
        while place < len(sizes) and at + sizes[place] <= start:
            at += sizes[place]
            place += 1
        elements, largest, here, seen = 0, 0, at, place
        while seen < len(sizes) and here < end:
            elements += sizes[seen]
            largest = max(largest, min(end, here + sizes[seen]) - max(start, here))
            here += sizes[seen]
            seen += 1
        if elements > best.elements:
            best = Owner(rank, start, end, elements, largest)
    return best


def sizes_in_order(recording: Recording) -> list[int]:
    """Elements of every weight that trains, from the first segment to the last."""
    pieces = recording.pieces
    return [weight.n for key in recording.order for weight in pieces[key].weights if weight.trains]


def arrivals(log: tuple[int, ...], blocks: Blocks) -> list[tuple[int, int]]:
    """Where gradients come in a log, and their bytes."""
    return [
        (index, blocks[entry // ROUND] * ROUND)
        for index, entry in enumerate(log)
        if entry > 0 and entry % ROUND == GRADIENT
    ]


class Reducer:
    """Walks the backward pass, and says what DeepSpeed allocates and releases at each gradient."""

    def __init__(self, zero: Zero, kept: Owner, total: int) -> None:
        self.zero, self.kept = zero, kept
        self.at = total
        self.fill = 0
        self.waiting: list[tuple[int, int]] = []
        self.opened = self.owning = False
        self.beside: list[int] = []

    def arrived(self, size: int) -> Iterator[int]:
        """A gradient of so many bytes is there."""
        zero, n = self.zero, size // self.zero.item
        self.at = max(0, self.at - n)
        if not self.opened:
            self.opened = True
            if zero.stage < 3:
                yield zero.bucket_bytes + COMMUNICATION
        if zero.stage == 1 and zero.accumulating:
            yield GRADIENT - size
        if zero.as_they_come:
            yield from self.put(size, self.at)

    def put(self, size: int, start: int) -> Iterator[int]:
        """Into the bucket, which is reduced first if there is no room."""
        zero, n = self.zero, size // self.zero.item
        if self.fill + n > zero.bucket and self.fill:
            yield from self.reduce()
        if self.fill + n <= zero.bucket:
            yield GRADIENT - size
        else:
            self.beside.append(size)
        self.fill += n
        self.waiting.append((start, n))

    def reduce(self) -> Iterator[int]:
        """What is in the bucket is joined and reduced; the owner keeps its part."""
        zero, kept = self.zero, self.kept
        joined = rounded(self.fill * zero.item)
        if self.fill and not (zero.stage == 3 and len(self.waiting) == 1):
            yield joined + COMMUNICATION
            yield COMMUNICATION - joined
        if zero.stage < 3 and not zero.host:
            own = any(start < kept.end and start + n > kept.start for start, n in self.waiting)
            if own and not self.owning:
                self.owning = True
                yield rounded(kept.elements * zero.item) + GRADIENT
        for size in self.beside:
            yield GRADIENT - size
        self.beside.clear()
        self.waiting.clear()
        self.fill = 0

    def finished(self, sizes: list[int]) -> Iterator[int]:
        """The end of the backward pass. sizes: elements of what trains, in the model's order."""
        zero, start = self.zero, 0
        if not zero.as_they_come:
            for n in sizes:
                yield from self.put(rounded(n * zero.item), start)
                start += n
        yield from self.reduce()
        if zero.stage < 3:
            yield COMMUNICATION - zero.bucket_bytes


def reduced(recording: Recording, zero: Zero, kept: Owner, blocks: Blocks) -> Recording:
    """The same step with gradients reduced in buckets; recorded with gradients that stay."""
    order, pieces = recording.order, recording.pieces
    sizes = sizes_in_order(recording)
    reducer = Reducer(zero, kept, sum(sizes))
    places = {key: arrivals(piece.backward, blocks) for key, piece in pieces.items()}
    made: dict[tuple[object, ...], Piece] = {}
    names: dict[tuple[object, ...], str] = {}
    keys = []
    for place in range(len(order) - 1, -1, -1):
        key = order[place]
        added = [(index, tuple(reducer.arrived(size))) for index, size in places[key]]
        if place == 0:
            added.append((len(pieces[key].backward) - 1, tuple(reducer.finished(sizes))))
        name = (key, *added)
        if name not in made:
            made[name] = _with(pieces[key], added)
            names[name] = f"{key} {len(made)}"
        keys.append(names[name])
    return Recording({names[name]: piece for name, piece in made.items()}, tuple(reversed(keys)))


def _with(piece: Piece, added: list[tuple[int, tuple[int, ...]]]) -> Piece:
    """A piece with entries put behind those of that number."""
    log: list[int] = []
    before = 0
    for index, entries in added:
        log += [*piece.backward[before : index + 1], *entries]
        before = index + 1
    log += piece.backward[before:]
    return msgspec.structs.replace(piece, backward=tuple(log))


class Divided(msgspec.Struct, frozen=True):
    """A step as ZeRO's fullest rank runs it. static: without buffers and inputs."""

    recording: Recording
    static: Static
    stepping: int
    host_bytes: int
    disk_bytes: int
    rank: int


def divided(zero: Zero, recording: Recording, weights: Counted, optimizer: Optimizer, blocks: Blocks) -> Divided:
    """The step of the rank that keeps most gradients. recording: with gradients that stay; blocks: its sizes."""
    sizes = sizes_in_order(recording)
    kept = owner(sizes, zero.world)
    made = reduced(recording, zero, kept, blocks)
    if zero.stage == 3:
        made = gathered(made, zero.gather, recomputed=zero.recomputed)
    part = share(sum(sizes), zero.world)
    static = held(zero, weights, kept, part, optimizer)
    away = offloaded(zero, weights, part, static)
    static = msgspec.structs.replace(
        static,
        weights=static.weights - away.weights,
        states=0 if zero.host else static.states,
        masters=0 if zero.host else static.masters,
        gradients=0 if zero.host else static.gradients,
        buckets=static.buckets + away.buffer,
    )
    return Divided(made, static, step_bytes(zero, kept, part, optimizer), away.host, away.disk, kept.rank)


def held(zero: Zero, weights: Counted, kept: Owner, part: int, optimizer: Optimizer) -> Static:
    """What a rank holds all through the step if nothing is offloaded. part: elements that are its own."""
    states, masters = state_bytes(flat_weights(part), optimizer), rounded(MASTER * part)
    if zero.stage < 3:
        own = gradient_bytes(weights) if zero.stage == 1 else rounded(kept.elements * zero.item)
        gradients = own if zero.accumulating else 0
        return Static(weight_bytes(weights), 0, states, 0, gradients=gradients, masters=masters)
    parts = sum(count * share(sum(weight.sizes), zero.world) for weight, count in weights)
    return Static(
        rounded(parts) + persistent(zero, weights),
        0,
        states,
        0,
        gradients=rounded(zero.item * part),
        masters=masters,
        buckets=zero.bucket_bytes,
    )


def persistent(zero: Zero, weights: Counted) -> int:
    """Weights that stage 3 keeps whole on every rank, beside their parts."""
    most = zero.gather.persistence
    return sum(count * rounded(weight.n * weight.item) for weight, count in weights if weight.n <= most)


class Offloaded(msgspec.Struct, frozen=True):
    """What lies elsewhere. weights: bytes that the device has less; buffer: that it needs for the transport."""

    host: int = 0
    disk: int = 0
    weights: int = 0
    buffer: int = 0


def offloaded(zero: Zero, weights: Counted, part: int, static: Static) -> Offloaded:
    """What one rank has on its host and on NVMe.

    optimizer to the host   masters, states, their gradients in fp32; stages 1 and 2: the part's weights once more and
                            room for the largest weight, which the device has, too; stage 3: gradients as they come
    optimizer to NVMe       the same four lie there; the host has a pool of four buffers, each of the largest group
    weights to the host     the part's; to NVMe: all but 10⁹ elements, and a pool of five buffers of 10⁸ elements
    """
    host = disk = moved = buffer = 0
    if zero.host:
        states = static.states + rounded(MASTER * part) * 2
        largest = max((rounded(weight.n * weight.item) for weight, _ in weights if weight.trains), default=0)
        if zero.optimizer_to == "nvme":
            disk, host = states, STATE_BUFFERS * MASTER * min(part, SUB_GROUP)
        else:
            host = states
        host += zero.item * part
        if zero.stage < 3:
            host, buffer = host + largest, largest
    if zero.weights_to:
        moved = static.weights - persistent(zero, weights)
        stays = moved if zero.weights_to == "cpu" else min(moved, zero.item * WEIGHTS_ON_HOST)
        disk += moved - stays
        host += stays + (0 if zero.weights_to == "cpu" else WEIGHT_BUFFERS * WEIGHT_BUFFER * zero.item)
    return Offloaded(host, disk, moved, buffer)


def step_bytes(zero: Zero, kept: Owner, part: int, optimizer: Optimizer) -> int:
    """What the optimizer's step adds at its highest to what backward has left. part: elements of a rank."""
    if zero.host:
        return 0
    group = min(part, SUB_GROUP) if zero.stage == 3 else part
    wide, narrow = rounded(MASTER * group), 0 if zero.item == MASTER else rounded(zero.item * group)
    if zero.stage == 3:
        return wide + max(narrow, optimizer.step(flat_weights(group)))
    own = rounded(kept.elements * zero.item)
    return max(rounded(NORM * kept.largest), narrow + wide, wide - own + optimizer.step(flat_weights(group)))
