"""Small models of many families: every size differs from every other, so that a swapped dimension shows."""

from __future__ import annotations

from typing import Any

BASE = {
    "hidden_size": 96, "intermediate_size": 224, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip
LATENT = {
    "q_lora_rank": 40, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 20,
    "num_key_value_heads": 6,
}  # fmt: skip
DEEPSEEK = BASE | LATENT | {
    "moe_intermediate_size": 48, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
MOE = {"moe_intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 2}

#: model type → what differs from the class's defaults. `class` names the class when the causal mapping has none;
#: `also` are fields that published configurations of the family carry and the converter reads.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": BASE,
    "mistral": BASE | {"sliding_window": None, "head_dim": 16},
    "mixtral": BASE | {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "qwen2": BASE,
    "qwen2_moe": BASE | MOE | {"shared_expert_intermediate_size": 80, "mlp_only_layers": [], "decoder_sparse_step": 1},
    "qwen3": BASE | {"head_dim": 24},
    "qwen3_moe": BASE | MOE | {"head_dim": 24},
    "qwen3_next": BASE | MOE | {
        "head_dim": 24, "shared_expert_intermediate_size": 80, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4,
    },
    "gemma": BASE | {"head_dim": 24},
    "gemma2": BASE | {"head_dim": 24, "sliding_window": 64},
    "gemma3_text": BASE | {"head_dim": 24, "sliding_window": 64, "num_hidden_layers": 8},
    "phi3": BASE | {"sliding_window": None, "original_max_position_embeddings": 512},
    "phimoe": BASE | {"num_local_experts": 4, "num_experts_per_tok": 2, "original_max_position_embeddings": 512, "also": {"architectures": ["PhiMoEForCausalLM"]}},
    "deepseek_v2": DEEPSEEK,
    "deepseek_v3": DEEPSEEK,
    "gpt_oss": BASE | {"head_dim": 24, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 64},
    "gpt2": {"n_embd": 96, "n_layer": 4, "n_head": 6, "vocab_size": 320, "n_positions": 256, "also": {"n_ctx": 256}},
    "gpt_neox": BASE | {"num_key_value_heads": 6, "also": {"rotary_pct": 0.25}},
    "falcon": BASE | {
        "multi_query": True, "new_decoder_architecture": False, "parallel_attn": True, "bias": False,
        "num_kv_heads": 1, "also": {"num_kv_heads": 1},
    },
    "bloom": {"hidden_size": 96, "n_layer": 4, "n_head": 6, "vocab_size": 320},
    "starcoder2": BASE,
    "gpt_bigcode": {"n_embd": 96, "n_layer": 4, "n_head": 6, "vocab_size": 320, "n_positions": 256, "n_inner": 224},
    "cohere": BASE,
    "cohere2": BASE | {"sliding_window": 64, "num_hidden_layers": 8, "head_dim": 16, "also": {"rotary_pct": 1}},
    "olmo": BASE,
    "olmo2": BASE,
    "olmo3": BASE | {"sliding_window": 64},
    "olmoe": BASE | {"num_experts": 8, "num_experts_per_tok": 2},
    "stablelm": BASE,
    "phi": BASE | {"num_key_value_heads": 6},
    "granite": BASE,
    "granitemoe": BASE | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "smollm3": BASE,
    "glm4": BASE | {"head_dim": 24},
    "glm4_moe": BASE | MOE | {
        "n_routed_experts": 8, "n_shared_experts": 1, "first_k_dense_replace": 1, "head_dim": 24, "n_group": 1,
        "topk_group": 1, "use_qk_norm": True, "num_nextn_predict_layers": 0,
    },
    "exaone4": BASE | {"sliding_window": None, "layer_types": ["full_attention"] * 4},
    "ernie4_5": BASE | {"head_dim": 24},
    "seed_oss": BASE | {"head_dim": 24},
    "apertus": BASE,
    "arcee": BASE,
    "nemotron": BASE | {"head_dim": 16},
    "hunyuan_v1_dense": BASE | {"head_dim": 24},
    "mamba": {"hidden_size": 96, "num_hidden_layers": 4, "vocab_size": 320, "state_size": 16, "intermediate_size": 192},
    "mamba2": {
        "hidden_size": 96, "num_hidden_layers": 4, "vocab_size": 320, "state_size": 16, "num_heads": 12, "head_dim": 16,
        "n_groups": 2, "expand": 2,
    },
    "falcon_h1": BASE | {
        "head_dim": 16, "mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1,
        "mamba_d_state": 32, "mamba_chunk_size": 64,
    },
    "jamba": BASE | {
        "num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 16, "mamba_dt_rank": 6, "num_hidden_layers": 8,
        "attn_layer_period": 4, "attn_layer_offset": 2,
    },
    "granitemoehybrid": BASE | {
        "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 80, "mamba_n_heads": 12,
        "mamba_d_head": 16, "mamba_d_state": 32, "layer_types": ["mamba", "mamba", "attention", "mamba"],
    },
    "nemotron_h": BASE | {
        "head_dim": 24, "mamba_num_heads": 12, "mamba_head_dim": 16, "ssm_state_size": 32, "n_groups": 2,
        "layers_block_type": ["mamba", "mlp", "attention", "mlp"], "num_nextn_predict_layers": 0,
    },
    "lfm2": BASE | {"layer_types": ["conv", "full_attention", "conv", "conv"], "block_auto_adjust_ff_dim": False},
    "dbrx": {
        "d_model": 96, "n_heads": 6, "n_layers": 3, "max_seq_len": 256, "vocab_size": 320,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 500000.0},
        "ffn_config": {"ffn_hidden_size": 112, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "minimax": BASE | {
        "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16,
        "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
    },
    "t5": {
        "class": "T5ForConditionalGeneration", "d_model": 96, "d_kv": 16, "d_ff": 224, "num_layers": 4, "num_heads": 6, "vocab_size": 320, "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
    },
    "gemma3": {
        "class": "Gemma3ForConditionalGeneration",
        "text_config": BASE | {"head_dim": 24, "sliding_window": 64, "num_hidden_layers": 8},
        "vision_config": {
            "hidden_size": 48, "intermediate_size": 112, "num_hidden_layers": 3, "num_attention_heads": 4,
            "image_size": 56, "patch_size": 14,
        },
        "mm_tokens_per_image": 4,
    },
    "qwen2_vl": {
        "class": "Qwen2VLForConditionalGeneration", "mmproj": True,
        "text_config": BASE | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        "vision_config": {"depth": 3, "embed_dim": 64, "hidden_size": 96, "num_heads": 4, "mlp_ratio": 4},
    },
    "bert": {"class": "BertModel"} | {key: value for key, value in BASE.items() if key != "num_key_value_heads"},
    "modernbert": {"class": "ModernBertModel"} | BASE | {"num_key_value_heads": 6, "local_attention": 64, "num_hidden_layers": 6},
}  # fmt: skip
