"""From a flat list of tensors to blocks: layers with the same tensors and mixers are one kind.

tower    where a layer stands: its stack and the name before its number, (`text`, `blk`)
placed   a tensor under its template name, with the layer it was found in
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from sizeup.models.mixers import Mixer
from sizeup.models.model import Block, FeedForward
from sizeup.models.tensors import Tensor


class Placed(msgspec.Struct, frozen=True):
    """A tensor (with `{layer}` and `{copy}` in its name), its stack, and its layer (None: outside the layers).

    section: the name of the block for tensors outside the layers: `embedding`, `output` …
    """

    tensor: Tensor
    stack: str
    layer: int | None = None
    section: str = ""


class LayerKind(msgspec.Struct, frozen=True):
    """What a layer does, read off its tensors or its metadata."""

    name: str
    mixers: tuple[Mixer, ...] = ()
    feed_forward: FeedForward | None = None


Describe = Callable[[str, int, tuple[Tensor, ...]], LayerKind]

_SECTIONS = ("embedding", "projector", "tower", "output")


def blocks_of(placed: Iterable[Placed], describe: Describe) -> tuple[Block, ...]:
    """Blocks in reading order: embedding, towers, layers by first number, output, then multi-token prediction.

    describe: from a stack, a layer number and its tensors to the kind of layer it is.
    """
    outside: dict[tuple[str, str], list[Tensor]] = {}
    inside: dict[tuple[str, str, int], list[Tensor]] = {}
    for item in placed:
        if item.layer is None:
            outside.setdefault((item.stack, item.section), []).append(item.tensor)
        else:
            family = item.tensor.name.partition("{layer}")[0]
            inside.setdefault((item.stack, family, item.layer), []).append(item.tensor)
    fixed = [
        (_place(stack, section), Block(section, tuple(tensors), (), stack))
        for (stack, section), tensors in outside.items()
    ]
    layers = [(_place(block.stack, "layers"), block) for block in _layer_blocks(inside, describe)]
    return tuple(_predicting(block) for _, block in sorted([*fixed, *layers], key=lambda pair: pair[0]))


def _predicting(block: Block) -> Block:
    """In multi-token prediction every tensor has that role; what it does there is its part."""
    if block.stack != "mtp":
        return block
    kept = {"buffer", "scale"}
    tensors = tuple(t if t.role in kept else msgspec.structs.replace(t, role="mtp") for t in block.tensors)
    return msgspec.structs.replace(block, tensors=tensors)


def _place(stack: str, section: str) -> tuple[int, int]:
    """Sorting key: towers and encoders before the text, multi-token prediction after everything."""
    stacks = ("vision", "audio", "projector", "encoder", "text", "decoder", "mtp")
    rank = stacks.index(stack) if stack in stacks else len(stacks)
    if section == "embedding" and stack in {"text", "decoder", "encoder"}:
        return -1, 0
    if section == "output" and stack in {"text", "decoder"}:
        return stacks.index("decoder"), 1
    return rank, 0


def _layer_blocks(inside: dict[tuple[str, str, int], list[Tensor]], describe: Describe) -> list[Block]:
    kinds: dict[tuple[str, str, tuple[Tensor, ...], LayerKind], list[int]] = {}
    described: dict[tuple[str, int, tuple[Tensor, ...]], LayerKind] = {}
    for (stack, family, layer), found in inside.items():
        tensors = tuple(sorted(found, key=lambda tensor: tensor.name))
        key = (stack, layer, tensors)
        if key not in described:
            described[key] = describe(stack, layer, tensors)
        kinds.setdefault((stack, family, tensors, described[key]), []).append(layer)
    blocks = [
        Block(kind.name, tensors, tuple(sorted(layers)), stack, kind.mixers, kind.feed_forward)
        for (stack, _, tensors, kind), layers in kinds.items()
    ]
    return sorted(blocks, key=lambda block: block.layers[0])


def with_copies(item: Placed, copies: list[int]) -> Iterable[Placed]:
    """Experts 0 … n-1 under one template become one tensor with n copies; other numbers stay alone.

    copies: the experts' numbers; empty for a tensor that isn't one of several.
    """
    tensor = item.tensor
    if not copies:
        yield item
    elif sorted(copies) == list(range(len(copies))):
        active = min(tensor.active, len(copies)) if tensor.active else None
        yield msgspec.structs.replace(item, tensor=msgspec.structs.replace(tensor, copies=len(copies), active=active))
    else:
        for copy in copies:
            alone = msgspec.structs.replace(tensor, name=tensor.name.replace("{copy}", str(copy)), active=None)
            yield msgspec.structs.replace(item, tensor=alone)


def feed_forward_of(tensors: Iterable[Tensor], hidden: int, activation: str = "silu") -> FeedForward | None:
    """The feed-forward that a layer's tensors make; None when it has none.

    Widths are elements / hidden, so that the orientation of a matrix doesn't matter.
    """
    matrices = [tensor for tensor in tensors if tensor.is_matrix]
    dense = [tensor for tensor in matrices if tensor.role == "mlp"]
    routed = [tensor for tensor in matrices if tensor.role == "routed_expert"]
    shared = [tensor for tensor in matrices if tensor.role == "shared_expert"]
    if not (dense or routed):
        return None
    first = routed or dense
    return FeedForward(
        activation=activation,
        gated=any(tensor.part in {"gate", "gate_up"} for tensor in first),
        width=_width(dense, hidden),
        experts=max((tensor.copies for tensor in routed), default=0),
        experts_per_token=max((tensor.active or tensor.copies for tensor in routed), default=0),
        expert_width=_width(routed, hidden),
        shared_width=_width(shared, hidden),
    )


def _width(matrices: list[Tensor], hidden: int) -> int:
    """The inner size: of the up projection, else half of a fused one, else of the down projection."""
    for part, share in (("up", 1), ("gate_up", 2), ("down", 1)):
        for tensor in matrices:
            if tensor.part == part:
                return tensor.elements // (hidden * share)
    return 0


def layer_name(mixers: tuple[Mixer, ...], forward: FeedForward | None, tensors: tuple[Tensor, ...]) -> str:
    """A layer's name for people: `mixture layer`, `sliding-window dense layer`, `state-space layer`."""
    words = [word for word in (_mixer_word(mixer) for mixer in mixers) if word]
    if forward is not None and forward.experts:
        words.append("mixture")
    elif forward is not None and not mixers:
        words.append("feed-forward")
    elif not mixers and not any(tensor.role in {"attention", "mlp"} for tensor in tensors):
        words.append("other")
    return " ".join([*dict.fromkeys(words), "layer"])


def _mixer_word(mixer: Mixer) -> str:
    kind = type(mixer).__name__
    if kind == "Attention":
        window, chunk, cross = (getattr(mixer, name) for name in ("window", "chunk", "cross"))
        return "cross-attention" if cross else "sliding-window" if window else "chunked" if chunk else ""
    return {
        "LatentAttention": "",
        "StateSpace": "state-space",
        "LinearAttention": "linear-attention",
        "ShortConvolution": "convolution",
    }[kind]
