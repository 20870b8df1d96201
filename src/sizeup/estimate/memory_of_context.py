"""What a model remembers of a context, whatever the engine: keys and values, latents, windows, states.

Engines add paddings, pages and windows of their own (`sizeup.engines`); this is what the model itself needs.
"""

from __future__ import annotations

from sizeup.estimate.cache import row_bytes, state_bytes
from sizeup.models.mixers import Attention, LatentAttention, Mixer, describe
from sizeup.models.model import Block, Model
from sizeup.quantity import Term, leaf, total

#: Towers for images and sound keep nothing between tokens, and MTP layers only run when an engine speculates.
_REMEMBERING = frozenset({"text", "decoder"})


def cache_term(model: Model, context: int, dtype: str = "f16") -> Term:
    """Bytes of one sequence of `context` tokens: Σ over layers of tokens kept · bytes a token, plus fixed states.

    A window keeps min(context, window) tokens; a layer that shares another's cache keeps none; latent attention keeps
    kv_rank + rope_dim elements (and an indexer's key); states are kept in fp32. Cross attention keeps keys and values
    of the other sequence, taken to be as long as the context.
    """
    blocks = [block for block in model.blocks if block.stack in _REMEMBERING and block.mixers]
    parts = [_mixer_term(block, mixer, context, dtype) for block in blocks for mixer in block.mixers]
    return total("cache", parts, f"{context:,} tokens, one sequence, {dtype}")


def bytes_per_token(model: Model, dtype: str = "f16") -> int:
    """Bytes that one more token costs while no window is full."""
    return int(cache_term(model, 2, dtype).value - cache_term(model, 1, dtype).value)


def _mixer_term(block: Block, mixer: Mixer, context: int, dtype: str) -> Term:
    name = f"{block.count} × {describe(mixer)}"
    if isinstance(mixer, Attention) and not mixer.causal and not mixer.cross:
        return leaf(name, 0, "sees the whole input at once and keeps nothing")
    if isinstance(mixer, Attention | LatentAttention):
        tokens = min(context, _reach(mixer) or context)
        token = _token_bytes(mixer, dtype)
        return leaf(name, block.count * tokens * token, f"{block.count} layers × {tokens:,} tokens × {token:,} bytes")
    elements = mixer.state_elements + mixer.conv_elements
    formula = f"{block.count} layers × {elements:,} elements × 4 bytes, at any length"
    return leaf(name, block.count * state_bytes(elements, 1), formula)


def _reach(mixer: Attention | LatentAttention) -> int | None:
    return mixer.reach if isinstance(mixer, Attention) else mixer.window


def _token_bytes(mixer: Attention | LatentAttention, dtype: str) -> int:
    if isinstance(mixer, Attention):
        if mixer.shares_cache:
            return 0
        return row_bytes(mixer.key_elements, dtype) + row_bytes(mixer.value_elements, dtype)
    indexer = mixer.indexer
    index = row_bytes(indexer.head_dim, dtype) if indexer and not indexer.shares_choice else 0
    return row_bytes(mixer.latent_elements, dtype) + index
