"""Simulate steps of small decoders with parts of their own, beside those of training_grid.py.

    PYTHON scripts/training_decoders.py tests/data/training_decoders [NAME …]

PYTHON is that of an environment with torch, transformers and peft. One file a decoder; a case takes about a second.
"""

from __future__ import annotations

import sys
from pathlib import Path

import training_grid as grid

from sizeup.workers.training_simulate import simulated

EXPERTS, LATENT, INDEX = grid.EXPERTS, grid.LATENT, grid.INDEX
FIRST_DENSE = {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}
OLD_NAMES = dict.fromkeys(
    (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
        "max_position_embeddings",
    )
) | {"n_embd": 512, "n_layer": 4, "n_head": 8, "n_positions": 2048}  # fmt: skip
WINDOWED = ["sliding_attention", "sliding_attention", "full_attention"]
#: Model type (and perhaps what is special, after a space) → what differs from the grid's common sizes.
DECODERS: dict[str, dict] = {
    "gemma3n_text": {
        "head_dim": 64, "sliding_window": 256, "num_hidden_layers": 6, "layer_types": WINDOWED * 2,
        "num_key_value_heads": 1, "hidden_size_per_layer_input": 64, "vocab_size_per_layer_input": 4096,
        "num_kv_shared_layers": 3, "laurel_rank": 32, "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0, 0.0],
    },
    "mimo_v2_flash": {
        "head_dim": 96, "v_head_dim": 64, "sliding_window": 256, "num_key_value_heads": 2, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 384, "layer_types": [WINDOWED[2], *WINDOWED],
    },
    "minimax_m3_vl_text": FIRST_DENSE | {
        "num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": 64, "intermediate_size": 384,
        "dense_intermediate_size": 1376, "shared_intermediate_size": 384, "rotary_dim": 32, "index_head_dim": 64,
        "index_block_size": 32, "index_topk_blocks": 4, "layer_types": ["full_attention"] + ["minimax_m3_sparse"] * 3,
    },
    "cohere2_moe": FIRST_DENSE | {
        "head_dim": 64, "sliding_window": 256, "num_experts": 8, "num_experts_per_tok": 2, "num_shared_experts": 1,
        "prefix_dense_intermediate_size": 1376, "intermediate_size": 384,
    },
    "dots3_note_text": LATENT | INDEX | {
        "head_dim": 96, "shared_experts_intermediate_size": 384, "sliding_window": 256, "swa_num_attention_heads": 8,
        "swa_num_key_value_heads": 8, "swa_q_lora_rank": 256, "swa_kv_lora_rank": 128, "swa_head_dim": 96,
        "swa_qk_nope_head_dim": 64, "swa_v_head_dim": 64,
    },
    "axk1": LATENT, "axk2": LATENT | INDEX | {"n_group": None, "topk_group": None},
    "kolibri1": EXPERTS, "flint": EXPERTS | {"shared_expert_intermediate_size": 384},
    "granitemoe_swa": grid.SMALL_EXPERTS | {"sliding_window": 256},
    "doge": {"sliding_window": None},
    "doge rows": {"sliding_window": None, "is_moe": True, "num_experts": 64, "num_experts_per_tok": 8},
    "ctrl": OLD_NAMES | {"dff": 1376}, "openai-gpt": OLD_NAMES,
    "gpt-sw3": {"num_key_value_heads": None, "intermediate_size": None, "n_inner": 1376},
    "cohere_compass_text": {
        "head_dim": 64, "sliding_window": 256, "layer_types": WINDOWED[:1] + WINDOWED,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]} for kind in set(WINDOWED)
        },
    },
    "modernbert-decoder": {"num_key_value_heads": None, "local_attention": 256},
    "cohere2 wide": {"head_dim": 256, "sliding_window": 256},
    "falcon rw": grid.OLD | {
        "alibi": True, "multi_query": False, "parallel_attn": False, "bias": True, "new_decoder_architecture": False,
    },
    "llama4_text": grid.MORE["llama4_text"], "granitemoe": grid.MORE["granitemoe"], "gpt_oss": grid.MORE["gpt_oss"],
    "gemma4_text experts": grid.MORE["gemma4 experts"], "qwen2_moe": grid.ARCHITECTURES["qwen2_moe"],
}  # fmt: skip
CHECKPOINTED = {"checkpointing": "full"}
SETTINGS = {
    label: grid.SETTINGS[label]
    for label in (
        "bf16", "bf16 checkpointed", "autocast", "autocast checkpointed", "fp32", "lora", "lora checkpointed", "eager",
        "padded", "long",
    )
} | {"qlora": {"method": "qlora"}, "qlora checkpointed": {"method": "qlora"} | CHECKPOINTED}  # fmt: skip
#: Decoders whose head has another name, so that the stand-in for packed weights would pack it.
NEVER_PACKED = ("modernbert-decoder",)
#: Tensor parallelism whose plan gathers projections: by the grid's name, in a file of its own.
SPLIT = ("phi3", "glm4", "olmo2", "olmoe", "gpt_neox")
SPLIT_SETTINGS = {
    "split": grid.ONLY_TENSOR, "split autocast": grid.ONLY_TENSOR | {"precision": grid.AUTOCAST},
    "split checkpointed": grid.ONLY_TENSOR | CHECKPOINTED | {"batch": 1, "sequence": 64},
}  # fmt: skip


def config_of(name: str) -> dict:
    """The small configuration of that name."""
    twists = DECODERS[name]
    removed = {key for key, value in twists.items() if value is None and key not in {"sliding_window", "n_group"}}
    fields = {key: value for key, value in (grid.COMMON | twists).items() if key not in removed}
    return {"model_type": name.partition(" ")[0]} | fields


def main(folder: Path, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for name in [name for name in names if name in DECODERS] or ([] if names else list(DECODERS)):
        config, peaks, versions = config_of(name), {}, {}
        for label, changes in SETTINGS.items():
            if name in NEVER_PACKED and changes.get("method") == "qlora":
                continue
            try:
                result = simulated({"config": config}, grid.DEFAULT | changes)
            except Exception as error:
                print(name, label, repr(error)[:150], file=sys.stderr)
                continue
            versions, peaks[label] = result["versions"], result["peak_bytes"]
        found = {"versions": versions, "config": grid.whole(config), "peaks": peaks}
        grid.write(folder / f"{name}.json", found)
        print(name, len(peaks), "cases")
    for name in [name for name in SPLIT if name in names or not names]:
        peaks = {label: grid.sharded(name, changes)["peak_bytes"] for label, changes in SPLIT_SETTINGS.items()}
        grid.write(folder / f"{name} split.json", {"config": grid.whole(grid.config_of(name)), "peaks": peaks})
        print(name, len(peaks), "cases of one rank")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
