"""Counts the storages that operations make on one device, by category, with their peak in each phase.

A storage is counted when an operation first returns it and given back when the last reference to it goes. Under a
dispatch mode autograd adds gradients out of place where it would otherwise add in place; the sums that would be in
place are made so (torch 2.13, `torch/csrc/autograd/input_buffer.cpp`: sole reference, same shape and type).

Fake tensors have no values: what Python asks of one (is nothing padded? is this layer dropped?) is answered with no.
"""

# What is private to torch is the point here.
# ruff: noqa: SLF001

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from sizeup.workers.training_kernels import hidden_bytes, rounded

CATEGORIES = ("weights", "buffers", "gradients", "activations", "temporaries", "optimizer", "inputs")


class Ledger:
    """The storages alive, their sum, and the peaks. exact: without the allocator's rounding."""

    def __init__(self, device: str, *, exact: bool = False, events: bool = False) -> None:
        self.device = device
        self.round: Callable[[int], int] = (lambda size: size) if exact else rounded
        self.live: dict[int, list[Any]] = {}
        self.total = 0
        self.categories = dict.fromkeys(CATEGORIES, 0)
        self.events: list[tuple[int, int, int]] | None = [] if events else None
        self.category = "activations"
        self.phase = "forward"
        self.numbers = 0
        self.fresh()

    def fresh(self) -> None:
        """Begin a step: forget its predecessors' peaks."""
        self.peaks: dict[str, int] = {}
        self.peak = self.total
        self.at_peak = dict(self.categories)
        self.operation = ""

    def add(self, tensor: Any, category: str, *, force: bool = False) -> None:
        """Count a tensor's storage, or move it to another category."""
        storage = tensor.untyped_storage()
        key = id(storage)
        entry = self.live.get(key)
        if entry is not None and entry[3]() is storage:
            if force:
                self._move(entry, category)
            self.resized(storage)
            return
        if entry is not None:
            self._gone(key)
        if tensor.device.type != self.device:
            return
        size = self.round(storage.nbytes())
        self.numbers += 1
        self.live[key] = [size, category, self.numbers, weakref.ref(storage, self._forget(key))]
        self._count(size, category, self.numbers, 1)

    def resized(self, storage: Any) -> None:
        """Follow a storage whose size was changed (FSDP)."""
        entry = self.live.get(id(storage))
        if entry is None or entry[3]() is not storage:
            return
        size = self.round(storage.nbytes())
        if size != entry[0]:
            self._count(-entry[0], entry[1], entry[2], -1)
            self.numbers += 1
            entry[0], entry[2] = size, self.numbers
            self._count(size, entry[1], entry[2], 1)
            self.look("resize")

    def look(self, operation: str, hidden: int = 0) -> None:
        """Compare with the peaks; hidden: bytes that are there only while the operation runs."""
        height = self.total + hidden
        if hidden and self.events is not None:
            self.numbers += 1
            self.events += [(1, self.numbers, hidden), (-1, self.numbers, hidden)]
        if height > self.peaks.get(self.phase, 0):
            self.peaks[self.phase] = height
        if height > self.peak:
            self.peak, self.operation = height, operation
            self.at_peak = dict(self.categories)

    def _forget(self, key: int) -> Callable[[Any], None]:
        return lambda _reference: self._gone(key)

    def _move(self, entry: list[Any], category: str) -> None:
        self.categories[entry[1]] -= entry[0]
        self.categories[category] += entry[0]
        entry[1] = category

    def _gone(self, key: int) -> None:
        entry = self.live.pop(key, None)
        if entry is not None:
            self._count(-entry[0], entry[1], entry[2], -1)

    def _count(self, size: int, category: str, number: int, sign: int) -> None:
        self.total += size
        self.categories[category] += size
        if self.events is not None:
            self.events.append((sign, number, abs(size)))


def tracker(torch: Any, ledger: Ledger, fake_mode: Any, distributed: Any = None, known: Any = None) -> Any:
    """A dispatch mode that fills the ledger. distributed: (DTensor, its wait operation, a sign of nested work).

    known: the values that shapes depend on.
    """
    from torch._guards import active_fake_mode
    from torch.utils._python_dispatch import TorchDispatchMode

    aten = torch.ops.aten
    silent = {torch.ops.prim.device.default}

    class Mode(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if distributed is not None and any(kind is distributed.tensor_type for kind in types):
                return NotImplemented
            output = _run(operation, args, kwargs or {})
            nested = distributed is not None and distributed.propagating
            if operation in silent or nested or active_fake_mode() is not fake_mode:
                return output
            for tensor in _tensors(torch, output):
                ledger.add(tensor, ledger.category)
            hidden = hidden_bytes(torch, operation, args, output)
            ledger.look(operation.name(), hidden if known is None else hidden + known.places_bytes())
            return output

    def _run(operation: Any, args: Any, kwargs: Any) -> Any:
        if distributed is not None and operation is distributed.wait:
            return args[0]
        if known is not None:
            args = known.with_places(operation, args)
            found = known.run(operation, args, kwargs)
            if found is not NotImplemented:
                return found
        if fake_mode is not None and ledger.category == "optimizer" and operation is aten._local_scalar_dense.default:
            return 1.0
        if fake_mode is not None and operation is aten._local_scalar_dense.default:
            return 0.0 if args[0].dtype.is_floating_point else 0
        backward = ledger.category == "temporaries" and not torch.is_grad_enabled()
        if backward and operation is aten.add.Tensor and _sole(torch, args):
            return aten.add_.Tensor(*args)
        if backward and operation is aten.index_put.default:
            return aten.index_put_.default(*args, **kwargs)
        return operation(*args, **kwargs)

    return Mode()


def _sole(torch: Any, args: Any) -> bool:
    """Whether autograd would add to the first tensor in place."""
    first, second = args[0], args[1]
    return (
        isinstance(second, torch.Tensor)
        and first.dtype == second.dtype
        and first.shape == second.shape
        and first._use_count() <= 4
        and torch._C._storage_Use_Count(first.untyped_storage()._cdata) <= 2
    )


def _tensors(torch: Any, output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(torch, part)
