"""Every tensor that is alive at a moment: how many of each size, which part of the model made them, why so large.

The same logs as the peak's, tensor by tensor, so that the parts of an explanation add up to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from sizeup.estimate.training.architectures.programs import Shape
from sizeup.estimate.training.build import Weight, packed_sizes
from sizeup.estimate.training.optimizers import Optimizer
from sizeup.estimate.training.outline import Outline
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.step import Moment, ran, running
from sizeup.estimate.training.tape import GRADIENT, ROUND, WEIGHT_COPIES, Blocks, added, rounded
from sizeup.quantity import Term, leaf

#: Bytes of the number types, those of activations first.
_ITEMS = (2, 4, 8, 1)
_OF_WEIGHTS = frozenset({GRADIENT, WEIGHT_COPIES})
#: Further sizes are told as one.
_TOLD = 12


class Tensors(msgspec.Struct, frozen=True):
    """Tensors of one size and label that one part of the model made: `times` of them in all its `copies`."""

    label: int
    part: str
    copies: int
    bytes: int
    times: int


def alive(outline: Outline, blocks: Blocks, moment: Moment) -> list[Tensors]:
    """What is alive at a moment beside the static bytes."""
    counts: dict[tuple[int, int], Counter[str]] = {}
    for key, parts in _logged(outline, moment):
        for label, number, times in parts:
            counts.setdefault((label, number), Counter())[outline.names[key]] += times
    copies = Counter(outline.names[key] for key in outline.order)
    found = []
    for (label, number), by_part in counts.items():
        for part, times in _owned(by_part).items():
            found.append(Tensors(label, part, copies[part], blocks[number] * ROUND, times))
    return found


def _logged(outline: Outline, moment: Moment) -> Iterable[tuple[str, Iterable[tuple[int, int, int]]]]:
    """What ran before the moment: a segment's key, and what its log adds."""
    for logs, keys in ran(outline, moment):
        for key in keys:
            yield key, logs[key].added()
    yield outline.order[moment.place], added(running(outline, moment).entries[: moment.entry])


def _owned(by_part: Counter[str]) -> dict[str, int]:
    """Tensors by the part that made them; what one part made and another gave back is nobody's."""
    given = -sum(times for times in by_part.values() if times < 0)
    left = {}
    for part, times in by_part.most_common():
        if times > 0:
            taken = min(times, given)
            given -= taken
            left[part] = times - taken
    return {part: times for part, times in left.items() if times}


def widths(shape: Shape, rank: int) -> dict[str, int]:
    """Widths of a token's tensors that a model has, by what they are called."""
    heads, head = shape.head_count, getattr(shape, "head_dim", 0)
    groups, mixture = getattr(shape, "kv_heads", 0), getattr(shape, "mixture", None)
    found = {
        "hidden": shape.hidden,
        "feed-forward": shape.ffn,
        "heads × head_dim": heads * head,
        "kv_heads × head_dim": groups * head,
        "vocabulary": getattr(shape, "vocabulary", 0),
        "gate and up": 2 * shape.ffn,
        "head_dim": head,
        "heads": heads,
        "rank": rank,
    }
    if mixture is not None:
        found |= {
            "experts": mixture.experts,
            "chosen experts": mixture.chosen,
            "chosen × hidden": mixture.chosen * shape.hidden,
            "chosen × expert width": mixture.chosen * mixture.width,
            "chosen × gate and up": mixture.chosen * 2 * mixture.width,
        }
    return {name: width for name, width in found.items() if width}


class Ruler:
    """Reads a size: so many tokens by a width that the model has, in a number type; or one of its weights."""

    def __init__(self, setting: TrainSetting, dims: dict[str, int], weights: list[tuple[Weight, int]]) -> None:
        self.tokens = setting.sequences * setting.sequence // setting.context_parallel
        self.widths: dict[int, str] = {}
        for name, width in dims.items():
            self.widths.setdefault(width, name)
        self.weights: dict[int, str] = {}
        for weight, _ in weights:
            for item in (weight.item, 2, 4):
                self.weights.setdefault(rounded(weight.n * item), f"{weight.name}: {weight.n:,} × {item} B")

    def read(self, tensors: Tensors) -> str:
        """The size in words; gradients and copies of weights are read as weights first."""
        size = tensors.bytes
        if size == ROUND:
            return "512 B"
        if tensors.label in _OF_WEIGHTS and size in self.weights:
            return self.weights[size]
        each, rest = divmod(size, self.tokens)
        if not rest:
            for item in _ITEMS:
                if not each % item and each // item in self.widths:
                    width = each // item
                    return f"{self.tokens:,} tokens × {width:,} ({self.widths[width]}) × {item} B"
        if size in self.weights:
            return self.weights[size]
        return f"{self.tokens:,} tokens × {each:,} B" if not rest else f"{size:,} B"


def terms(found: list[Tensors], ruler: Ruler) -> list[Term]:
    """A term for each size, the largest in all first; the many small ones as one."""
    ranked = sorted(found, key=lambda tensors: -tensors.bytes * tensors.times)
    told = [_term(tensors, ruler) for tensors in ranked[:_TOLD]]
    rest = sum(tensors.bytes * tensors.times for tensors in ranked[_TOLD:])
    if rest:
        told.append(leaf("smaller ones", rest, f"of {len(ranked) - _TOLD} further sizes"))
    return told


def _term(tensors: Tensors, ruler: Ruler) -> Term:
    each = tensors.times / tensors.copies
    how = f"{tensors.times:,} × {ruler.read(tensors)}"
    if tensors.copies > 1 and each == int(each):
        how += f", {int(each)} in each of {tensors.copies}"
    return leaf(tensors.part, tensors.bytes * tensors.times, how)


def weight_terms(weights: list[tuple[Weight, int]]) -> list[Term]:
    """The weights by name: how many, their elements, and what each takes."""
    sums: dict[tuple[str, str], int] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for weight, count in weights:
        key = (weight.name, _stored(weight))
        sums[key] = sums.get(key, 0) + count * sum(map(rounded, weight.sizes))
        counts[key] += count
    ranked = sorted(sums, key=lambda key: -sums[key])
    told = [leaf(name, sums[name, how], f"{counts[name, how]} × {how}") for name, how in ranked[:_TOLD]]
    rest = sum(sums[key] for key in ranked[_TOLD:])
    return [*told, leaf("smaller ones", rest, f"of {len(ranked) - _TOLD} further names")] if rest else told


def state_terms(weights: list[tuple[Weight, int]], optimizer: Optimizer) -> list[Term]:
    """The optimizer's states by the name of the weight."""
    sums: Counter[str] = Counter()
    tensors: Counter[str] = Counter()
    for weight, count in weights:
        if weight.trains:
            sizes = [rounded(size) for size in optimizer.state(weight)]
            sums[weight.name] += count * sum(sizes)
            tensors[weight.name] += count * len(sizes)
    told = [leaf(name, size, f"{tensors[name]} tensors") for name, size in sums.most_common(_TOLD) if size]
    rest = sums.total() - sum(sums[term.name] for term in told)
    return [*told, leaf("smaller ones", rest, f"of {len(sums) - _TOLD} further names")] if rest else told


def _stored(weight: Weight) -> str:
    if weight.sizes in {packed_sizes(weight.n, double) for double in (True, False)}:
        return f"{weight.n:,} elements in NF4"
    return f"{weight.n:,} elements × {weight.item} B"
