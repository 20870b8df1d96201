"""A replay of allocations through the rules of torch's caching allocator: what it reserves beyond what it hands out.

Rules of `c10/cuda/CUDACachingAllocator.cpp` (torch 2.13), one stream: requests are rounded to 512 bytes; up to 1 MiB
come from segments of 2 MiB, up to 10 MiB from segments of 20 MiB, larger ones from segments of their own, rounded to
2 MiB; the best fitting free block is taken and split when enough of it remains; free neighbours are joined.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable

SMALL_REQUEST, SMALL_SEGMENT = 1 << 20, 2 << 20
LARGE_REQUEST, LARGE_SEGMENT, ROUND_LARGE = 10 << 20, 20 << 20, 2 << 20
BLOCK = 512


class Block:
    """A piece of a segment; neighbours by address."""

    __slots__ = ("after", "before", "free", "large", "number", "size")

    def __init__(self, number: int, size: int, *, large: bool) -> None:
        self.number, self.size, self.large = number, size, large
        self.free = True
        self.before: Block | None = None
        self.after: Block | None = None


class CachingAllocator:
    """Reserved and handed out bytes, and their highest values."""

    def __init__(self) -> None:
        self.reserved = self.allocated = self.peak_reserved = self.peak_allocated = 0
        self._free: tuple[list[tuple[int, int, Block]], list[tuple[int, int, Block]]] = ([], [])
        self._made = 0

    def allocate(self, size: int) -> Block:
        """Hand out a block of at least that many bytes."""
        size = max(BLOCK, -(-size // BLOCK) * BLOCK)
        large = size > SMALL_REQUEST
        pool = self._free[large]
        place = bisect.bisect_left(pool, size, key=lambda entry: entry[0])
        block = pool.pop(place)[2] if place < len(pool) else self._segment(size, large=large)
        self._split(block, size)
        block.free = False
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def release(self, block: Block) -> None:
        """Take a block back, joined with free neighbours."""
        self.allocated -= block.size
        block.free = True
        if block.before is not None and block.before.free:
            block = self._joined(block.before, block)
        if block.after is not None and block.after.free:
            block = self._joined(block, block.after)
        self._keep(block)

    def _segment(self, size: int, *, large: bool) -> Block:
        if not large:
            taken = SMALL_SEGMENT
        elif size < LARGE_REQUEST:
            taken = LARGE_SEGMENT
        else:
            taken = -(-size // ROUND_LARGE) * ROUND_LARGE
        self.reserved += taken
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self._made += 1
        return Block(self._made, taken, large=large)

    def _split(self, block: Block, size: int) -> None:
        rest = block.size - size
        if rest < BLOCK or (block.large and rest <= SMALL_REQUEST):
            return
        self._made += 1
        tail = Block(self._made, rest, large=block.large)
        tail.before, tail.after = block, block.after
        if block.after is not None:
            block.after.before = tail
        block.after, block.size = tail, size
        self._keep(tail)

    def _joined(self, first: Block, second: Block) -> Block:
        for block in (first, second):
            self._forget(block)
        first.size += second.size
        first.after = second.after
        if second.after is not None:
            second.after.before = first
        return first

    def _keep(self, block: Block) -> None:
        bisect.insort(self._free[block.large], (block.size, block.number, block), key=lambda entry: entry[:2])

    def _forget(self, block: Block) -> None:
        pool = self._free[block.large]
        place = bisect.bisect_left(pool, (block.size, block.number), key=lambda entry: entry[:2])
        if place < len(pool) and pool[place][2] is block:
            pool.pop(place)


def replay(events: Iterable[tuple[int, int, int]]) -> CachingAllocator:
    """Run (±1, number, bytes) events: +1 allocates, -1 releases the allocation of that number."""
    allocator = CachingAllocator()
    live: dict[int, Block] = {}
    for sign, number, size in events:
        if sign > 0 and size:
            live[number] = allocator.allocate(size)
        elif number in live:
            allocator.release(live.pop(number))
    return allocator
