"""What is said of memory: part by part, estimated, simulated and measured."""

from __future__ import annotations

import msgspec

from sizeup.measure.rows import Row


class Bytes(msgspec.Struct, frozen=True):
    """One part of memory, in bytes; None where that rank of evidence doesn't tell it."""

    part: str
    estimated: int | None = None
    simulated: int | None = None
    measured: int | None = None

    @property
    def error(self) -> float | None:
        """Estimate over the best evidence - 1."""
        known = self.measured if self.measured is not None else self.simulated
        return None if self.estimated is None or not known else self.estimated / known - 1


class MemoryReport(msgspec.Struct, frozen=True):
    """The engine's buffers and the process, on the processor alone where the engine was built for it alone.

    buffers: weights, cache, compute and output as the engine accounts for them. process: what the system says that
    the process holds, by kind, beside what the simulation leads to expect.
    """

    engine: str
    version: str
    buffers: tuple[Bytes, ...]
    process: tuple[Bytes, ...]
    rows: tuple[Row, ...]
