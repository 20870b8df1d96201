"""llama.cpp's allocator, run over a graph's buffers in the order in which they come and go.

Memory is handed out and taken back exactly like in ggml_gallocr: best fit among freed blocks, else at the end. Sizes
grow at known rates with the cache, or with the batch. The run notes what its choices rested on; as far as they would
fall out the same, the peak is known without another run.

Source: ggml_dyn_tallocr_alloc and ggml_dyn_tallocr_free_tensor in ggml/src/ggml-alloc.c, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from collections import Counter

import msgspec

_ENDLESS = 1 << 62

#: Bytes, and bytes more for each step of what grows.
Growing = tuple[int, int]


class Script:
    """The buffers of one place as they come and go, whatever their sizes: all are more than 0.

    events: n when buffer n is taken, ~n when it is given back. numbers: for each event, the number of its size.
    """

    def __init__(self, events: list[int], numbers: list[int], buffers: int, alignment: int) -> None:
        self.events, self.numbers, self.buffers, self.alignment = events, numbers, buffers, alignment
        self.taken = Counter([number for event, number in zip(events, numbers, strict=True) if event >= 0])


class Run(msgspec.Struct, frozen=True):
    """How far the end of memory went, for each growth that it had; holds for low … high steps from here."""

    ends: tuple[Growing, ...]
    low: int
    high: int

    def peak(self, steps: int) -> int:
        """The size of the buffer so many steps from here."""
        return max([end + growth * steps for end, growth in self.ends])


def replay(script: Script, sizes: list[Growing]) -> Run:
    """Run the allocator: the largest end is the size of the place's buffer."""
    facts: set[Growing] = set()
    padded = _padded(sizes, script.alignment, facts)
    left = sum([count * padded[number][0] for number, count in script.taken.items()])
    left_growth = sum([count * padded[number][1] for number, count in script.taken.items()])
    places = [(0, 0)] * script.buffers
    freed: list[_Block] = []
    end = shift = top = climb = 0
    ends = {0: 0}
    for buffer, number in zip(script.events, script.numbers, strict=True):
        size, growth = padded[number]
        if buffer >= 0:
            left, left_growth = left - size, left_growth - growth
            block = _best_fit(freed, size, growth, facts) if freed else None
            if block is not None:
                places[buffer] = _take(freed, block, size, growth, facts)
                continue
            places[buffer] = end, shift
            end, shift = end + size, shift + growth
            if end > ends.get(shift, 0):
                ends[shift] = end
            if end > top:
                top, climb = end, shift
        elif top - end >= left:  # even if all that is still taken were put at the end, it wouldn't go beyond the top
            facts.add((top - end - left, climb - shift - left_growth))
            break
        else:
            start, moved = places[~buffer]
            if start + size < end:
                _give(freed, start, moved, size, growth)
                continue
            end, shift = start, moved
            if freed and freed[-1].start + freed[-1].room == end:
                last = freed.pop()
                end, shift = last.start, last.shift
    return Run(tuple([(end, shift) for shift, end in ends.items()]), *_reach(facts))


def _padded(sizes: list[Growing], alignment: int, facts: set[Growing]) -> list[Growing]:
    """Rounded up to the alignment; what grows by fractions of it is known for this step only."""
    if any(growth % alignment for _, growth in sizes):
        facts |= {(0, 1), (0, -1)}
    return [(-(-size // alignment) * alignment, growth) for size, growth in sizes]


def _reach(facts: set[Growing]) -> tuple[int, int]:
    """How many steps down and up all differences that are 0 or more stay so, and those below 0 stay below."""
    low, high = -_ENDLESS, _ENDLESS
    for difference, growth in facts:
        amount, more = (difference, growth) if difference >= 0 else (-difference - 1, -growth)
        if more > 0:
            low = max(low, -(amount // more))
        elif more < 0:
            high = min(high, amount // -more)
    return low, high


class _Block:
    """Freed memory: where it starts and how much it is, each with its growth."""

    __slots__ = ("growth", "room", "shift", "start")

    def __init__(self, start: int, shift: int, room: int, growth: int) -> None:
        self.start, self.shift, self.room, self.growth = start, shift, room, growth


def _best_fit(freed: list[_Block], size: int, growth: int, facts: set[Growing]) -> _Block | None:
    """The smallest freed block that is large enough, the last of equals. facts: what that rests on."""
    best: _Block | None = None
    for block in freed:
        spare = block.room - size
        if block.growth != growth:
            facts.add((spare, block.growth - growth))
        if spare < 0:
            continue
        if best is None:
            best = block
            continue
        over = best.room - block.room
        if best.growth != block.growth:
            facts.add((over, best.growth - block.growth))
        if over >= 0:
            best = block
    return best


def _take(freed: list[_Block], block: _Block, size: int, growth: int, facts: set[Growing]) -> Growing:
    """The address of the front of a freed block, which is smaller from now, or gone."""
    address = block.start, block.shift
    block.start += size
    block.shift += growth
    block.room -= size
    block.growth -= growth
    if not block.room:
        freed.remove(block)
        facts |= {(0, block.growth), (0, -block.growth)}
    elif block.growth:
        facts.add((block.room - 1, block.growth))
    return address


def _give(freed: list[_Block], start: int, shift: int, size: int, growth: int) -> None:
    """Take memory back, joined with freed blocks beside it."""
    at = 0
    for block in freed:
        if block.start > start:
            break
        at += 1
    if at < len(freed) and start + size == freed[at].start:
        size, growth = size + freed[at].room, growth + freed[at].growth
        del freed[at]
    if at and freed[at - 1].start + freed[at - 1].room == start:
        freed[at - 1].room += size
        freed[at - 1].growth += growth
    else:
        freed.insert(at, _Block(start, shift, size, growth))
