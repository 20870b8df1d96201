"""How many kernels a layer starts for one pass: operations of the graph that run one after the other."""

from __future__ import annotations

from sizeup.models.mixers import Attention, LatentAttention, LinearAttention, ShortConvolution, StateSpace
from sizeup.models.model import Block

#: Projections with their bias, norms, rotation, cache writes, scores and sums, output, residual; counted in the graphs
#: that llama.cpp 0.5.0 (0c1e570) builds (src/models/*.cpp), operations that are fused on GPUs counted once.
_MIXERS = {"attention": 13, "latent": 18, "state_space": 14, "linear": 24, "convolution": 9}
_DENSE, _UNGATED, _ROUTED, _SHARED = 5, 4, 12, 6
_PER_LAYER_EMBEDDING = 7


def layer_kernels(block: Block) -> tuple[float, float]:
    """Kernels of one layer of the block without its routed experts, and of its routed experts."""
    kernels = float(sum(_mixer(mixer) for mixer in block.mixers))
    forward = block.feed_forward
    routed = 0.0
    if forward is not None:
        if forward.width:
            kernels += _DENSE if forward.gated else _UNGATED
        if forward.experts:
            routed = _ROUTED
            kernels += _SHARED if forward.shared_width else 0
    norms = sum(tensor.role == "norm" for tensor in block.tensors)
    kernels += max(0, norms - 2) + (1 if any("rope" in t.part for t in block.tensors) else 0)
    if any(tensor.part.startswith("per_layer") for tensor in block.tensors):
        kernels += _PER_LAYER_EMBEDDING
    return kernels, routed


def _mixer(mixer: object) -> int:
    match mixer:
        case Attention():
            return _MIXERS["attention"]
        case LatentAttention():
            return _MIXERS["latent"]
        case StateSpace():
            return _MIXERS["state_space"]
        case LinearAttention():
            return _MIXERS["linear"]
        case ShortConvolution():
            return _MIXERS["convolution"]
    return 0
