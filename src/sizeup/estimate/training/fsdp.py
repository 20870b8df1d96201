"""FSDP2 (`fully_shard` on every layer and on the whole): what a rank gathers, keeps and reduces (torch 2.13).

Each layer is a group; embeddings, final norm and head are the root's. For a group of a layer:

    forward   its shard is packed and gathered (S, A), copied out to whole weights (U); A stays until the next group's
              copy-out; U goes when the layer is done (`reshard`)
    backward  A was prefetched while the layer after it ran; it is copied out (U), the next one is prefetched; after
              the layer U goes, its gradients are packed in the reduction's type (R), scattered to the shard's
              gradient, and R stays until the next group's

Source: torch 2.13, `distributed/fsdp/_fully_shard/_fsdp_param_group.py`, `_fsdp_collectives.py`.
"""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.build import Weight
from sizeup.estimate.training.program import Piece, Recording
from sizeup.estimate.training.tape import COMMUNICATION, GRADIENT, WEIGHT_COPIES, rounded


class Policy(msgspec.Struct, frozen=True):
    """world: ranks. weight_item: bytes of a weight in its shard. reduce_item: of a gradient while it is reduced.

    accumulating: shards of gradients are there already, and what is scattered is added to them.
    """

    world: int
    weight_item: int
    reduce_item: int
    reshard: bool = True
    accumulating: bool = False


class Group(msgspec.Struct, frozen=True):
    """Sizes of one group: shard and gathered buffer, whole weights, reduction, gradients and their shards."""

    shard: int = 0
    gathered: int = 0
    whole: tuple[int, ...] = ()
    reduced: int = 0
    gradients: tuple[int, ...] = ()
    scattered: int = 0


def shard_elements(weight: Weight, world: int) -> int:
    """Elements of the fullest rank: the first dimension is split, the last rank's part may be smaller."""
    first = weight.copies if weight.copies > 1 else weight.rows or weight.n
    return -(-first // world) * (weight.n // first)


def shard_bytes(weight: Weight, world: int, item: int) -> int:
    """Bytes of a weight's part on the fullest rank; a packed weight is split with its scales, byte by byte."""
    if len(weight.sizes) > 1:
        return -(-sum(weight.sizes) // world)
    return shard_elements(weight, world) * item


def _whole_bytes(weight: Weight) -> int:
    return weight.n * weight.item if len(weight.sizes) == 1 else sum(weight.sizes)


def group(weights: tuple[Weight, ...], policy: Policy) -> Group:
    """The sizes of a group of weights."""
    trained = [weight for weight in weights if weight.trains]
    padded = sum(shard_bytes(weight, policy.world, weight.item) for weight in weights)
    reduced = sum(shard_elements(weight, policy.world) for weight in trained) * policy.reduce_item
    return Group(
        shard=rounded(padded),
        gathered=rounded(padded * policy.world),
        whole=tuple(rounded(_whole_bytes(weight)) for weight in weights),
        reduced=rounded(reduced * policy.world),
        gradients=tuple(rounded(weight.n * weight.item) for weight in trained),
        scattered=rounded(reduced),
    )


def _take(size: int, label: int) -> int:
    return size + label


def _give(size: int, label: int) -> int:
    return label - size


def _gather(g: Group) -> list[int]:
    packed, buffer = g.shard, g.gathered
    return [_take(packed, COMMUNICATION), _take(buffer, COMMUNICATION), _give(packed, COMMUNICATION)]


def _copy_out(g: Group) -> list[int]:
    return [_take(size, WEIGHT_COPIES) for size in g.whole]


def _reshard(g: Group) -> list[int]:
    return [_give(size, WEIGHT_COPIES) for size in g.whole]


def _reduce(g: Group, before: Group | None, policy: Policy) -> list[int]:
    log = [_give(before.reduced, COMMUNICATION)] if before is not None and before.reduced else []
    if g.reduced:
        log.append(_take(g.reduced, COMMUNICATION))
        log += [_give(size, GRADIENT) for size in g.gradients]
        log.append(_take(g.scattered, GRADIENT))
        if policy.accumulating:
            log.append(_give(g.scattered, GRADIENT))
    return log


def sharded(recording: Recording, policy: Policy) -> Recording:
    """The same step on one rank, with what FSDP2 does around every group."""
    order, pieces = recording.order, recording.pieces
    root = group(tuple(w for p in pieces.values() if not p.layer for w in p.weights), policy)
    groups = {key: group(piece.weights, policy) for key, piece in pieces.items() if piece.layer}
    layers = [place for place, key in enumerate(order) if pieces[key].layer]
    made: dict[str, Piece] = {}
    keys = []
    for place, key in enumerate(order):
        before = groups.get(order[place - 1]) if place else None
        after = groups.get(order[place + 1]) if place + 1 < len(order) else None
        first, last = place == 0, place == len(order) - 1
        name = f"{key} {first or place == layers[0]} {last or place == layers[-1]} {order[place - 1] if place else ''}"
        if name not in made:
            piece = pieces[key]
            if piece.layer:
                piece = _layer(piece, groups[key], before, after, root, policy)
            if first:
                piece = _opened(piece, root, groups[order[layers[0]]], policy)
            if last:
                piece = _closed(piece, root, groups[order[layers[-1]]], policy)
            made[name] = piece
        keys.append(name)
    return Recording(made, tuple(keys))


def _layer(piece: Piece, own: Group, before: Group | None, after: Group | None, root: Group, policy: Policy) -> Piece:
    earlier = before.gathered if before is not None else root.gathered
    forward = [*_gather(own), *_copy_out(own), _give(earlier, COMMUNICATION), *piece.forward]
    start: list[int] = []
    if policy.reshard:
        forward += _reshard(own)
        start = [*_copy_out(own), _give(own.gathered, COMMUNICATION)]
        if before is not None:
            start += _gather(before)
    backward = [*start, *piece.backward, *_reshard(own), *_reduce(own, after, policy)]
    return msgspec.structs.replace(piece, forward=tuple(forward), backward=tuple(backward))


def _opened(piece: Piece, root: Group, first: Group, policy: Policy) -> Piece:
    """The piece that a rank begins with, and ends its backward pass with: the root's weights and gradients."""
    forward = [*_gather(root), *_copy_out(root), *piece.forward]
    done = [*_reshard(root), *_reduce(root, first, policy), _give(root.reduced, COMMUNICATION)]
    return msgspec.structs.replace(piece, forward=tuple(forward), backward=(*piece.backward, *done))


def _closed(piece: Piece, root: Group, last: Group, policy: Policy) -> Piece:
    """The piece that a rank's forward pass ends with: a head after the loss's gradient, or a stage's last layer."""
    forward = [*piece.forward, _give(last.gathered, COMMUNICATION)]
    backward = piece.backward
    if policy.reshard:
        forward += _reshard(root)
        start = [*_gather(root), *_copy_out(root), _give(root.gathered, COMMUNICATION), *_gather(last)]
        seed = 0 if piece.layer else 1
        backward = (*backward[:seed], *start, *backward[seed:])
    return msgspec.structs.replace(piece, forward=tuple(forward), backward=tuple(backward))


def shards(weights: list[tuple[Weight, int]], policy: Policy) -> list[tuple[Weight, int]]:
    """Every weight as the part of it that a rank holds, in the type of the shard."""
    found = []
    for weight, count in weights:
        n = shard_elements(weight, policy.world)
        size = shard_bytes(weight, policy.world, policy.weight_item)
        item = policy.weight_item if len(weight.sizes) == 1 else weight.item
        found.append((msgspec.structs.replace(weight, n=n, item=item, sizes=(size,)), count))
    return found
