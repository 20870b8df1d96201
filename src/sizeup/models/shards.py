"""Tensor parallelism: which parameters each of several devices holds.

By part, after Shoeybi et al. 2019 (Megatron-LM), section 3, as inference engines do it:

    column     q, k, v, gate, up, … and the vocabulary tables: split along the outputs
    row        o, down, out: split along the inputs
    replicated norms, routers, the compressions of latent attention, positions, towers: whole on every device

Column biases are split, row biases replicated. Key and value heads fewer than devices are repeated: each device
holds at least one whole head. The rule that always holds: the split pieces of all devices, without repetitions,
together with the replicated parameters once, are the whole model.
"""

from __future__ import annotations

import msgspec

from sizeup.errors import BadInput
from sizeup.models.count import built_blocks
from sizeup.models.mixers import Attention
from sizeup.models.model import Block, Model
from sizeup.models.tensors import Tensor

COLUMN = frozenset(
    {
        "q",
        "k",
        "v",
        "qkv",
        "kv",
        "gate",
        "up",
        "gate_up",
        "q_b",
        "kv_b",
        "k_b",
        "v_b",
        "in",
        "conv",
        "tokens",
        "head",
        "qkvz",
        "z",
    }
)
ROW = frozenset({"o", "down", "out"})
_REPLICATED_ROLES = frozenset({"norm", "router", "vision", "audio", "projector", "buffer", "scale"})


class Shards(msgspec.Struct, frozen=True):
    """The parameters of each device.

    split: of each device, pieces that no other holds. replicated: held whole by every device.
    repeated: key and value heads beyond the first copy, over all devices.
    """

    split: tuple[int, ...]
    replicated: int
    repeated: int

    @property
    def whole(self) -> int:
        """The model: Σ split + replicated."""
        return sum(self.split) + self.replicated

    @property
    def largest(self) -> int:
        """Parameters on the fullest device, repetitions spread evenly and rounded up."""
        return max(self.split) + self.replicated + -(-self.repeated // len(self.split))


def shard(model: Model, ways: int) -> Shards:
    """Split a model over `ways` devices. Raises BadInput for fewer than 1, or more than any matrix has rows."""
    if not 1 <= ways <= max(model.hidden, 1):
        raise BadInput(f"tensor parallelism over {ways} devices", hint=f"give 1 to {model.hidden}")
    split, replicated, repeated = [0] * ways, 0, 0
    for block in built_blocks(model):
        for tensor in block.tensors:
            held = tensor.parameters * block.count
            if not held:
                continue
            dimension = split_dimension(tensor)
            if dimension is None:
                replicated += held
                continue
            extent = tensor.shape[dimension]
            per_row = held // extent
            for device in range(ways):
                split[device] += (extent * (device + 1) // ways - extent * device // ways) * per_row
            repeated += held * (_repeats(block, tensor, ways) - 1)
    return Shards(tuple(split), replicated, repeated)


def split_dimension(tensor: Tensor) -> int | None:
    """The dimension that is cut: the outputs' for a column part, the inputs' for a row part; None when replicated."""
    if tensor.role in _REPLICATED_ROLES or not tensor.shape or 0 in tensor.shape:
        return None
    if tensor.part in COLUMN:
        return max(0, len(tensor.shape) - 2) if tensor.name.endswith((".weight", "}")) else len(tensor.shape) - 1
    if tensor.part in ROW and tensor.is_matrix:
        return len(tensor.shape) - 1
    return None


def _repeats(block: Block, tensor: Tensor, ways: int) -> int:
    """How many devices hold the same key and value heads: ways / kv_heads when there are more devices than heads."""
    if tensor.part not in {"k", "v"}:
        return 1
    heads = min((mixer.kv_heads for mixer in block.mixers if isinstance(mixer, Attention)), default=ways)
    return max(1, ways // heads)
