"""What it takes to write the completions that GRPO scores: keys and values of every token, and a token's logits.

The same process generates, with weights and optimizer states in place (TRL 1.16 without vLLM, transformers' `generate`
with its dynamic cache): 2 · layers · key heads · head size · tokens, of a window no more tokens than it is wide, and
the logits of one token for each sequence, in fp32, three times while they are made into probabilities.
"""

from __future__ import annotations

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.settings import TrainSetting

COPIES_OF_LOGITS = 3


def generation_bytes(shape: object, setting: TrainSetting) -> int:
    """Bytes beside weights and states at the last token; 0 where nothing is generated."""
    if setting.objective != "grpo" or not isinstance(shape, DecoderShape):
        return 0
    item = setting.autocast or setting.weight_item
    width = shape.kv_heads * shape.head_dim * 2
    if shape.latent is not None:
        latent = shape.latent
        width = shape.head_count * (latent.nope_dim + latent.rope_dim + latent.value_dim)
    windows = shape.windows or (None,) * shape.layers
    tokens = sum(min(window or setting.sequence, setting.sequence) for window in windows)
    cache = setting.batch * tokens * width * item
    return cache + COPIES_OF_LOGITS * 4 * setting.batch * shape.vocabulary
