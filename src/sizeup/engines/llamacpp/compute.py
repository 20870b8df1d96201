"""The compute buffers: intermediate results of the largest graph that llama.cpp reserves for."""

from __future__ import annotations

import msgspec

from sizeup.engines.llamacpp.backends import Backend
from sizeup.engines.llamacpp.cache import cache_sizes, context_tokens, layer_memories, uses_flash_attention
from sizeup.engines.llamacpp.memo import by_model
from sizeup.engines.llamacpp.setting import LlamaSetting
from sizeup.engines.llamacpp.weights import Assignment
from sizeup.models.mixers import Attention, LatentAttention, LinearAttention, ShortConvolution, StateSpace
from sizeup.models.model import Block, Model

FLOAT = 4


class PlacedCompute(msgspec.Struct, frozen=True):
    """Compute buffers: one on each GPU, one on the host."""

    gpus: tuple[int, ...]
    host: int


class _Widths(msgspec.Struct, frozen=True):
    """The widest of what a layer computes for one token, in values."""

    attention: int = 0
    heads: int = 0
    feed_forward: int = 0
    experts: int = 0
    recurrent: int = 0


@by_model
def _widths(model: Model) -> tuple[_Widths, ...]:
    return tuple(_block_widths(block) for block in model.blocks if block.layers and block.stack != "mtp")


def _block_widths(block: Block) -> _Widths:
    attention = heads = recurrent = 0
    for mixer in block.mixers:
        match mixer:
            case Attention():
                attention = mixer.heads * (mixer.head_dim + mixer.value_dim) + mixer.kv_heads * mixer.head_dim
                heads = mixer.heads
            case LatentAttention():
                attention = mixer.heads * (mixer.latent_elements + mixer.head_dim + mixer.kv_rank)
                heads = mixer.heads
            case StateSpace():
                recurrent = 4 * mixer.inner + 2 * mixer.conv_channels
            case LinearAttention():
                recurrent = 6 * mixer.heads * mixer.value_dim + 2 * mixer.conv_channels
            case ShortConvolution():
                recurrent = 5 * mixer.channels
    forward = block.feed_forward
    dense = experts = 0
    if forward:
        dense = (2 if forward.gated else 1) * max(forward.width, forward.shared_width)
        experts = forward.experts_per_token * (2 * forward.expert_width + 2 * 0) + 2 * forward.experts
    return _Widths(attention, heads, dense, experts, recurrent)


def compute_buffers(
    model: Model, setting: LlamaSetting, assignment: Assignment, backends: tuple[Backend, ...]
) -> PlacedCompute:
    """An upper bound of the buffers: the largest of attention, feed-forward and output, beside the inputs.

    tokens · (residual + widest stage) · 4 bytes, + scores of tokens · heads · cells · 4 without flash attention,
    or rows · vocabulary · 4 at the output; masks of tokens · cells in half or single precision.
    """
    tokens = min(context_tokens(setting), setting.ubatch_tokens)
    fused = uses_flash_attention(setting)
    sizes = cache_sizes(model, setting) if layer_memories(model) else None
    cells = sizes.full if sizes else tokens
    mask = tokens * cells * (2 if fused else FLOAT) * (2 if sizes and sizes.windowed != sizes.full else 1)
    residual = 2 * tokens * model.hidden * FLOAT
    stages = [tokens * (w.feed_forward + w.experts) * FLOAT for w in _widths(model)]
    stages += [tokens * (w.attention + w.recurrent + (0 if fused else w.heads * cells)) * FLOAT for w in _widths(model)]
    logits = setting.output_rows * model.vocabulary * FLOAT
    layers = residual + max(stages, default=0)
    inputs = mask + tokens * model.hidden * FLOAT
    gpus = [0] * len(backends)
    for gpu in assignment.gpus:
        head = logits + tokens * model.hidden * FLOAT if gpu == assignment.output else 0
        gpus[gpu] = inputs + max(layers, head)
    if not assignment.gpus:
        return PlacedCompute(tuple(gpus), inputs + max(layers, logits))
    host = inputs if assignment.fully_offloaded else inputs + layers
    return PlacedCompute(tuple(gpus), host)
