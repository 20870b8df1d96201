"""MobileNetV5, Gemma 3n's eyes: inverted bottlenecks, then attention with one key head in every other block.

The configuration only names the network (`mobilenetv5_300m_enc`, in the timm library), so its stages are written here.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sizeup.models.anatomy.parts import Part, Tensors, block, norm_tensors, stack_of, weight
from sizeup.models.anatomy.towers import conv, tower, under
from sizeup.models.anatomy.vision import Blocks
from sizeup.models.mixers import Attention
from sizeup.models.model import Block, FeedForward


class Edge(msgspec.Struct, frozen=True):
    """A convolution that widens `expansion` times, and one that narrows again."""

    expansion: int
    inputs: int = 0


class Inverted(msgspec.Struct, frozen=True):
    """A wide bottleneck, with a depthwise convolution before it (`start`) or inside it (`middle`); 0: without."""

    start: int
    middle: int
    expansion: int
    inputs: int = 0


class OneKey(msgspec.Struct, frozen=True):
    """Attention with one head of keys and values, those perhaps of a smaller image (`down`: kernel; 0: the same)."""

    heads: int
    head_dim: int
    down: int
    inputs: int = 0


Kind = Edge | Inverted | OneKey

STEM = 64
#: Channels and blocks of each stage of mobilenetv5_300m_enc (timm 1.0.31).
STAGES: tuple[tuple[int, tuple[Kind, ...]], ...] = (
    (128, (Edge(4),) * 3),
    (256, (Inverted(3, 5, 6), *(Inverted(kernel, 0, 4) for kernel in (5, 3, 5, 3)))),
    (
        640,
        (Inverted(5, 5, 6), *(Inverted(5, 0, 4),) * 7, Inverted(0, 0, 1), *(OneKey(12, 64, 3), Inverted(0, 0, 2)) * 14),
    ),
    (1280, (Inverted(5, 5, 6), *(OneKey(16, 96, 0), Inverted(0, 0, 2)) * 19)),
)
JOINED, OUT = 640 + 1280, 2048


def mobilenet_v5(prefix: str) -> Blocks:
    """The stem, the stages, and what joins the last two into one."""
    blocks: list[Block] = [
        block("image embedding", under(prefix, (*conv("conv_stem.conv", STEM, 3, 3, 3), *scale("conv_stem.bn", STEM))))
    ]
    inputs = STEM
    for stage, (width, kinds) in enumerate(STAGES):
        entered = (
            msgspec.structs.replace(kind, inputs=width if number else inputs) for number, kind in enumerate(kinds)
        )
        blocks += _stage(f"{prefix}.blocks.{stage}", stage, width, entered)
        inputs = width
    joined = (
        *conv("msfa.ffn.pw_exp.conv", 2 * JOINED, JOINED, 1, 1, role="mlp", part="up", bias=False),
        *scale("msfa.ffn.pw_exp.bn", 2 * JOINED),
        *conv("msfa.ffn.pw_proj.conv", OUT, 2 * JOINED, 1, 1, role="mlp", part="down", bias=False),
        *scale("msfa.ffn.pw_proj.bn", OUT),
        *scale("msfa.norm", OUT),
    )
    return tower("vision", (*blocks, block("fusion of scales", under(prefix, joined))))


def _stage(prefix: str, stage: int, width: int, kinds: Iterable[Kind]) -> Blocks:
    def build(kind: Kind) -> list[Part]:
        match kind:
            case Edge():
                return [_edge(kind, width)]
            case Inverted():
                return [_inverted(kind, width)]
            case OneKey():
                return [_one_key(kind, width)]

    def label(kind: Kind) -> str:
        return f"stage {stage + 1} {'attention' if isinstance(kind, OneKey) else 'bottleneck'}"

    return stack_of(prefix, list(kinds), build, label=label)


def scale(name: str, channels: int) -> Tensors:
    """An RMS norm over channels."""
    return norm_tensors(name, channels)


def _edge(kind: Edge, width: int) -> Part:
    inner = kind.inputs * kind.expansion
    tensors = (
        *conv("conv_exp", inner, kind.inputs, 3, 3, role="mlp", part="up", bias=False),
        *scale("bn1", inner),
        *conv("conv_pwl", width, inner, 1, 1, role="mlp", part="down", bias=False),
        *scale("bn2", width),
    )
    return Part(tensors, feed_forward=FeedForward(activation="gelu", gated=False, width=inner))


def _inverted(kind: Inverted, width: int) -> Part:
    inner = kind.inputs * kind.expansion
    tensors: Tensors = ()
    if kind.start:
        tensors += conv("dw_start.conv", kind.inputs, 1, kind.start, kind.start, role="mlp", bias=False)
        tensors += scale("dw_start.bn", kind.inputs)
    tensors += conv("pw_exp.conv", inner, kind.inputs, 1, 1, role="mlp", part="up", bias=False)
    tensors += scale("pw_exp.bn", inner)
    if kind.middle:
        tensors += conv("dw_mid.conv", inner, 1, kind.middle, kind.middle, role="mlp", bias=False)
        tensors += scale("dw_mid.bn", inner)
    tensors += conv("pw_proj.conv", width, inner, 1, 1, role="mlp", part="down", bias=False)
    tensors += (*scale("pw_proj.bn", width), *weight("layer_scale.gamma", (width,), "norm", "scale"))
    return Part(tensors, feed_forward=FeedForward(activation="gelu", gated=False, width=inner))


def _one_key(kind: OneKey, width: int) -> Part:
    queries, size = kind.heads * kind.head_dim, kind.head_dim
    tensors: Tensors = (
        *scale("norm", width),
        *conv("attn.query.proj", queries, width, 1, 1, role="attention", part="q", bias=False),
    )
    for side, part in (("key", "k"), ("value", "v")):
        if kind.down:
            tensors += conv(f"attn.{side}.down_conv", width, 1, kind.down, kind.down, role="attention", bias=False)
            tensors += scale(f"attn.{side}.norm", width)
        tensors += conv(f"attn.{side}.proj", size, width, 1, 1, role="attention", part=part, bias=False)
    tensors += conv("attn.output.proj", width, queries, 1, 1, role="attention", part="o", bias=False)
    tensors += weight("layer_scale.gamma", (width,), "norm", "scale")
    return Part(tensors, (Attention(kind.heads, 1, size, size, causal=False),))
