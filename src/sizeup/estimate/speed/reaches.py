"""How the mixers of a layer look back: what they read of the cache, and what they compute with it."""

from __future__ import annotations

from sizeup.estimate.speed.demand import Reach
from sizeup.models.mixers import Attention, LatentAttention, Mixer


def attention_flops(mixer: Mixer) -> float:
    """FLOPs of one token for each token it sees: scores and weighted sum, 2 a multiply-add.

    Attention: 2 · heads · (head_dim + value_dim). Latent, with the projections absorbed as engines do when decoding:
    2 · heads · (2 · kv_rank + rope_dim).
    """
    match mixer:
        case Attention():
            return 2.0 * mixer.heads * (mixer.head_dim + mixer.value_dim)
        case LatentAttention():
            return 2.0 * mixer.heads * (2 * mixer.kv_rank + mixer.rope_dim)
    return 0.0


def reach_of(mixer: Mixer, token_bytes: float, *, windowed: bool) -> Reach | None:
    """How it looks back, given the bytes of one token's keys and values; None for what has no cache of its own sort.

    windowed: whether the engine skips what lies outside the window.
    """
    match mixer:
        case Attention(cross=False):
            return Reach(mixer.reach if windowed else None, token_bytes, attention_flops(mixer))
        case LatentAttention():
            top = mixer.indexer.top_k if mixer.indexer else None
            return Reach(top or (mixer.window if windowed else None), token_bytes, attention_flops(mixer))
    return None
