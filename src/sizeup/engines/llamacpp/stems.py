"""Tables from what a tensor is to how llama.cpp calls it: `attn_q`, `ffn_down_exps`, `ssm_conv1d`.

Roles and parts decide; norms go by the last words of their checkpoint names. Sources: TENSOR_NAMES in
gguf-py/gguf/constants.py and the name tables in gguf-py/gguf/tensor_mapping.py, llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

from sizeup.engines.llamacpp.spelled import INSIDE, OUTSIDE, UNUSED
from sizeup.models.model import Block
from sizeup.models.tensors import Tensor

# ── outside the layers ────────────────────────────────────────────────────────────────────────────────────────

_OUTSIDE_PARTS = {
    "tokens": "token_embd", "positions": "position_embd", "types": "token_types", "token_types": "token_types",
    "head": "output", "per_layer_tokens": "per_layer_token_embd", "per_layer_proj": "per_layer_model_proj",
}  # fmt: skip
_OUTSIDE_WORDS = (
    ("token_type", "token_types"),
    ("position", "position_embd"),
    ("wpe", "position_embd"),
    ("per_layer_projection_norm", "per_layer_proj_norm"),
    ("per_layer_model_projection", "per_layer_model_proj"),
    ("embed_tokens_per_layer", "per_layer_token_embd"),
    ("altup_projections", "altup_proj"),
    ("altup_unembed_projections", "altup_unembd_proj"),
    ("embedding_norm", "token_embd_norm"),
    ("embeddings.LayerNorm", "token_embd_norm"),
    ("embeddings.layer_norm", "token_embd_norm"),
    ("embeddings.norm", "token_embd_norm"),
    ("embeddings_layernorm", "token_embd_norm"),
    ("word_embeddings_layernorm", "token_embd_norm"),
    ("emb_ln", "token_embd_norm"),
)

#: Poolers, classifiers and language-model heads of encoders.
_DROPPED = (
    "pooler",
    "classifier",
    "predictions",
    "seq_relationship",
    "vocab_",
    "head.norm",
    "lm_head.layer_norm",
    "lm_head.dense",
)


def stem_outside(tensor: Tensor, words: str, architecture: str) -> str:
    """The stem of a tensor outside the layers; empty for what the converter drops (poolers, classifiers)."""
    if any(word in words for word in _DROPPED):
        return ""
    if architecture == "t5" and tensor.role == "norm":
        return "output_norm"
    if spelled := next((stem for ending, stem in OUTSIDE if words.endswith(ending)), None):
        return spelled
    found = next((stem for word, stem in _OUTSIDE_WORDS if word in words), None)
    if tensor.role == "norm":
        return found or "output_norm"
    return (
        _OUTSIDE_PARTS.get(tensor.part)
        or found
        or {"embedding": "token_embd", "head": "output"}.get(tensor.role, words)
    )


#: Around a layer of multi-token prediction.
PREDICTION = {
    "eh_proj": "nextn.eh_proj", "fc": "nextn.eh_proj", "enorm": "nextn.enorm", "hnorm": "nextn.hnorm",
    "pre_fc_norm_embedding": "nextn.enorm", "pre_fc_norm_hidden": "nextn.hnorm", "norm": "nextn.shared_head_norm",
    "shared_head.norm": "nextn.shared_head_norm", "embed_tokens": "nextn.embed_tokens",
    "shared_head.head": "nextn.shared_head_head", "final_layernorm": "nextn.shared_head_norm",
    "full_attention.norm": "attn_norm", "moe.norm": "post_attention_norm",
}  # fmt: skip


# ── inside a layer ────────────────────────────────────────────────────────────────────────────────────────────

_ATTENTION = {
    "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "qkv": "attn_qkv", "gate": "attn_gate",
    "q_a": "attn_q_a", "q_b": "attn_q_b", "kv_a": "attn_kv_a_mqa", "kv_b": "attn_kv_b", "sinks": "attn_sinks",
    "relative_bias": "attn_rel_b", "index_q": "indexer.attn_q_b", "index_k": "indexer.attn_k",
    "index_weights": "indexer.proj", "o_a": "attn_output_a", "o_b": "attn_output_b", "kv": "attn_kv",
}  # fmt: skip
_CROSS = {"q": "cross_attn_q", "k": "cross_attn_k", "v": "cross_attn_v", "o": "cross_attn_o"}
_DENSE = {
    "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down", "gate_up": "ffn_up", "latent_down": "ffn_latent_down",
    "latent_up": "ffn_latent_up",
}  # fmt: skip
_STATE_SPACE = {
    "in": "ssm_in", "conv": "ssm_conv1d", "x": "ssm_x", "dt": "ssm_dt", "a": "ssm_a", "a_log": "ssm_a", "d": "ssm_d",
    "out": "ssm_out", "norm": "ssm_norm", "dt_norm": "ssm_dt_norm", "b_norm": "ssm_b_norm", "c_norm": "ssm_c_norm",
    "ba": "ssm_ba", "beta": "ssm_beta", "b": "ssm_beta", "alpha": "ssm_alpha", "qkv": "attn_qkv", "z": "attn_gate",
    "gate": "attn_gate", "decay_a": "ssm_f_a", "decay_b": "ssm_f_b", "gate_a": "ssm_g_a", "gate_b": "ssm_g_b",
    "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
}  # fmt: skip
_SHORT_CONVOLUTION = {"in": "shortconv.in_proj", "conv": "shortconv.conv", "out": "shortconv.out_proj"}

#: The last words of norms' names → stem.
_NORMS = (
    (("q_a_layernorm", "q_a_norm"), "attn_q_a_norm"),
    (("kv_a_layernorm", "kv_a_norm"), "attn_kv_a_norm"),
    (("q_norm", "q_layernorm", "query_layernorm", "q_ln"), "attn_q_norm"),
    (("k_norm", "k_layernorm", "key_layernorm", "k_ln"), "attn_k_norm"),
    (("post_feedforward_layernorm", "post_mlp_layernorm"), "post_ffw_norm"),
    (("pre_feedforward_layernorm", "pre_mlp_layernorm", "pre_ff_layernorm", "feedforward_layernorm", "ffn_norm",
      "mlp_norm", "final_layer_norm", "norm_2", "ln_2", "post_ln", "norm2", "mlp_layernorm"), "ffn_norm"),
    (("post_self_attn_layernorm",), "post_attention_norm"),
    (("attn_sub_norm",), "attn_sub_norm"),
    (("ffn_sub_norm",), "ffn_sub_norm"),
    (("attention.output.LayerNorm", "sa_layer_norm", "attention.output.layernorm", "norm1_post"), "attn_output_norm"),
    (("output.LayerNorm", "output_layer_norm"), "layer_output_norm"),
    (("input_layernorm", "attention_layernorm", "attention_norm", "attn_norm", "ln_1", "norm_1", "norm1",
      "operator_norm", "layer_norm", "input_norm", "ln_mlp"), "attn_norm"),
    (("ln_attn",), "attn_norm_2"),
)  # fmt: skip
_AFTER = ("post_feedforward_layernorm", "pre_feedforward_layernorm", "pre_mlp_layernorm")
#: Encoders with norms after each half call them so.
_POST_NORMS = {"attn_norm": "attn_output_norm", "ffn_norm": "layer_output_norm"}
_POST_NORM_ENCODERS = frozenset({"nomic-bert", "nomic-bert-moe", "jina-bert-v3"})
#: Norms inside a mixer with a state: `mixer.norm`, `mamba.dt_layernorm`.
_STATE_NORMS = {
    "norm": "ssm_norm", "o_norm": "ssm_norm", "dt_layernorm": "ssm_dt_norm", "b_layernorm": "ssm_b_norm",
    "c_layernorm": "ssm_c_norm",
}  # fmt: skip
#: Architectures that call the norm before the feed-forward after the attention that it follows.
_FORWARD_NORM_NAMED_AFTER_ATTENTION = frozenset(
    {"qwen3next", "qwen35", "qwen35moe", "seed_oss", "glm4moe", "gpt-oss", "nemotron_h_moe"}
)
#: T5 numbers the halves of its layers: self-attention, then (decoder only) cross-attention, then feed-forward.
_T5_NORMS = {"layer.0.layer_norm": "attn_norm", "layer.1.layer_norm": "ffn_norm"}
_T5_DECODER_NORMS = {**_T5_NORMS, "layer.1.layer_norm": "cross_attn_norm", "layer.2.layer_norm": "ffn_norm"}


def stem_inside(tensor: Tensor, words: str, block: Block, architecture: str) -> str:
    """The stem of a tensor inside a layer, by role and part; the checkpoint's own words when no rule knows it.

    Empty for what the converter drops.
    """
    part = tensor.part
    if words in INSIDE:
        return INSIDE[words]
    if part == "unused":
        return UNUSED.get(words, "")
    if part == "router_correction":
        return "exp_probs_b"
    match tensor.role:
        case "norm":
            return _norm(words, part, block, architecture)
        case "attention":
            if architecture.startswith("t5") and part == "o" and "SelfAttention" in words:
                return "attn_o"
            if architecture == "minimax-m3" and part in {"index_q", "index_k"}:
                return f"indexer.{part[-1]}_proj"
            cross = any(word in words for word in ("EncDec", "crossattention", "cross_attn", "encoder_attn"))
            return (_CROSS if cross else _ATTENTION).get(part, words)
        case "mlp":
            return "" if part == "activation" else _DENSE.get(part, words)
        case "routed_expert":
            if part == "gate_up":
                return "ffn_gate_up_exps"
            return f"{_DENSE[part]}_exps" if part in _DENSE else words
        case "shared_expert":
            return _shared(part, words, block)
        case "router":
            return "ffn_gate_inp"
        case "state_space" | "linear_attention":
            return _recurrent(part, words, architecture)
    return words


def _recurrent(part: str, words: str, architecture: str) -> str:
    if architecture.startswith("lfm2"):
        return _SHORT_CONVOLUTION.get(part, words)
    if part == "out" and words.startswith("self_attn."):
        return "attn_output"
    if part == "conv" and words.endswith(("q_conv1d", "k_conv1d", "v_conv1d")):
        return f"ssm_conv1d_{words[-len('q_conv1d')]}"
    return _STATE_SPACE.get(part, words)


def _shared(part: str, words: str, block: Block) -> str:
    if part == "shared_gate":
        return "ffn_gate_inp_shexp"
    if part not in _DENSE:
        return words
    alone = not (block.feed_forward and block.feed_forward.experts)
    return _DENSE[part] if alone else f"{_DENSE[part]}_shexp"


def _norm(words: str, part: str, block: Block, architecture: str) -> str:
    if "index" in words:
        return f"indexer.{'q' if words.endswith('q_norm') else 'k'}_norm"
    if part in {"q_norm", "k_norm", "q_a_norm", "kv_a_norm"}:
        return f"attn_{part}"
    if architecture.startswith("t5"):
        return (_T5_DECODER_NORMS if block.stack == "decoder" else _T5_NORMS).get(words, words)
    if words.endswith("post_attention_layernorm"):
        after = any(word in tensor.name for tensor in block.tensors for word in _AFTER)
        named = after or architecture in _FORWARD_NORM_NAMED_AFTER_ATTENTION
        return "post_attention_norm" if named else "ffn_norm"
    if architecture == "dbrx" and words.endswith("norm_2"):
        return "attn_output_norm"
    if "." in words and words.rpartition(".")[2] in _STATE_NORMS:
        return "attn_norm_2" if architecture == "minimax-01" else _STATE_NORMS[words.rpartition(".")[2]]
    for endings, stem in _NORMS:
        if words.endswith(endings):
            return _POST_NORMS.get(stem, stem) if architecture in _POST_NORM_ENCODERS else stem
    return "attn_norm" if words in {"norm", "ln"} else words.replace(".", "_").removesuffix("_norm") + "_norm"
