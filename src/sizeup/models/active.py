"""Active parameters: how many of a model's parameters one token passes through, under a named definition.

Vendors count differently, so a figure without its definition can't be compared:

    all          every parameter but the experts that the router didn't choose
    multiplied   as all, less the tables that are looked up (token and position embeddings); a tied table counts
                 once, because as output head it is multiplied
    inner        as multiplied, less the output head: the layers alone (`non-embedding parameters`)

Multi-token prediction layers count in none of them. Towers for images and sound count in all three although a text
token doesn't pass through them; `text` is `all` without them.
"""

from __future__ import annotations

import msgspec

from sizeup.models.count import built_blocks
from sizeup.models.model import Block, Model

TOWERS = frozenset({"vision", "audio", "projector"})


class ActiveParameters(msgspec.Struct, frozen=True):
    """Active parameters under each definition of this module."""

    all: int
    multiplied: int
    inner: int
    text: int


def active_parameters(model: Model) -> ActiveParameters:
    """Count them. For a dense model `all` is the model's parameters."""
    blocks = built_blocks(model)
    everything = sum(block.active_parameters for block in blocks)
    tables = _active(blocks, "embedding")
    head = _active(blocks, "head")
    tied = sum(
        block.count * tensor.elements
        for block in blocks
        for tensor in block.tensors
        if tensor.tied_to and tensor.role == "head"
    )
    towers = sum(
        block.count * tensor.active_parameters
        for block in blocks
        for tensor in block.tensors
        if tensor.role in TOWERS or block.stack in TOWERS
    )
    return ActiveParameters(
        all=everything,
        multiplied=everything - tables + tied,
        inner=everything - tables - head,
        text=everything - towers,
    )


def _active(blocks: tuple[Block, ...], role: str) -> int:
    return sum(
        block.count * tensor.active_parameters for block in blocks for tensor in block.tensors if tensor.role == role
    )
