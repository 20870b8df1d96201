"""What a model's checkpoint takes on disk: its own bytes, tensor by tensor, and its elements as a Hub counts them."""

from __future__ import annotations

from sizeup.formats import lookup
from sizeup.models.count import layers_formula, role_name
from sizeup.models.model import Block, Model
from sizeup.models.tensors import ROLES, Tensor
from sizeup.quantity import Term, leaf, total

#: Schemes that pack values into words of 32 bits; the others pack into bytes.
_WORD_SCHEMES = ("awq", "gptq", "auto-round", "mlx", "w2a16", "w3a16", "w4a16", "w5a16", "w6a16", "w8a16")


def stored_bytes(model: Model) -> Term:
    """The bytes of all stored tensors, by block and role; for a model from headers, those of its files' data."""
    return total("stored", [_block_bytes(block, model.dtype) for block in model.blocks])


def tensor_bytes(tensor: Tensor, dtype: str) -> int:
    """Bytes of one tensor and all its copies; 0 when it is tied. dtype: the model's own format."""
    if tensor.tied_to:
        return 0
    return tensor.copies * lookup(tensor.stored or dtype).bytes_of(tensor.shape)


def _block_bytes(block: Block, dtype: str) -> Term:
    held: dict[str, int] = {}
    formats: dict[str, set[str]] = {}
    for tensor in block.tensors:
        if not tensor.tied_to:
            held[tensor.role] = held.get(tensor.role, 0) + block.count * tensor_bytes(tensor, dtype)
            formats.setdefault(tensor.role, set()).add((tensor.stored or dtype).upper())
    parts = [leaf(role_name(role), held[role], " and ".join(sorted(formats[role]))) for role in ROLES if role in held]
    name = f"{block.count} × {block.name}" if block.layers else block.name
    return total(name, parts, layers_formula(block))


def elements_on_disk(tensor: Tensor, scheme: str | None) -> int:
    """Elements of the stored tensors as their dtypes count them: two 4 bit weights in a byte are one element."""
    if tensor.tied_to:
        return 0
    bits = _packed_bits(tensor.stored)
    elements = tensor.copies * tensor.elements
    if not bits or tensor.role == "scale":
        return elements
    word = 32 if scheme and scheme.startswith(_WORD_SCHEMES) else 8
    return -(-elements * bits // word)


def _packed_bits(stored: str | None) -> int:
    """Bits of a format that shares words; 0 for formats with an element of their own."""
    if stored == "F4":
        return 4
    return int(stored[1:]) if stored in {"I2", "I3", "I4", "I5", "I6"} else 0
