"""What a checkpoint's tensor is for, told from its name alone: for files whose architecture nobody has described.

A name is split into words at its dots. The rules are tried in order; the first that matches decides.
"""

from __future__ import annotations

#: Words that say which tower a tensor belongs to; projectors first, since some lie inside a tower's module.
_TOWERS = {
    "projector": {
        "multi_modal_projector", "mm_projector", "connector", "projector", "aligner", "embed_vision", "embed_audio",
        "mlp1", "resampler", "merger", "visual_projection", "audio_projector", "speech_projector",
    },
    "vision": {
        "vision_tower", "vision_model", "visual", "vision", "vision_encoder", "vit", "image_encoder", "img_processor",
        "vision_embed_tokens", "vpm", "sam_model", "image_newline", "patch_embed",
    },
    "audio": {"audio_tower", "audio_model", "audio_encoder", "speech_encoder", "audio", "apm"},
    "mtp": {"mtp", "mtp_layers", "nextn", "mtp_block"},
}  # fmt: skip

_BUFFER_ENDINGS = (
    "inv_freq", "position_ids", "masked_bias", "e_score_correction_bias", "expert_bias", "num_batches_tracked",
    "running_mean", "running_var", "rotary_emb.cos_cached", "rotary_emb.sin_cached", "token_type_ids", "causal_mask",
    "slope_rate", "diagonal_decay", "key_decay", "query_decay",
)  # fmt: skip
_INTEGERS = frozenset({"BOOL", "I16", "I32", "I64", "U16", "U32", "U64"})

#: (role, words of which one is in the name); order matters.
_ROLES = (
    ("shared_expert", ("shared_expert", "shared_experts", "shared_mlp", "shared_expert_gate")),
    ("router", ("router", "gate_inp", "wg")),
    ("routed_expert", ("experts", "expert", "local_experts", "input_linear", "output_linear")),
    ("head", ("lm_head", "embed_out", "output_layer", "score", "classifier", "pooler", "cls", "predictions")),
    (
        "embedding",
        (
            "embed_tokens", "wte", "wpe", "word_embeddings", "tok_embeddings", "embed_positions", "embeddings", "embed",
            "position_embeddings", "token_embedding", "shared", "embed_in", "embed_tokens_per_layer", "word_embedding",
        ),
    ),
    ("linear_attention", ("linear_attn", "delta_net", "time_mix", "att", "lightning_attn")),
    ("state_space", ("mamba", "mixer", "ssm", "short_conv", "conv")),
    (
        "attention",
        (
            "self_attn", "attn", "attention", "self_attention", "cross_attn", "encoder_attn", "crossattention",
            "SelfAttention", "EncDecAttention", "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "c_attn",
        ),
    ),
    (
        "mlp",
        (
            "mlp", "ffn", "feed_forward", "DenseReluDense", "fc1", "fc2", "ff", "mlp_block", "channel_mix", "gate_proj",
            "up_proj", "down_proj", "intermediate", "output", "w1", "w2", "w3", "block_sparse_moe", "dense",
        ),
    ),
)  # fmt: skip
#: Projections that tell what a `mixer` is (Nemotron-H calls every layer's inner module so).
_IN_MIXER = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj"), "attention"),
    **dict.fromkeys(("up_proj", "down_proj", "gate_proj", "fc1", "fc2"), "mlp"),
}
_NORM_WORDS = ("norm", "ln_", "ln1", "ln2", "layernorm", "layer_norm", "LayerNorm")

#: The last word → the part; words that aren't listed are their own part.
_PARTS = {
    **dict.fromkeys(("q_proj", "query", "wq", "q", "q_lin"), "q"),
    **dict.fromkeys(("k_proj", "key", "wk", "k", "k_lin"), "k"),
    **dict.fromkeys(("v_proj", "value", "wv", "v", "v_lin"), "v"),
    **dict.fromkeys(("o_proj", "out_proj", "wo", "o", "c_proj", "out_lin"), "o"),
    **dict.fromkeys(("qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv", "W_pack", "in_proj_qkv"), "qkv"),
    "q_a_proj": "q_a", "q_b_proj": "q_b", "kv_a_proj_with_mqa": "kv_a", "kv_b_proj": "kv_b",
    **dict.fromkeys(("gate_proj", "w1", "wi_0", "linear_v"), "gate"),
    **dict.fromkeys(("up_proj", "w3", "fc1", "c_fc", "dense_h_to_4h", "wi", "wi_1", "lin1", "fc_in"), "up"),
    **dict.fromkeys(("down_proj", "w2", "fc2", "dense_4h_to_h", "lin2", "fc_out"), "down"),
    **dict.fromkeys(("gate_up_proj", "input_linear"), "gate_up"),
    "output_linear": "down",
    "router_correction": "router_correction",
}  # fmt: skip
_LAYER_WORDS = frozenset(
    {"layers", "layer", "h", "blocks", "block", "resblocks", "encoder_layers", "decoder_layers", "stages", "blk"}
)  # fmt: skip


def split_layer(name: str) -> tuple[str, int | None]:
    """The template and the layer: `model.layers.3.mlp.up.weight` → (`model.layers.{layer}.mlp.up.weight`, 3)."""
    words = name.split(".")
    for place in range(1, len(words)):
        if words[place - 1] in _LAYER_WORDS and words[place].isdecimal() and len(words[place]) < 6:
            return ".".join([*words[:place], "{layer}", *words[place + 1 :]]), int(words[place])
    return name, None


def split_copy(name: str) -> tuple[str, int | None]:
    """The template and the expert's number: `….experts.17.up_proj.weight` → (`….experts.{copy}.up_proj.weight`, 17)."""
    if "expert" not in name:
        return name, None
    words = name.split(".")
    for place in range(1, len(words)):
        before = words[place - 1]
        if words[place].isdecimal() and "expert" in before and "shared" not in before and len(words[place]) < 8:
            return ".".join([*words[:place], "{copy}", *words[place + 1 :]]), int(words[place])
    return name, None


def stack_of(name: str, *, encoder_decoder: bool) -> str:
    """The stack a tensor belongs to: a tower, multi-token prediction, encoder or decoder, else text."""
    words = name.split(".")
    for stack, marks in _TOWERS.items():
        if not marks.isdisjoint(words):
            return stack
    if encoder_decoder:
        return "encoder" if "encoder" in words else "decoder" if "decoder" in words else "text"
    return "text"


def role_of(name: str, shape: tuple[int, ...], dtype: str, stack: str) -> tuple[str, str]:
    """(role, part) of a tensor that isn't a scale."""
    words = name.removesuffix(".weight").removesuffix(".bias").split(".")
    part = _part(words)
    if name.endswith(_BUFFER_ENDINGS) or dtype in _INTEGERS or (name.endswith("attn.bias") and len(shape) == 4):
        correction = name.endswith(("e_score_correction_bias", "expert_bias"))
        return "buffer", "router_correction" if correction else words[-1]
    if stack in {"vision", "audio", "projector"}:
        return stack, part
    if any(mark in words[-1] for mark in _NORM_WORDS):
        return "norm", words[-1]
    if words[-1] == "gate" and len(shape) == 2 and "experts" not in words:
        return "router", "router"
    if "mixer" in words and words[-2:-1] == ["mixer"] and words[-1] in _IN_MIXER:
        return _IN_MIXER[words[-1]], part
    for role, marks in _ROLES:
        if not set(marks).isdisjoint(words) or (role == "shared_expert" and words[-1].startswith("shared_expert")):
            return role, {"router": "router", "head": "head", "embedding": "tokens"}.get(role, part)
    return ("mlp", part) if len(shape) > 1 else ("norm", part)


def _part(words: list[str]) -> str:
    return _PARTS.get(words[-1], words[-1])
