"""Demands of a model as engines for checkpoints hold it: matrices at so many bits, tables and norms in 16 bits."""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.estimate.cache import token_cache_bytes
from sizeup.estimate.speed.demand import NOTHING, Demand, Share, pass_work
from sizeup.estimate.speed.kernels import layer_kernels
from sizeup.estimate.speed.reaches import reach_of
from sizeup.estimate.speed.work import PACKINGS, Work
from sizeup.models.mixers import Attention, LatentAttention
from sizeup.models.model import Block, Model
from sizeup.models.tensors import Tensor

_KEPT_PLAIN = frozenset({"router", "norm"})
_SKIPPED_STACKS = frozenset({"mtp", "vision", "audio", "projector"})
_SKIPPED_ROLES = frozenset({"embedding", "vision", "audio", "projector", "mtp", "buffer", "scale"})


class Layout(msgspec.Struct, frozen=True):
    """How an engine holds weights. bits: of a linear layer's weight with its scales; head_bits: of the output head.

    packing: one of PACKINGS. experts_only: nothing but routed experts is packed (MXFP4 of gpt-oss).
    """

    packing: str
    bits: float
    head_bits: float = 16.0
    experts_only: bool = False


class Demands(msgspec.Struct, frozen=True):
    """Each kind of layer with how many there are, and the output."""

    layers: tuple[tuple[Demand, int], ...]
    output: Demand

    def work(self, *, tokens: int = 1, depth: float = 0, sequences: int = 1, split: int = 1) -> Work:
        """One pass on one of `split` devices that share every layer (tensor parallel)."""
        work = pass_work(
            [Share(demand, count) for demand, count in self.layers],
            tokens=tokens, depth=depth, sequences=sequences, layers=sum(count for _, count in self.layers),
            output=self.output,
        )  # fmt: skip
        return work if split == 1 else _part(work, split)


def _part(work: Work, split: int) -> Work:
    """The share of one device in tensor parallel: bytes and FLOPs divided, kernels not."""
    return msgspec.structs.replace(
        work,
        weight_bytes=work.weight_bytes / split,
        values=tuple(value / split for value in work.values),
        flops=tuple(value / split for value in work.flops),
        expert_flops=tuple(value / split for value in work.expert_flops),
        activations=work.activations / split,
        attention_flops=work.attention_flops / split,
        cache_bytes=work.cache_bytes / split,
        expert_bytes=work.expert_bytes / split,
    )


def demands(model: Model, layout: Layout, cache_type: str = "f16", *, windowed: bool = True) -> Demands:
    """The demands of a model's text stack in that layout."""
    layers: list[tuple[Demand, int]] = []
    output = Demand(kernels=4.0)
    for block in model.blocks:
        if block.stack in _SKIPPED_STACKS:
            continue
        demand = _demand(block, layout, cache_type, windowed=windowed)
        if block.layers:
            layers.append((demand, len(block.layers)))
        elif any(tensor.role == "head" for tensor in block.tensors):
            output = msgspec.structs.replace(demand, kernels=4.0)
    return Demands(tuple(layers), output)


def stored_bytes(model: Model, layout: Layout) -> float:
    """Bytes of all weights in that layout; tables, norms and other stacks (vision, audio) stay in 16 bits."""
    return sum(
        tensor.elements * tensor.copies * _bits(tensor, layout) / 8
        for block in model.blocks
        for tensor in block.tensors
        if not tensor.tied_to and block.stack != "mtp"
        for _ in (block.layers or (0,))
    )


def cache_bytes(asked: Demands, tokens: int) -> float:
    """Bytes of one sequence's keys, values and states, so many tokens long."""
    return sum(
        count * (demand.state_bytes / 2 + sum(reach.bytes * reach.seen(tokens) for reach in demand.reaches))
        for demand, count in asked.layers
    )


def _demand(block: Block, layout: Layout, cache_type: str, *, windowed: bool) -> Demand:
    dense: list[Any] = [0.0, NOTHING, 0.0]
    expert: list[Any] = [0.0, NOTHING, 0.0]
    for tensor in block.tensors:
        if tensor.role not in _SKIPPED_ROLES:
            row = expert if tensor.role == "routed_expert" else dense
            _put(row, tensor, layout)
    kernels, routed = layer_kernels(block)
    forward = block.feed_forward
    kept = [reach_of(m, _token_bytes(m, cache_type), windowed=windowed) for m in block.mixers]
    states = sum(getattr(m, "state_elements", 0) + getattr(m, "conv_elements", 0) for m in block.mixers)
    return Demand(
        dense[0], dense[1], expert[0], expert[1],
        experts=forward.experts if forward else 0,
        chosen=forward.experts_per_token if forward else 0,
        widths=dense[2],
        expert_widths=expert[2],
        reaches=tuple(reach for reach in kept if reach),
        state_bytes=2.0 * 4 * states,
        kernels=kernels,
        expert_kernels=routed,
    )  # fmt: skip


def _put(row: list[Any], tensor: Tensor, layout: Layout) -> None:
    elements = float(tensor.elements * tensor.copies)
    bits = _bits(tensor, layout)
    packing = "plain" if bits >= 16 else layout.packing
    row[0] += elements * bits / 8
    if tensor.is_matrix:
        at = PACKINGS.index(packing)
        values: tuple[float, ...] = row[1]
        row[1] = (*values[:at], values[at] + elements, *values[at + 1 :])
        row[2] += sum(tensor.shape[-2:])


def _bits(tensor: Tensor, layout: Layout) -> float:
    """Bits of a value of the tensor in that layout."""
    if not tensor.is_matrix or tensor.role in _KEPT_PLAIN or tensor.role in _SKIPPED_ROLES:
        return 16.0
    if layout.experts_only and tensor.role != "routed_expert":
        return 16.0
    return layout.head_bits if tensor.role == "head" else layout.bits


def _token_bytes(mixer: object, cache_type: str) -> float:
    match mixer:
        case Attention():
            return float(token_cache_bytes(mixer.key_elements, mixer.value_elements, cache_type, cache_type))
        case LatentAttention():
            return float(token_cache_bytes(mixer.latent_elements, 0, cache_type, cache_type))
    return 0.0
