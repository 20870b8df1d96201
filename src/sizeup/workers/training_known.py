"""Values that shapes depend on, in a step whose tensors have none: grids of patches, placeholders of images, masks.

A few tensors of integers and booleans are given their values, which are computed beside the fake ones as long as every
operand's are known. An operation whose result's shape depends on values (where a mask is true, how often to repeat)
takes it from them. Indexing by a mask goes through the places where it is true, as CUDA's kernels do: the list of them
is allocated for as long as the kernel runs (torch 2.13, `aten/src/ATen/native/TensorAdvancedIndexing.cpp`).
"""

# What is private to torch is the point here.
# ruff: noqa: SLF001

from __future__ import annotations

import math
from typing import Any

#: Elements of the largest tensor whose values are followed.
MOST = 1 << 24
#: The attribute of a fake tensor that has its values.
VALUE = "known_value"


class Known:
    """The known values of fake tensors, by tensor."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        aten = torch.ops.aten
        self.by_mask = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
        self.shaped = {
            aten.nonzero.default, aten.masked_select.default, aten.unique_consecutive.default,
            aten.repeat_interleave.Tensor, aten._unique2.default,
        }  # fmt: skip
        self._places = 0
        if not hasattr(torch.tensor, VALUE):
            torch.Tensor.tolist, torch.tensor = _tolist(torch.Tensor.tolist), _tensor(torch.tensor)

    def tell(self, fake: Any, value: Any) -> Any:
        """Note a fake tensor's values."""
        setattr(fake, VALUE, value)
        return fake

    def of(self, tensor: Any) -> Any:
        """The values of a fake tensor; None when they aren't known."""
        found = getattr(tensor, VALUE, None)
        return getattr(tensor, "constant", None) if found is None else found

    def run(self, operation: Any, args: Any, kwargs: Any) -> Any:
        """The operation's result, with its values; NotImplemented where they aren't known or not worth following."""
        torch = self.torch
        if operation is torch.ops.aten.masked_select.default and self.of(args[1]) is not None:
            return self._selected(*args)
        scalar = operation is torch.ops.aten._local_scalar_dense.default
        tensors = [item for item in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(item, torch.Tensor)]
        if any(self.of(item) is None for item in tensors) or not self._followed(operation, args, kwargs, tensors):
            if operation._schema.is_mutable and tensors:
                self.tell(tensors[0], None)
            return NotImplemented
        real = self._computed(operation, args, kwargs)
        if scalar:
            return real
        fake = self._shaped(real, tensors) if operation in self.shaped else operation(*args, **kwargs)
        leaves = (torch.utils._pytree.tree_leaves(found) for found in (fake, real))
        for one, value in zip(*leaves, strict=True):
            if isinstance(one, torch.Tensor):
                self.tell(one, value)
        return fake

    def with_places(self, operation: Any, args: Any) -> Any:
        """The arguments, masks among the indices as the places where they are true."""
        torch = self.torch
        if operation not in self.by_mask:
            return args
        places: list[Any] = []
        for index in args[1]:
            if index is None or index.dtype != torch.bool or self.of(index) is None:
                places.append(index)
                continue
            columns = self._computed(torch.ops.aten.nonzero_numpy.default, (index,), {})
            count = columns[0].numel()
            self._places += 8 * count * len(columns)
            whole = torch.empty((count, len(columns)), dtype=torch.long, device=index.device)
            places += [self.tell(whole.select(1, place), column) for place, column in enumerate(columns)]
        return (args[0], places, *args[2:])

    def places_bytes(self) -> int:
        """Bytes of the lists of places that the last operation made."""
        found, self._places = self._places, 0
        return -(-found // 512) * 512

    def _followed(self, operation: Any, args: Any, kwargs: Any, tensors: list[Any]) -> bool:
        """Whether the values are worth following: of few elements; of a factory integers and booleans."""
        if tensors:
            return all(item.numel() <= MOST for item in tensors)
        sizes = args[0] if args and isinstance(args[0], list | tuple) else ()
        dtype = kwargs.get("dtype")
        floats = dtype.is_floating_point if dtype is not None else any(isinstance(item, float) for item in args)
        return not floats and math.prod(sizes) <= MOST and "empty" not in operation.name()

    def _computed(self, operation: Any, args: Any, kwargs: Any) -> Any:
        """The operation on the values, on the processor."""
        torch = self.torch
        from torch._subclasses.fake_tensor import unset_fake_temporarily

        def plain(item: Any) -> Any:
            if isinstance(item, torch.Tensor):
                return self.of(item)
            return torch.device("cpu") if isinstance(item, torch.device) else item

        given, named = torch.utils._pytree.tree_map(plain, (args, kwargs))
        with unset_fake_temporarily(), torch.utils._python_dispatch._disable_current_modes():
            return operation(*given, **named)

    def _shaped(self, real: Any, tensors: list[Any]) -> Any:
        """Fake tensors of the shapes of real ones."""
        torch = self.torch
        device = tensors[0].device
        return torch.utils._pytree.tree_map_only(
            torch.Tensor, lambda item: torch.empty(item.shape, dtype=item.dtype, device=device), real
        )

    def _selected(self, x: Any, mask: Any) -> Any:
        """`masked_select`, with the list of places that its kernel makes."""
        torch = self.torch
        shape = torch.broadcast_shapes(x.shape, mask.shape)
        n = int(self.of(mask).broadcast_to(shape).sum())
        self._places += 8 * n * len(shape)
        return torch.empty((n,), dtype=x.dtype, device=x.device)


def _tolist(own: Any) -> Any:
    """`Tensor.tolist` that knows values."""

    def tolist(tensor: Any) -> Any:
        value = getattr(tensor, VALUE, None)
        return own(tensor if value is None else value)

    return tolist


def _tensor(own: Any) -> Any:
    """`torch.tensor` of a list of numbers, or of tensors that have values."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    def tensor(data: Any, **options: Any) -> Any:
        if isinstance(data, list):
            data = [item if getattr(item, VALUE, None) is None else getattr(item, VALUE).item() for item in data]
        made = own(data, **options)
        if isinstance(data, list) and not made.dtype.is_floating_point:
            with unset_fake_temporarily():
                setattr(made, VALUE, own(data, dtype=made.dtype))
        return made

    setattr(tensor, VALUE, True)
    return tensor
