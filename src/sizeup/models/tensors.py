"""A tensor of a checkpoint: its name, shape, what it is for, and how it is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

#: What a tensor is for. Components of a count; every tensor has exactly one.
ROLES = (
    "embedding",  # token and position tables, looked up and not multiplied
    "attention",  # projections of any attention: full, sliding, latent, cross
    "linear_attention",  # gated delta nets, lightning, RWKV time mixing
    "state_space",  # Mamba 1 and 2, short convolutions
    "mlp",  # dense feed-forward
    "routed_expert",
    "shared_expert",
    "router",
    "norm",
    "head",  # output projection over the vocabulary, pooler or classifier
    "vision",
    "audio",
    "projector",  # from a vision or audio tower into the text model
    "mtp",  # multi-token prediction layers
    "buffer",  # stored with the checkpoint, but not a parameter
    "scale",  # scales, zeros and code books of a quantized checkpoint
)


class Tensor(msgspec.Struct, frozen=True):
    """One tensor, or `copies` of them that differ only in the expert's number.

    name: as in the checkpoint, with `{layer}` for the layer number and `{copy}` for the expert's.
    shape: of one copy, as stored in the checkpoint: (out_features, in_features) for a linear layer.
    part: what it does within its role, engine-neutral: q, k, v, o, qkv, q_a, q_b, kv_a, kv_b, gate, up,
        down, gate_up, router, norm, in, out, conv, …; the bias of a projection has the projection's part.
    fused: how the copies lie in one stored tensor: `stacked` (shape (copies, *shape)) or `rows` (joined along the first
        dimension: (copies · shape[0], *shape[1:])); empty when each is stored under its own name. `shape` is always
        that of one copy, so that `active` counts.
    active: how many of the copies one token uses (routed experts); None means all.
    tied_to: the name of the tensor that holds its values; a tied tensor is read, but neither stored nor counted.
    stored: storage format as `sizeup.formats.lookup` knows it; None means the model's own.
    """

    name: str
    shape: tuple[int, ...]
    role: str
    part: str = ""
    copies: int = 1
    active: int | None = None
    tied_to: str = ""
    stored: str | None = None
    fused: str = ""

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the tensor in the checkpoint under each of its names."""
        if self.fused == "stacked":
            return (self.copies, *self.shape)
        if self.fused == "rows":
            return (self.copies * self.shape[0], *self.shape[1:])
        return self.shape

    @property
    def elements(self) -> int:
        """Elements of one copy."""
        return math.prod(self.shape)

    @property
    def parameters(self) -> int:
        """Parameters of all copies; 0 for what is tied, a buffer or a scale."""
        if self.tied_to or self.role in {"buffer", "scale"}:
            return 0
        return self.elements * self.copies

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes through: `active` of the copies."""
        return self.parameters if self.active is None else self.parameters // self.copies * self.active

    @property
    def is_matrix(self) -> bool:
        """Whether it is multiplied as a matrix (two dimensions or more, not looked up)."""
        return len(self.shape) > 1

    def names(self, layer: int | None = None) -> Iterator[str]:
        """The checkpoint names it stands for in that layer."""
        name = self.name if layer is None else self.name.replace("{layer}", str(layer))
        if "{copy}" not in name:
            yield name
            return
        for copy in range(self.copies):
            yield name.replace("{copy}", str(copy))
