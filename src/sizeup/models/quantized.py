"""A quantized checkpoint as a model: weights under their own names and shapes, with what is stored beside them.

A weight that a scheme packs keeps its logical name and shape, so that parameters are counted right; `stored` says how
many bits each value takes. What is stored beside it becomes tensors of the role `scale`, under their names on disk.
"""

from __future__ import annotations

import msgspec

from sizeup.formats import lookup
from sizeup.formats.checkpoint import CheckpointScheme
from sizeup.formats.checkpoint_layouts import Layout, StoredPart
from sizeup.formats.tensor_kinds import kind_of_checkpoint_tensor
from sizeup.models.model import Block
from sizeup.models.tensors import Tensor

_KINDS = {"embedding": "embedding", "head": "head", "router": "router", "norm": "other", "buffer": "other"}
_FLOAT_METHODS = ("fp4", "nf4")

Layouts = tuple[Layout | None, ...]


def quantized_blocks(blocks: tuple[Block, ...], scheme: CheckpointScheme, hidden: int) -> tuple[Block, ...]:
    """The blocks as a scheme stores them; a kind of layer splits when the scheme leaves some of its layers alone."""
    result: list[Block] = []
    for block in blocks:
        kinds: dict[Layouts, list[int | None]] = {}
        for layer in block.layers or (None,):
            layouts = tuple(_layout(tensor, layer, scheme) for tensor in block.tensors)
            kinds.setdefault(layouts, []).append(layer)
        result += [_split_off(block, layouts, layers, scheme, hidden) for layouts, layers in kinds.items()]
    return tuple(result)


def _split_off(
    block: Block, layouts: Layouts, layers: list[int | None], scheme: CheckpointScheme, hidden: int
) -> Block:
    packed: list[Tensor] = []
    for tensor, layout in zip(block.tensors, layouts, strict=True):
        packed += [tensor] if layout is None else _packed(tensor, layout, scheme, hidden)
    numbers = tuple(layer for layer in layers if layer is not None)
    return msgspec.structs.replace(block, tensors=tuple(packed), layers=numbers)


def _layout(tensor: Tensor, layer: int | None, scheme: CheckpointScheme) -> Layout | None:
    """How the scheme packs a tensor in that layer; None when it stays as it is."""
    if tensor.tied_to or len(tensor.stored_shape) < 2 or tensor.role == "scale":
        return None
    name = next(iter(tensor.names(layer)))
    if any(scheme.ignored.match(module) for module in _module_names(name.removesuffix(".weight"))):
        return None
    return scheme.layout_for(name, tensor.stored_shape, kind_of(tensor))


def _module_names(module: str) -> tuple[str, ...]:
    """The names of a module that a list of exceptions may mean: as on disk, and as transformers ≥ 4.52 builds it."""
    if module.startswith("language_model.model."):
        return module, f"model.language_model.{module.removeprefix('language_model.model.')}"
    return (module, module.removeprefix("model.") if module.startswith("model.") else f"model.{module}")


def kind_of(tensor: Tensor) -> str:
    """The quantizer's kind of a tensor: by its role, else by its name (convolutions, indexers)."""
    kind = _KINDS.get(tensor.role) or kind_of_checkpoint_tensor(tensor.name, tensor.stored_shape)
    return "linear" if kind == "router" and "router" not in {tensor.role, tensor.part} else kind


def _packed(tensor: Tensor, layout: Layout, scheme: CheckpointScheme, hidden: int) -> list[Tensor]:
    shape = tensor.stored_shape
    if inputs_first(tensor, hidden):
        shape = (*shape[:-2], shape[-1], shape[-2])
    parts = layout.parts(tensor.name.removesuffix(".weight"), shape, scheme.dtype)
    values = next(part for part in parts if part.parameters)
    weight = msgspec.structs.replace(tensor, stored=packed_format(values, scheme.name))
    return [weight, *(_side(tensor, part) for part in parts if not part.parameters)]


def inputs_first(tensor: Tensor, hidden: int) -> bool:
    """Whether a stacked expert tensor is stored as (experts, inputs, outputs): gpt-oss, Llama 4."""
    if tensor.fused != "stacked" or len(tensor.shape) != 2 or tensor.shape[0] == tensor.shape[1]:
        return False
    inner = tensor.part != "down"
    return (tensor.shape[0] == hidden) == inner and hidden in tensor.shape


def packed_format(values: StoredPart, scheme_name: str) -> str:
    """The number format that takes as many bits as the packed values do: `F8_E4M3`, `I4`, `F4`."""
    bits = round(8 * values.bytes / values.parameters)
    stored = lookup(values.dtype)
    if stored.block_elements == 1 and stored.block_bytes * 8 == bits:
        return stored.name
    if bits == 4 and any(method in scheme_name for method in _FLOAT_METHODS):
        return "F4"
    return f"I{bits}"


def _side(tensor: Tensor, part: StoredPart) -> Tensor:
    """A scale as a tensor, with as many copies as its weight."""
    stacked = tensor.fused == "stacked" and part.shape[:1] == (tensor.copies,)
    return Tensor(
        part.name,
        part.shape[1:] if stacked else part.shape,
        "scale",
        "scale",
        copies=tensor.copies if stacked or not tensor.fused else 1,
        active=tensor.active if stacked or not tensor.fused else None,
        stored=part.dtype,
        fused="stacked" if stacked else "",
    )
