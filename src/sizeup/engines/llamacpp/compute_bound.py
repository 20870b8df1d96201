"""The compute buffer of a family whose graph isn't built here: an upper bound from widths alone."""

from __future__ import annotations

from sizeup.engines.llamacpp.assembly import Frame, Step
from sizeup.engines.llamacpp.builder import Sizes
from sizeup.engines.llamacpp.weights import HOST
from sizeup.models.mixers import Attention, LatentAttention
from sizeup.models.model import Block, Model

#: Results of one width that llama.cpp holds at once in a layer, generously: residual, norm, two inputs, output, copies.
HELD = 8


def bound(model: Model, sizes: Sizes, steps: tuple[Step, ...], frame: Frame) -> dict[int, int]:
    """Bytes by place: tokens · 4 B · (8 · hidden + 3 · widest layer) + masks, + scores unless fused, + logits.

    The same on every place that computes; logits where the output is. Known error: up to three times too much.
    """
    blocks = [block for block in model.blocks if block.layers and block.stack != "mtp"]
    widest = max((_width(block) for block in blocks), default=model.hidden)
    heads = max((_heads(block) for block in blocks), default=1)
    seen, indexed = _seen(blocks, sizes)
    attention = seen * (2 if sizes.fused else 4 * heads + 4) + indexed
    layer = sizes.tokens * (4 * (HELD * model.hidden + 3 * widest) + attention)
    places = {HOST, frame.output, *(step[1].compute for step in steps)}
    found = {place: frame.copies * layer if place != HOST or len(places) == 1 else layer // 4 for place in places}
    found[frame.output] += 4 * sizes.rows * model.vocabulary
    return found


def _seen(blocks: list[Block], sizes: Sizes) -> tuple[int, int]:
    """Cells that a token's scores cover, and bytes of what an indexer makes of them.

    Compressed caches (DeepSeek-V4): the window and one entry for several tokens, of the token's own sequence; 6 B of
    indexer's scores and choice for each. Within -5 and +15 % of what llama.cpp reserves for it.
    """
    ratios = [m.compress for b in blocks for m in b.mixers if isinstance(m, LatentAttention) and m.compress > 1]
    if not ratios:
        return sizes.full * sizes.streams, 0
    entries = -(-sizes.full // min(ratios))
    return sizes.windowed + entries, 6 * entries


def _width(block: Block) -> int:
    """The widest results of a layer for one token, in elements; latent attention multiplies latents for every head."""
    forward = block.feed_forward
    inner = 0 if forward is None else forward.width + forward.shared_width
    used = 0 if forward is None else forward.experts_per_token * forward.expert_width
    mixed = [m.heads * m.head_dim for m in block.mixers if isinstance(m, Attention)]
    latent = [m.heads * m.latent_elements for m in block.mixers if isinstance(m, LatentAttention)]
    return max(inner + used, *mixed, *latent, 1)


def _heads(block: Block) -> int:
    return max((m.heads for m in block.mixers if isinstance(m, Attention | LatentAttention)), default=1)
