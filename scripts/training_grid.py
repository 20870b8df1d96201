"""Simulate training steps of small models over a grid, and write what the estimate is held to in CI.

Run with the Python of an environment with torch, transformers and peft:

    python scripts/training_grid.py tests/data/training_grid [ARCHITECTURE … | sharded]

Every architecture × setting below: a case takes about a second. Small models show small mistakes: a forgotten mask or
table is a larger share of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from sizeup.workers.training_simulate import simulated

COMMON = {
    "vocab_size": 4096, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "max_position_embeddings": 2048, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 8, "num_local_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 384}
LATENT = {
    "q_lora_rank": 256, "kv_lora_rank": 128, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64,
    "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 384,
    "first_k_dense_replace": 1, "num_key_value_heads": 8, "n_shared_experts": 1,
}  # fmt: skip
#: Model type → what differs from COMMON; None removes a field.
ARCHITECTURES: dict[str, dict] = {
    "llama": {}, "mistral": {"sliding_window": 256}, "qwen2": {}, "qwen3": {"head_dim": 64}, "granite": {},
    "gemma": {"head_dim": 64}, "gemma2": {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 256},
    "gemma3_text": {"head_dim": 64, "sliding_window": 256}, "phi3": {"sliding_window": None}, "olmo2": {},
    "cohere": {}, "stablelm": {}, "starcoder2": {"sliding_window": None}, "gpt_neox": {"num_key_value_heads": None},
    "phi": {"num_key_value_heads": 8}, "nemotron": {}, "glm4": {"head_dim": 64},
    "opt": {"num_key_value_heads": None, "ffn_dim": 1376, "word_embed_proj_dim": 512},
    "gpt2": {"num_key_value_heads": None, "intermediate_size": None, "n_inner": 1376},
    "mixtral": EXPERTS | {"sliding_window": None}, "qwen3_moe": EXPERTS | {"head_dim": 64},
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 768}, "deepseek_v3": LATENT,
    "t5": {
        "num_key_value_heads": None, "hidden_size": None, "intermediate_size": None, "num_attention_heads": None,
        "num_hidden_layers": None, "d_model": 512, "d_kv": 64, "d_ff": 1376, "num_layers": 4, "num_heads": 8,
        "decoder_start_token_id": 0,
    },
}  # fmt: skip
SMALL_EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 384}
#: Families whose sizes have other names; the rest of COMMON is removed.
OLD = dict.fromkeys(("num_key_value_heads", "intermediate_size"))
NAMED = dict.fromkeys((*OLD, "hidden_size", "num_hidden_layers", "num_attention_heads"))
FAIRSEQ = NAMED | {"d_model": 512, "ffn_dim": 1376, "num_layers": 4, "attention_heads": 8}
INDEX = {"index_n_heads": 8, "index_head_dim": 64, "index_topk": 128}
GEMMA4 = {
    "model_type": "gemma4_text",
    "num_hidden_layers": 6,
    "head_dim": 64,
    "global_head_dim": 128,
    "sliding_window": 256,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
}
#: Judged by fewer settings.
MORE: dict[str, dict] = {
    "gpt_oss": SMALL_EXPERTS | {"head_dim": 64, "sliding_window": 256}, "falcon": OLD, "bloom": OLD,
    "gptj": OLD | {"rotary_dim": 32},
    "codegen": OLD | {"rotary_dim": 32}, "gpt_bigcode": OLD, "persimmon": {"num_key_value_heads": None},
    "xglm": FAIRSEQ,
    "gpt_neo": OLD | {
        "num_hidden_layers": None, "num_layers": 4, "num_attention_heads": None, "num_heads": 8,
        "attention_types": [[["global", "local"], 2]],
    },
    "mpt": NAMED | {"d_model": 512, "n_layers": 4, "n_heads": 8, "max_seq_len": 2048},
    "biogpt": {"num_key_value_heads": None},
    "olmo": {}, "olmo3": {"sliding_window": 256}, "olmoe": EXPERTS | {"intermediate_size": 384},
    "exaone4": {"sliding_window": 256},
    "smollm3": {}, "seed_oss": {"head_dim": 64}, "helium": {"head_dim": 64}, "ernie4_5": {"head_dim": 64},
    "cohere2": {"sliding_window": 256}, "arcee": {}, "apertus": {}, "bitnet": {}, "jais2": {}, "nanochat": {},
    "cwm": {"head_dim": 64},
    "hyperclovax": {}, "granitemoe": SMALL_EXPERTS,
    "granitemoeshared": SMALL_EXPERTS | {"shared_intermediate_size": 384},
    "flex_olmo": EXPERTS | {"intermediate_size": 384}, "glm4_moe": EXPERTS | {"n_routed_experts": 8, "head_dim": 64},
    "phimoe": SMALL_EXPERTS, "hunyuan_v1_moe": {"num_experts": 8, "moe_topk": 2, "head_dim": 64},
    "ernie4_5_moe": {"moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 384, "head_dim": 64},
    "aria_text": {"moe_num_experts": 8, "moe_topk": 2, "intermediate_size": 384}, "vaultgemma": {"head_dim": 64},
    "minicpm3": {key: LATENT[key] for key in LATENT if key.endswith(("dim", "rank"))} | {"num_key_value_heads": 8},
    "llama4_text": SMALL_EXPERTS | {"num_experts_per_tok": 1, "intermediate_size_mlp": 1376, "head_dim": 64},
    "gemma4_text": GEMMA4 | {
        "num_key_value_heads": 1, "hidden_size_per_layer_input": 64, "vocab_size_per_layer_input": 4096,
        "num_kv_shared_layers": 3, "use_double_wide_mlp": True, "final_logit_softcapping": 30.0,
    },
    "gemma4 experts": GEMMA4 | {
        "hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 2,
        "enable_moe_block": True, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 384,
    },
    "deepseek_v32": LATENT | INDEX,
    "glm_moe_dsa": LATENT | INDEX | {"index_topk_freq": 2, "index_skip_topk_offset": 2},
    "bert": {"num_key_value_heads": None}, "roberta": {"num_key_value_heads": None, "pad_token_id": 1},
    "electra": {"num_key_value_heads": None, "embedding_size": 256},
    "distilbert": {
        "num_key_value_heads": None, "hidden_size": None, "intermediate_size": None, "num_hidden_layers": None,
        "num_attention_heads": None, "dim": 512, "hidden_dim": 1376, "n_layers": 4, "n_heads": 8,
    },
}  # fmt: skip
FEW = ("bf16", "autocast checkpointed", "fp32", "lora", "eager")
ALONE = dict.fromkeys((*OLD, "num_attention_heads", "max_position_embeddings"))
MAMBA2 = {
    "mamba_n_heads": 16, "mamba_d_head": 64, "mamba_d_state": 48, "mamba_n_groups": 2, "mamba_chunk_size": 128,
}  # fmt: skip
BLOCKS = ["linear_attention", "hybrid", "linear_attention", "hybrid", "hybrid"]
#: Models that scan. Those that scan token by token run few tokens: their simulation takes a second for a hundred.
SCANS: dict[str, dict] = {
    "mamba": ALONE | {"num_hidden_layers": 2}, "falcon_mamba": ALONE | {"num_hidden_layers": 2},
    "jamba": {"num_experts": 8, "num_experts_per_tok": 2, "attn_layer_period": 4, "attn_layer_offset": 2},
    "zamba": {
        "num_hidden_layers": 5, "n_mamba_heads": 2, "num_key_value_heads": 8, "layers_block_type": BLOCKS,
    },
    "mamba2": ALONE | {"num_heads": 16, "head_dim": 64, "state_size": 48, "n_groups": 2, "chunk_size": 128},
    "falcon_h1": MAMBA2 | {"mamba_d_ssm": 1024}, "bamba": MAMBA2 | {"attn_layer_indices": [1]},
    "granitemoehybrid": SMALL_EXPERTS | MAMBA2 | {
        "shared_intermediate_size": 768, "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "zamba2": {
        "num_hidden_layers": 5, "n_mamba_heads": 16, "num_key_value_heads": 8, "mamba_d_state": 48, "mamba_ngroups": 2,
        "chunk_size": 128, "layers_block_type": BLOCKS, "num_mem_blocks": 2, "adapter_rank": 64,
        "use_shared_attention_adapter": True, "use_mem_rope": True,
    },
    "nemotron_h": {
        "num_hidden_layers": None, "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
        "mamba_num_heads": 16, "mamba_head_dim": 64, "ssm_state_size": 48, "n_groups": 2, "chunk_size": 128,
        "head_dim": 64, "n_routed_experts": 8, "moe_intermediate_size": 384, "num_experts_per_tok": 2,
        "moe_shared_expert_intermediate_size": 768,
    },
}  # fmt: skip
#: Hybrids of attention and linear attention; few words, so that the head isn't what decides.
DELTA = {
    "vocab_size": 512, "head_dim": 64, "linear_num_key_heads": 4, "linear_num_value_heads": 8,
    "linear_key_head_dim": 32, "linear_value_head_dim": 64,
}  # fmt: skip
EVEN = {"linear_num_key_heads": 6, "linear_num_value_heads": 6, "linear_key_head_dim": 48, "linear_value_head_dim": 40}
GATED_EXPERTS = EXPERTS | {"shared_expert_intermediate_size": 256, "num_local_experts": None}
CONVOLUTIONS = {"vocab_size": 512, "layer_types": ["conv", "full_attention", "conv", "conv"]}
LINEAR: dict[str, dict] = {
    "qwen3_5_text": DELTA, "qwen3_5_moe_text": DELTA | GATED_EXPERTS, "qwen3_next": DELTA | GATED_EXPERTS,
    "qwen3_next even": DELTA | GATED_EXPERTS | EVEN | {"model_type": "qwen3_next", "mlp_only_layers": [1]},
    "olmo_hybrid": DELTA, "lfm2": CONVOLUTIONS,
    "lfm2_moe": CONVOLUTIONS | EXPERTS | {"num_local_experts": None, "num_dense_layers": 1},
    "lfm3": {"vocab_size": 512, "num_hidden_layers": 6, "head_dim": 64, "sliding_window": 128},
    "kimi_linear": {
        "vocab_size": 512, "kv_lora_rank": 128, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64,
        "num_key_value_heads": 8, "num_experts": 8, "num_experts_per_token": 2, "moe_intermediate_size": 384,
        "linear_num_heads": 8, "linear_head_dim": 32, "max_position_embeddings": None,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"], "num_hidden_layers": 3,
    },
    "bailing_hybrid": {
        "vocab_size": 512, "kv_lora_rank": 128, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64,
        "num_key_value_heads": 8, "num_experts": 8, "num_experts_per_token": 2, "moe_intermediate_size": 384,
        "head_dim": 32, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "max_position_embeddings": None,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"], "num_hidden_layers": 3,
    },
    "rwkv": {
        "vocab_size": 512, "num_hidden_layers": 3, "attention_hidden_size": 640, "max_position_embeddings": None,
        "num_attention_heads": None, "num_key_value_heads": None,
    },
    "recurrent_gemma": {
        "vocab_size": 512, "num_hidden_layers": 3, "num_key_value_heads": 1, "lru_width": 640,
        "attention_window_size": 32, "max_position_embeddings": None,
    },
    "minimax": SMALL_EXPERTS | {"vocab_size": 512, "head_dim": 64, "block_size": 64},
}  # fmt: skip
BY_TOKEN = ("mamba", "falcon_mamba", "jamba", "zamba", "recurrent_gemma", "rwkv")
AUTOCAST = "bf16-autocast-fp32-weights"
#: What each case sets; the rest is the default.
SETTINGS: dict[str, dict] = {
    "bf16": {}, "bf16 checkpointed": {"checkpointing": "full"}, "autocast": {"precision": AUTOCAST},
    "autocast checkpointed": {"precision": AUTOCAST, "checkpointing": "full"}, "fp32": {"precision": "fp32"},
    "long": {"batch": 1, "sequence": 1536}, "wide": {"batch": 8, "sequence": 128, "optimizer": "adamw_foreach"},
    "lora": {"method": "lora", "lora_rank": 16}, "eager": {"attention": "eager"}, "padded": {"padding": True},
    "lora checkpointed": {"method": "lora", "lora_rank": 8, "checkpointing": "full"},
    "accumulating": {"accumulating": True, "gradient_clip": True}, "outputs kept": {"keeps_outputs": True},
    "adafactor": {"optimizer": "adafactor", "batch": 1, "sequence": 128},
    "adam8bit": {"optimizer": "adam8bit", "batch": 1, "sequence": 128},
    "sgd": {"optimizer": "sgd_momentum", "precision": AUTOCAST, "batch": 1, "sequence": 256},
}  # fmt: skip
DEFAULT = {
    "method": "full", "precision": "bf16", "optimizer": "adamw_fused", "batch": 2, "sequence": 512,
    "checkpointing": "none", "attention": "sdpa", "lora_rank": 16, "lora_targets": [], "lora_dropout": 0.0,
    "adapter_precision": "fp32", "double_quantization": True, "padding": False, "accumulating": False,
    "keeps_outputs": False, "gradient_clip": False, "sharding": "none", "data_parallel": 1,
    "reshard": True, "bucket_views": False, "tensor_parallel": 1, "offload_activations": False, "loss": "standard",
    "objective": "causal", "images": 0,
}  # fmt: skip


DDP = {"sharding": "ddp"}
ONLY_TENSOR = {"sharding": "none", "data_parallel": 1, "tensor_parallel": 4}
#: One rank of eight under FSDP2, or as the case says: architecture, and what the case sets.
SHARDED: list[tuple[str, dict]] = [
    ("llama", {}), ("llama", {"precision": "fp32"}), ("llama", {"precision": AUTOCAST}), ("llama", {"reshard": False}),
    ("llama", {"precision": "fp32", "checkpointing": "full"}), ("llama", {"method": "lora"}),
    ("qwen3", {"precision": "fp32", "reshard": False}), ("gpt2", {"precision": "fp32"}),
    ("mixtral", {"precision": "fp32"}), ("llama", DDP), ("gpt2", DDP | {"precision": AUTOCAST}),
    ("llama", DDP | {"bucket_views": True, "checkpointing": "full", "batch": 1, "sequence": 64}),
    ("llama", DDP | {"method": "lora"}), ("llama", ONLY_TENSOR), ("qwen3", ONLY_TENSOR | {"precision": AUTOCAST}),
    ("llama", ONLY_TENSOR | {"checkpointing": "full", "batch": 1, "sequence": 64}),
]  # fmt: skip


#: By which ARCHITECTURES are judged; the others only judge models that scan, in chunks or token by token.
EVERY = tuple(SETTINGS)
SHORT = {"sequence": 48}
SETTINGS |= {
    "uneven": {"batch": 3, "sequence": 200}, "one chunk": {"batch": 2, "sequence": 100},
    "lora of queries": {"method": "lora", "lora_rank": 16, "lora_targets": ["q_proj", "v_proj"]},
    "lora of inputs": {"method": "lora", "lora_rank": 16, "lora_targets": ["in_proj", "x_proj", "q_proj", "up_proj"]},
}  # fmt: skip
SETTINGS |= {
    "short": SHORT, "short autocast checkpointed": SETTINGS["autocast checkpointed"] | SHORT,
    "short fp32": SETTINGS["fp32"] | SHORT, "short padded": SETTINGS["padded"] | SHORT,
    "short lora": SETTINGS["lora of inputs"] | SHORT, "short lora of queries": SETTINGS["lora of queries"] | SHORT,
    "short long": {"batch": 1, "sequence": 300},
}  # fmt: skip
BY_CHUNK = (
    "bf16", "autocast checkpointed", "fp32", "lora of inputs", "lora of queries", "eager", "padded", "long", "uneven",
    "one chunk",
)  # fmt: skip


def labels_of(name: str) -> tuple[str, ...]:
    """The settings by which an architecture is judged."""
    if name in BY_TOKEN:
        return tuple(label for label in SETTINGS if label.startswith("short"))
    if name in SCANS:
        return BY_CHUNK
    if name in LINEAR:
        return (*BY_CHUNK, "bf16 checkpointed", "autocast", "lora", "lora checkpointed")
    return FEW if name in MORE else EVERY


def config_of(name: str) -> dict:
    twists = (ARCHITECTURES | MORE | SCANS | LINEAR)[name]
    fields = COMMON | twists
    removed = {key for key, value in twists.items() if value is None and key != "sliding_window"}
    return {"model_type": name} | {key: value for key, value in fields.items() if key not in removed}


def whole(config: dict) -> dict:
    """The configuration with the defaults that transformers fills in, without what no byte depends on."""
    from transformers import AutoConfig

    made = AutoConfig.for_model(**config).to_dict()
    dropped = ("id2label", "label2id", "transformers_version", "problem_type", "dtype", "chunk_size_feed_forward")
    return {key: value for key, value in made.items() if key not in dropped} | {"model_type": config["model_type"]}


def load(folder: Path) -> dict:
    """What the folder holds: configurations by architecture, rows (architecture, setting, peak), ranks, versions."""
    files = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    small = {name: found for name, found in files.items() if "config" in found}
    return {
        "configs": {name: found["config"] for name, found in small.items()},
        "rows": [[name, label, peak] for name, found in small.items() for label, peak in found["peaks"].items()],
        "sharded": files["sharded"]["cases"],
        "versions": files["sharded"]["versions"],
    }


def main(folder: Path, names: list[str]) -> None:
    for name in [name for name in names if name != "sharded"] or (
        [] if names else list(ARCHITECTURES | MORE | SCANS | LINEAR)
    ):
        config, peaks, versions = config_of(name), {}, {}
        for label in labels_of(name):
            try:
                result = simulated({"config": config}, DEFAULT | SETTINGS[label])
            except Exception as error:
                print(name, label, repr(error)[:200], file=sys.stderr)
                continue
            versions, peaks[label] = result["versions"], result["peak_bytes"]
        write(folder / f"{name}.json", {"versions": versions, "config": whole(config), "peaks": peaks})
        print(name, len(peaks), "cases")
    if not names or "sharded" in names:
        cases, versions = [], {}
        for name, changes in SHARDED:
            result = sharded(name, changes)
            versions = result["versions"]
            cases.append([name, changes, result["peak_bytes"]])
        write(folder / "sharded.json", {"versions": versions, "cases": cases})


def write(path: Path, found: dict) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n")


def sharded(name: str, changes: dict) -> dict:
    """A simulated rank; the fake world is taken down again."""
    import torch

    setting = DEFAULT | {"sharding": "fsdp", "data_parallel": 8} | changes
    result = simulated({"config": config_of(name)}, setting)
    torch.distributed.destroy_process_group()
    return result


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
