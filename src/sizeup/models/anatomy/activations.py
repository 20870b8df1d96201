"""The activation of the feed-forwards, where a configuration names another one than its family usually has."""

from __future__ import annotations

import msgspec

from sizeup.models.anatomy.family import Anatomy
from sizeup.models.config import Config
from sizeup.models.model import Block

#: Under which names configurations give it, in the order in which classes look.
FIELDS = ("hidden_activation", "mlp_hidden_act", "hidden_act", "activation_function", "activation")
#: transformers' names → ours; other names are the same.
NAMES = {
    "swish": "silu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_tanh",
}
#: Those that a configuration may exchange for each other; what else an anatomy says belongs to its class.
ORDINARY = frozenset({"silu", "gelu", "gelu_tanh", "quick_gelu", "relu", "relu2"})
#: Gemma's older files say `gelu` and mean its approximation by tanh, as their class always has.
FIXED = ("gemma", "recurrent_gemma", "t5gemma", "paligemma", "vaultgemma", "bloom", "mpt", "falcon")
STACKS = frozenset({"text", "encoder", "decoder"})


def activated(cfg: Config, anatomy: Anatomy) -> Anatomy:
    """The anatomy with the activation that the configuration names in the feed-forwards of its text layers."""
    named = next((value for name in FIELDS if isinstance(value := cfg.get(name), str)), "")
    wanted = NAMES.get(named, named)
    if wanted not in ORDINARY or str(cfg.get("model_type")).startswith(FIXED):
        return anatomy
    return msgspec.structs.replace(anatomy, blocks=tuple(_changed(block, wanted) for block in anatomy.blocks))


def _changed(block: Block, wanted: str) -> Block:
    forward = block.feed_forward
    if forward is None or block.stack not in STACKS or forward.activation not in ORDINARY - {wanted}:
        return block
    return msgspec.structs.replace(block, feed_forward=msgspec.structs.replace(forward, activation=wanted))
