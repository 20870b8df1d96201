"""The memory of a step on every rank that differs: by component at its peak, and by phase."""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.step import Moment
from sizeup.quantity import Term, leaf, total

#: What memory is held for at the peak; every item has exactly one.
COMPONENTS = (
    "weights", "master_copies", "gradients", "optimizer_states", "activations", "recomputation", "logits_and_loss",
    "weight_copies", "communication", "temporaries", "inputs_and_buffers", "reference_model",
)  # fmt: skip


class TrainItem(msgspec.Struct, frozen=True):
    """One amount of memory at the peak. derivation: how it came about."""

    component: str
    name: str
    bytes: int
    derivation: Term


class Phase(msgspec.Struct, frozen=True):
    """The highest point of one phase of the step."""

    name: str
    peak_bytes: int


class Rank(msgspec.Struct, frozen=True):
    """One device, or several that hold the same. phase: the one that sets its peak.

    host_bytes, disk_bytes: moved to the host's memory, to NVMe.
    """

    device: str
    peak_bytes: int
    phase: str
    items: tuple[TrainItem, ...]
    phases: tuple[Phase, ...]
    host_bytes: int = 0
    disk_bytes: int = 0

    @property
    def term(self) -> Term:
        """All items as one tree."""
        return total(self.device, [item.derivation for item in self.items])


class TrainFootprint(msgspec.Struct, frozen=True):
    """All ranks that differ, and the worst of them."""

    devices: tuple[Rank, ...]
    peak_bytes: int
    phase: str
    worst: str

    def component(self, component: str) -> int:
        """Bytes of one component on the worst rank."""
        worst = next(rank for rank in self.devices if rank.device == self.worst)
        return sum(item.bytes for item in worst.items if item.component == component)


class ProcessBytes(msgspec.Struct, frozen=True):
    """What the driver shows for the process: the allocator's peak, what it reserves beyond, and the context."""

    low: int
    expected: int
    high: int
    because: str


def item(component: str, name: str, size: int, formula: str, source: str = "") -> TrainItem:
    """An item with a leaf as its derivation."""
    return TrainItem(component, name, size, leaf(name, size, formula, source=source))


def footprint(ranks: list[Rank]) -> TrainFootprint:
    """The ranks and the worst of them."""
    worst = max(ranks, key=lambda rank: rank.peak_bytes)
    return TrainFootprint(tuple(ranks), worst.peak_bytes, worst.phase, worst.device)


def phases(moments: list[Moment]) -> tuple[Phase, ...]:
    """Every phase with its peak, in the order of the step."""
    return tuple(Phase(moment.phase, moment.peak) for moment in moments)
