"""The bytes of a model's weights in a checkpoint format: every stored tensor, with scales, zeros and code books."""

from __future__ import annotations

from sizeup.formats.checkpoint import CheckpointScheme, scheme, stored_bytes
from sizeup.models.model import Block, Model
from sizeup.models.tensors import Tensor
from sizeup.quantity import Term, leaf, total

#: What people ask for, from the largest to the smallest.
COMMON = ("fp32", "bf16", "fp8", "int8", "awq-4bit-g128", "gptq-4bit-g128", "nf4", "nf4-dq", "nvfp4", "mxfp4")

#: How quantizers see a role: what isn't here is a linear layer when it is a matrix, and stays as it is otherwise.
_KINDS = {"embedding": "embedding", "head": "head", "router": "router", "norm": "other", "buffer": "other"}
#: The element's size is all that `fp8` and the like change in these: they are never quantized.
_UNTOUCHED = frozenset({"conv", "conv1d", "patch", "patch_embedding", "positions"})


def checkpoint_bytes(model: Model, format_: str) -> int:
    """Bytes of a checkpoint of the model in that format."""
    return int(checkpoint_term(model, format_).value)


def checkpoint_term(model: Model, format_: str) -> Term:
    """Σ over blocks of layers · copies · stored bytes of each tensor; MTP layers are not counted.

    Head, embeddings, routers, norms and convolutions stay in the scheme's 16-bit type. Raises BadInput for an
    unknown format. Scales of a checkpoint that is already quantized are left out: the question is about the format.
    """
    chosen = scheme(format_, dtype=_plain(model))
    seen: dict[tuple[str, tuple[int, ...]], int] = {}
    parts = [_block_term(block, chosen, seen) for block in model.blocks if block.stack != "mtp"]
    return total("weights", parts, chosen.name)


def _block_term(block: Block, chosen: CheckpointScheme, seen: dict[tuple[str, tuple[int, ...]], int]) -> Term:
    """seen: bytes by kind and shape, which is all that a scheme without exceptions looks at."""
    amount = 0
    for tensor in block.tensors:
        if tensor.tied_to or tensor.role == "scale":
            continue
        key = (_kind(tensor), tensor.shape)
        if key not in seen:
            seen[key] = stored_bytes(chosen.stored(tensor.name, tensor.shape, kind=key[0]))
        amount += tensor.copies * seen[key]
    name = f"{block.count} × {block.name}" if block.layers else block.name
    return leaf(name, block.count * amount, f"{block.count} × {amount:,} bytes" if block.layers else "")


def _kind(tensor: Tensor) -> str:
    linear = tensor.is_matrix and tensor.part not in _UNTOUCHED
    return _KINDS.get(tensor.role, "linear" if linear else "other")


def _plain(model: Model) -> str:
    """The 16-bit type that stays beside quantized weights: the model's own, or bf16 when it is stored otherwise."""
    return model.dtype if model.dtype in {"bf16", "f16", "fp16"} else "bf16"
