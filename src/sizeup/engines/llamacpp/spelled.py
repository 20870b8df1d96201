"""Tensors that their checkpoint names tell alone: what a family has besides attention, feed-forward and norms.

Sources: the name tables in gguf-py/gguf/tensor_mapping.py and modify_tensors in conversion/{gemma,deepseek}.py,
llama.cpp 0.5.0 (0c1e570).
"""

from __future__ import annotations

_STREAMS = {f"hc_{half}_{part}": f"hc_{half}_{part}" for half in ("attn", "ffn") for part in ("fn", "base", "scale")}
_COMPRESSOR = {"ape": "ape", "norm": "norm", "wgate": "gate", "wkv": "kv"}

#: Words of a tensor inside a layer → stem; a stem that ends in `.scale` is the whole name.
INSIDE = {
    "per_layer_input_gate": "inp_gate", "per_layer_projection": "proj", "post_per_layer_input_norm": "post_norm",
    "layer_scalar": "layer_output_scale",
    "altup.correct_output_scale": "altup_correct_scale", "altup.correction_coefs": "altup_correct_coef",
    "altup.prediction_coefs": "altup_predict_coef", "altup.modality_router": "altup_router",
    "altup.router_norm": "altup_router_norm",
    "laurel.linear_left": "laurel_l", "laurel.linear_right": "laurel_r", "laurel.post_laurel_norm": "laurel_post_norm",
    "router.scale": "ffn_gate_inp.scale", "router.per_expert_scale": "ffn_down_exps.scale",
    "post_feedforward_layernorm_1": "post_ffw_norm_1", "post_feedforward_layernorm_2": "post_ffw_norm_2",
    "pre_feedforward_layernorm_2": "pre_ffw_norm_2",
    **_STREAMS,
    **{f"attn.compressor.{words}": f"attn_compressor_{part}" for words, part in _COMPRESSOR.items()},
    **{f"attn.indexer.compressor.{words}": f"indexer_compressor_{part}" for words, part in _COMPRESSOR.items()},
    "attn.wkv": "attn_kv", "ffn.gate.tid2eid": "ffn_gate_tid2eid",
}  # fmt: skip

#: The last words of a tensor outside the layers → stem.
OUTSIDE = (
    ("hc_head.hc_fn", "output_hc_fn"),
    ("hc_head.hc_base", "output_hc_base"),
    ("hc_head.hc_scale", "output_hc_scale"),
)

#: Keys and values of layers that read an earlier layer's cache: no class builds them, the file has them all the same.
UNUSED = {"self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.k_norm": "attn_k_norm"}

#: What a checkpoint stores beside its parameters and the file keeps: parts, and words.
KEPT_PARTS = frozenset({"router_correction", "router_table", "unused"})
KEPT_WORDS = frozenset({"layer_scalar"})

#: Architectures whose files have layers for multi-token prediction. DeepSeek-V4's are a file of their own.
PREDICTING = frozenset({
    "bailingmoe2", "bailingmoe3", "cohere2moe", "deepseek2", "deepseek32", "dots3note", "exaone-moe", "exaone4",
    "glm-dsa", "glm4", "glm4moe", "glm5-next", "hy_v3", "mimo2", "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe",
    "qwen3next", "step35",
})  # fmt: skip

_HEAD = frozenset({"nextn.embed_tokens", "nextn.shared_head_head", "nextn.shared_head_norm"})
_FEED_FORWARD = frozenset({
    "ffn_gate", "ffn_up", "ffn_down", "ffn_gate_inp", "ffn_down_exps", "ffn_gate_shexp", "ffn_up_shexp",
    "ffn_down_shexp",
})  # fmt: skip
#: What llama.cpp loads of those layers even when nothing predicts with them.
LOADED_ANYWAY = {
    "deepseek32": frozenset({"exp_probs_b"}),
    "glm-dsa": frozenset({"exp_probs_b"}),
    "cohere2moe": _HEAD,
    "hy_v3": _HEAD | _FEED_FORWARD,
    "step35": _HEAD | _FEED_FORWARD | {"attn_q_norm", "attn_k_norm", "attn_gate", "ffn_gate_exps", "ffn_up_exps",
                                       "exp_probs_b"},
}  # fmt: skip
