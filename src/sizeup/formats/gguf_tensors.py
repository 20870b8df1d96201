"""The tensors of a GGUF file as llama.cpp's quantizer sees them: kind, order, and what it never quantizes.

Source: src/llama-quant.cpp, src/llama-model-loader.h and conversion/base.py, llama.cpp 0c1e570 (October 2026).
"""

from __future__ import annotations

import msgspec

from sizeup.formats.storage import Shape


class GgufTensor(msgspec.Struct, frozen=True):
    """A tensor of a GGUF file.

    name: as in the file, `blk.3.ffn_down.weight`.
    shape: row-major, `(out, in)`, or `(experts, out, in)` for merged experts; GGUF headers list it reversed.
    stored: its type before quantization when that is known (from a header); otherwise what the converter writes.
    """

    name: str
    shape: Shape
    stored: str = ""

    @property
    def layer(self) -> int:
        """The layer number in `blk.N.`, or -1 outside the layers."""
        parts = self.name.split(".", 2)
        numbered = len(parts) == 3 and parts[0] == "blk" and parts[1].isdecimal() and len(parts[1]) < 10
        return int(parts[1]) if numbered else -1

    @property
    def row(self) -> int:
        """Values in a row: ne[0]."""
        return self.shape[-1] if self.shape else 1

    @property
    def dimensions(self) -> int:
        """GGML's count of dimensions, which ignores leading ones: (1, 2048) has one."""
        return max(1, len(self.shape) - next((i for i, extent in enumerate(self.shape) if extent != 1), 0))

    @property
    def order(self) -> tuple[int, str]:
        """The quantizer's order: tensors outside the layers first, then layer by layer, each by name."""
        return self.layer, self.name

    @property
    def inner(self) -> str:
        """The name without `blk.N.`: the same for a tensor of every layer."""
        return self.name.split(".", 2)[2] if self.layer >= 0 else self.name


# Which part of a name tells the tensor's kind; the first match counts.
_KINDS = (
    ("attn_qkv.weight", "attention_v"),
    ("attn_kv_b.weight", "attention_v"),
    ("attn_v.weight", "attention_v"),
    ("attn_k.weight", "attention_k"),
    ("attn_q.weight", "attention_q"),
    ("attn_output.weight", "attention_output"),
    ("ffn_up", "ffn_up"),
    ("ffn_gate", "ffn_gate"),
    ("ffn_down", "ffn_down"),
)


def kind_of(name: str) -> str:
    """The quantizer's category of a tensor. A fused QKV and MLA's KV up-projection count as `attention_v`."""
    if name == "output.weight":
        return "output"
    if name in {"token_embd.weight", "per_layer_token_embd.weight"}:
        return "embedding"
    return next((kind for part, kind in _KINDS if part in name), "other")


# A tensor with one of these in its name keeps the type it has.
_KEPT = (
    "_norm.weight",
    "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight",  # routers
    "altup", "laurel", "per_layer_model_proj",  # gemma3n's small ones
    "ssm_conv1d", "shortconv.conv.weight",
    "indexer.k_proj.weight", "indexer.q_proj.weight",
    "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight",  # RWKV
    "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight",
    "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
    "time_mix_g1.weight", "time_mix_g2.weight",
    "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",  # T5's relative positions
    ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger",  # vision
    "a.rvq.codebook", "mm.a.code_embd",  # audio
)  # fmt: skip
_KEPT_NAMES = frozenset({"position_embd.weight", "token_types.weight"})
_KEPT_BY_ARCHITECTURE = {
    "glm5-next": (
        "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate",
        "indexer_compressor_ape", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight",
        "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight",
    ),
}  # fmt: skip

# Tensors that these architectures never store below eight bits.
_EIGHT_BITS_BY_ARCHITECTURE = {"glm5-next": ("attn_q_a", "attn_q_b", "nextn.eh_proj")}


def at_least_q8(name: str, architecture: str) -> bool:
    """Whether the quantizer stores this tensor as Q8_0 whatever the mix."""
    return any(part in name for part in _EIGHT_BITS_BY_ARCHITECTURE.get(architecture, ()))


def may_quantize(tensor: GgufTensor, architecture: str = "") -> bool:
    """Whether the quantizer touches this tensor: matrices named `…weight`, less norms, routers and small ones."""
    name = tensor.name
    kept = (*_KEPT, *_KEPT_BY_ARCHITECTURE.get(architecture, ()))
    return (
        tensor.dimensions >= 2
        and name.endswith("weight")
        and name not in _KEPT_NAMES
        and not any(part in name for part in kept)
    )


# Matrices that the converter writes in single precision whatever the output type.
_SINGLE = frozenset({
    "ffn_gate_inp", "ffn_gate_inp_shexp", "position_embd", "token_types", "ssm_conv1d", "ssm_conv1d_q", "ssm_conv1d_k",
    "ssm_conv1d_v", "shortconv.conv", "time_mix_first", "time_mix_w1", "time_mix_w2", "time_mix_decay_w1",
    "time_mix_decay_w2", "time_mix_lerp_fused", "altup_correct_coef", "altup_predict_coef", "indexer.proj",
})  # fmt: skip


def converted_type(tensor: GgufTensor, output_type: str = "BF16") -> str:
    """The type that convert_hf_to_gguf.py gives a tensor for `--outtype` f32, f16 or bf16.

    Vectors, norms, routers, positions and convolutions stay F32. A few architectures force more tensors; those carry
    their type in `stored` when they come from a header.
    """
    if tensor.stored:
        return tensor.stored
    name = tensor.name
    if len(tensor.shape) <= 1 or not name.endswith(".weight") or name.endswith("_norm.weight"):
        return "F32"
    return "F32" if tensor.inner.removesuffix(".weight") in _SINGLE else output_type
