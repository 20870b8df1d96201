"""llama.cpp's allocator, run over a graph's buffers in the order in which they come and go.

Memory is handed out and taken back exactly like in ggml_gallocr: best fit among freed blocks, else at the end. Sizes
grow at known rates with the cache, or with the batch. The run notes what its choices rested on; as far as they would
fall out the same, the peak is known without another run.

Source: ggml_dyn_tallocr_alloc and ggml_dyn_tallocr_free_tensor in ggml/src/ggml-alloc.c, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

import msgspec

_ENDLESS = 1 << 62

#: Bytes, and bytes more for each step of what grows.
Growing = tuple[int, int]
#: (n, m) when buffer n is taken, (~n, m) when it is given back; m: the number of its size.
Event = tuple[int, int]


class Run(msgspec.Struct, frozen=True):
    """Where the end of memory was each time it moved up, with its growth; holds for low … high steps from here."""

    ends: tuple[Growing, ...]
    low: int
    high: int

    def peak(self, steps: int) -> int:
        """The size of the buffer so many steps from here."""
        return max([end + growth * steps for end, growth in self.ends])


def replay(events: list[Event], sizes: list[Growing], buffers: int, alignment: int) -> Run:
    """Run the allocator: the largest end is the size of the place's buffer."""
    memory = _Memory()
    padded = [memory.padded(size, growth, alignment) for size, growth in sizes]
    left, left_growth = _taken(events, padded)
    places = [(0, 0)] * buffers
    for buffer, number in events:
        size, growth = padded[number]
        if not size:
            continue
        if buffer >= 0:
            places[buffer] = memory.take(size, growth)
            left, left_growth = left - size, left_growth - growth
        elif growth and memory.is_settled(left, left_growth):
            break
        else:
            memory.give(*places[~buffer], size, growth)
    return Run(tuple(memory.ends), *_reach(memory.facts))


def _taken(events: list[Event], sizes: list[Growing]) -> Growing:
    """All that is ever taken, one after the other."""
    taken = [sizes[number] for buffer, number in events if buffer >= 0]
    return sum([size for size, _ in taken]), sum([growth for _, growth in taken])


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


class _Memory:
    """One place's buffer: freed blocks by address, and the end of what is in use, from where on all is free.

    ends: where the end was each time it moved up. facts: differences whose signs decided something. Each with its
    growth.
    """

    __slots__ = ("end", "ends", "facts", "freed", "highest", "shift")

    def __init__(self) -> None:
        self.freed: list[_Block] = []
        self.end = self.shift = 0
        self.highest = (0, 0)
        self.ends: set[Growing] = {self.highest}
        self.facts: set[Growing] = set()

    def padded(self, size: int, growth: int, alignment: int) -> Growing:
        """Rounded up to the alignment; what grows by fractions of it is known for this step only."""
        if growth % alignment:
            self.facts |= {(0, 1), (0, -1)}
        return -(-size // alignment) * alignment, growth

    def is_settled(self, left: int, left_growth: int) -> bool:
        """Whether what is still to be taken can't go beyond the highest end, even if all of it were put at the end."""
        highest, growth = self.highest
        room = highest - self.end - left
        if room >= 0:
            self.facts.add((room, growth - self.shift - left_growth))
        return room >= 0

    def take(self, size: int, growth: int) -> Growing:
        """An address: in the best-fitting freed block, or at the end when none is large enough."""
        block = self._best(size, growth) if self.freed else None
        if block is None:
            start, shift = self.end, self.shift
            self.end, self.shift = end = start + size, shift + growth
            self.ends.add(end)
            self.highest = max(self.highest, end)
            return start, shift
        start, shift = block.start, block.shift
        block.start, block.shift = start + size, shift + growth
        block.room -= size
        block.growth -= growth
        if block.room:
            self.facts.add((block.room - 1, block.growth))
        else:
            self.freed.remove(block)
            self.facts |= {(0, block.growth), (0, -block.growth)}
        return start, shift

    def _best(self, size: int, growth: int) -> _Block | None:
        """The smallest freed block that is large enough, the last of equals."""
        best: _Block | None = None
        for block in self.freed:
            spare = block.room - size
            if block.growth != growth:
                self.facts.add((spare, block.growth - growth))
            if spare < 0:
                continue
            if best is None:
                best = block
                continue
            over = best.room - block.room
            if best.growth != block.growth:
                self.facts.add((over, best.growth - block.growth))
            if over >= 0:
                best = block
        return best

    def give(self, start: int, shift: int, size: int, growth: int) -> None:
        """Take memory back, joined with what is free beside it."""
        freed = self.freed
        if start + size == self.end:
            self.end, self.shift = start, shift
            if freed and freed[-1].start + freed[-1].room == start:
                last = freed.pop()
                self.end, self.shift = last.start, last.shift
            return
        at = 0
        for block in freed:
            if block.start > start:
                break
            at += 1
        before = freed[at - 1] if at else None
        after = freed[at] if at < len(freed) else None
        if after is not None and start + size == after.start:
            size, growth = size + after.room, growth + after.growth
            del freed[at]
        if before is not None and before.start + before.room == start:
            before.room += size
            before.growth += growth
        else:
            freed.insert(at, _Block(start, shift, size, growth))
