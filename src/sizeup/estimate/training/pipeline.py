"""Pipelines as torch runs them: the chunks of layers that a rank has, what it does in turn, what it holds meanwhile.

    gpipe         all micro-batches forward, then all backward
    1f1b          as many forward as stages are left, then backward and forward in turn (Narayanan et al. 2021)
    interleaved   two chunks a rank: with S ranks, M micro-batches in rounds of about S, rank r begins with
                  round + 2 (S - 1 - r) forward passes, then forward and backward in turn

A chunk keeps, of each micro-batch between its forward and its backward pass, what autograd keeps, and the last one its
logits. Buffers for what other ranks send (inputs; gradients of outputs) are made for all micro-batches at once, and
stay. From the second backward pass on gradients are there already.

Source: torch 2.13, `distributed/pipelining/schedules.py`, `stage.py`; checked by running them on fake tensors.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from sizeup.estimate.training.program import Piece, Recording
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.tape import OTHER, POSITIONS, ROUND

#: Chunks of layers that a rank has, where it isn't one.
CHUNKS = {"interleaved": 2}


class Turn(msgspec.Struct, frozen=True):
    """A backward pass. waiting: of each chunk, micro-batches in flight beside this one. later: gradients are there."""

    chunk: int
    waiting: tuple[int, ...]
    later: bool


def chunk_count(setting: TrainSetting) -> int:
    """Chunks that a rank has."""
    return CHUNKS.get(setting.schedule, 1)


def chunks_of(setting: TrainSetting, rank: int) -> tuple[int, ...]:
    """A rank's chunks among all; they are dealt out in turn."""
    return tuple(rank + n * setting.pipeline_parallel for n in range(chunk_count(setting)))


def operations(setting: TrainSetting, rank: int) -> list[tuple[bool, int]]:
    """What a rank does: whether it is a backward pass, and of which of its chunks."""
    stages, micro, chunks = setting.pipeline_parallel, setting.micro_batches, chunk_count(setting)
    total = micro * chunks
    if chunks == 1:
        ahead = micro if setting.schedule == "gpipe" else min(micro, stages - rank)
        return [(False, 0)] * ahead + [(True, 0), (False, 0)] * (total - ahead) + [(True, 0)] * ahead
    in_round = micro // max(1, micro // stages)
    ahead = min(total, (chunks - 1) * in_round + 2 * (stages - 1 - rank))
    forward = [(False, step // in_round % chunks) for step in range(total)]
    backward = [(True, chunks - 1 - step // in_round % chunks) for step in range(total)]
    both = [pass_ for pair in zip(forward[ahead:], backward, strict=False) for pass_ in pair]
    return forward[:ahead] + both + backward[total - ahead :]


def turns(setting: TrainSetting, rank: int) -> list[Turn]:
    """The backward passes at which most is in flight: none of which another has all."""
    flying = [0] * chunk_count(setting)
    done = set()
    found: dict[tuple[int, bool], set[tuple[int, ...]]] = {}
    for backward, chunk in operations(setting, rank):
        if not backward:
            flying[chunk] += 1
            continue
        flying[chunk] -= 1
        found.setdefault((chunk, chunk in done), set()).add(tuple(flying))
        done.add(chunk)
    return [
        Turn(chunk, waiting, later)
        for (chunk, later), every in found.items()
        for waiting in sorted(every)
        if not any(_covers(other, waiting) for other in every)
    ]


def _covers(more: tuple[int, ...], less: tuple[int, ...]) -> bool:
    return more != less and all(a >= b for a, b in zip(more, less, strict=True))


def in_flight(setting: TrainSetting, rank: int) -> int:
    """Micro-batches whose activations a rank holds at once, of all its chunks."""
    return max(sum(turn.waiting) + 1 for turn in turns(setting, rank))


def stage_of(made: Recording, layers: range, count: int) -> Recording:
    """Only the segments of a chunk: its layers, the ends where they belong.

    Each chunk makes masks and tables of positions of its own, and is given its input. What the first segment's code has
    names for goes when the chunk's forward pass is over, and not where the whole model's would be.
    """
    order, seen = [], -1
    for place, key in enumerate(made.order):
        if made.pieces[key].layer:
            seen += 1
            if seen in layers:
                order.append(key)
        elif (place == 0 and 0 in layers) or (place > 0 and count - 1 in layers):
            order.append(key)
    pieces = {key: made.pieces[key] for key in dict.fromkeys(order)}
    start, ends = made.order[0], [key for key in made.order[1:] if not made.pieces[key].layer]
    named = _named(made.pieces[start], [made.pieces[key] for key in ends])
    if 0 in layers and count - 1 not in layers:
        pieces["over"] = Piece("over", tuple([_gone(entry) for entry in named]), (), (), (), layer=False)
        order.append("over")
    if 0 not in layers:
        tables = [entry for entry in _left(made.pieces[start]).elements() if entry % ROUND in {POSITIONS, OTHER}]
        given = _given(made.pieces[ends[0]], named) if ends else []
        pieces["tables"] = Piece("tables", (*tables, *given), (), (), (), layer=False)
        order.insert(0, "tables")
        if count - 1 in layers and ends:
            streams = [entry for entry in named if entry % ROUND not in {POSITIONS, OTHER}]
            piece = pieces[ends[0]]
            pieces[ends[0]] = msgspec.structs.replace(piece, forward=(*streams, *piece.forward))
    return Recording(pieces, tuple(order))


def _gone(entry: int) -> int:
    """The release of an allocation, or the other way round."""
    return 2 * (entry % ROUND) - entry


def _left(piece: Piece) -> Counter[int]:
    """What a forward pass allocates and doesn't release."""
    taken = Counter(entry for entry in piece.forward if entry >= ROUND)
    taken.subtract(_gone(entry) for entry in piece.forward if entry < 0)
    return +taken


def _given(end: Piece, named: list[int]) -> list[int]:
    """The stream between segments: what the first one after the layers releases without having allocated it."""
    released = Counter(_gone(entry) for entry in end.forward if entry < 0)
    released.subtract([*named, *(entry for entry in end.forward if entry >= ROUND)])
    return list((+released).elements())


def _named(start: Piece, ends: list[Piece]) -> list[int]:
    """Allocations of the first segment that a model's last segments release in the forward pass."""
    released = Counter(_gone(entry) for end in ends for entry in end.forward if entry < 0)
    return list((_left(start) & released).elements())
