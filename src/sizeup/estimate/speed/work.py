"""What one pass through a model asks of a device: bytes to read, values to unpack, FLOPs, kernels to start.

A pass computes some tokens of one or several sequences at once: one when decoding, a ubatch when reading a prompt.
"""

from __future__ import annotations

import msgspec

#: How weights are packed, for what it costs to unpack them. The names of GGML's types stand for themselves:
#: `plain` F16, `legacy` Q4_0 to Q5_1 (one scale a block of 32), `codebook` IQ1 to IQ3 and ternary (looked up in
#: tables); `float4` 4 and 8 bit floats with block scales (MXFP4, NVFP4, FP8); `integer` group-wise integers of GPU
#: checkpoints (GPTQ, AWQ, MLX affine); `r_…` rearranged at load, so that a processor's kernels take several rows at
#: once (ggml-cpu/repack.cpp).
PACKINGS = (
    "plain", "bf16", "f32", "q8_0", "legacy", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4", "codebook", "float4",
    "integer", "r_legacy", "r_q2_k", "r_q4_k", "r_k", "r_iq4", "r_float4",
)  # fmt: skip
#: Packings that GPUs unpack at about the same cost: the fit has one parameter for each of these.
FAMILIES = {
    "bf16": "plain", "f32": "plain", "q8_0": "legacy", "q2_k": "k", "q3_k": "k", "q4_k": "k", "q5_k": "k", "q6_k": "k",
    "iq4": "codebook", "r_legacy": "legacy", "r_q2_k": "k", "r_q4_k": "k", "r_k": "k", "r_iq4": "codebook",
    "r_float4": "float4",
}  # fmt: skip


def family(packing: str) -> str:
    """The packing that stands for this one on GPUs."""
    return FAMILIES.get(packing, packing)


class Work(msgspec.Struct, frozen=True):
    """One pass of `tokens` tokens on one device.

    weight_bytes: read once a pass; of routed experts those that the tokens choose between them; of a table only rows.
    values: weights unpacked, by packing, in the order of PACKINGS. flops, expert_flops: of the matrices, 2 a weight and
    token, by packing; of routed experts apart. expert_rows: tokens that a chosen expert computes, in the mean.
    attention_flops: scores and weighted sums over what is in the cache. cache_bytes: keys, values, states read.
    activations: values that go into matrices and come out of them. kernels: started one after the other.
    expert_bytes: the part of weight_bytes that routed experts are. layers: that the device computes. output: whether it
    computes the logits. queries: tokens of each sequence. scattered: reads of keys and values that lie far apart
    (`Reach.scatter`).
    """

    tokens: int
    weight_bytes: float
    values: tuple[float, ...]
    flops: tuple[float, ...]
    expert_flops: tuple[float, ...]
    expert_rows: float
    attention_flops: float
    cache_bytes: float
    activations: float
    kernels: float
    expert_bytes: float = 0.0
    layers: int = 0
    output: bool = False
    queries: int = 1
    scattered: float = 0.0

    @property
    def matrix_flops(self) -> float:
        """Of all matrices."""
        return sum(self.flops) + sum(self.expert_flops)
