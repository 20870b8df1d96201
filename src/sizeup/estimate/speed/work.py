"""What one pass through a model asks of a device: bytes to read, values to unpack, FLOPs, kernels to start.

A pass computes some tokens of one or several sequences at once: one when decoding, a ubatch when reading a prompt.
"""

from __future__ import annotations

import msgspec

#: How weights are packed, for what it costs to unpack them:
#: `plain` 16 and 32 bit floats; `legacy` one scale a block of 32 (Q4_0, Q8_0); `k` scales of scales (Q4_K);
#: `codebook` values looked up in tables (IQ2_XS); `float4` 4 and 8 bit floats with block scales (MXFP4, NVFP4, FP8);
#: `integer` group-wise integers of GPU checkpoints (GPTQ, AWQ, MLX affine); `repacked` rearranged at load, so that a
#: processor's kernels take several rows at once (Q4_0, Q4_K on AVX2).
PACKINGS = ("plain", "legacy", "k", "codebook", "float4", "integer", "repacked")


class Work(msgspec.Struct, frozen=True):
    """One pass of `tokens` tokens on one device.

    weight_bytes: read once a pass; of routed experts those that the tokens choose between them; of a table only rows.
    values: weights unpacked, by packing, in the order of PACKINGS. matrix_flops: of the matrices, 2 a weight and token.
    attention_flops: scores and weighted sums over what is in the cache. cache_bytes: keys, values, states read.
    kernels: started one after the other. expert_bytes: the part of weight_bytes that routed experts are.
    layers: that the device computes. output: whether it computes the logits.
    """

    tokens: int
    weight_bytes: float
    values: tuple[float, ...]
    matrix_flops: float
    attention_flops: float
    cache_bytes: float
    kernels: float
    expert_bytes: float = 0.0
    layers: int = 0
    output: bool = False
