"""Simulated steps of small models with towers: of text alone, with images, with a frozen tower.

    PYTHON scripts/training_towers.py tests/data/training_towers [NAME …]

Every model has the text decoder `TEXT` and a small tower. One file a model, as scripts/training_grid.py writes them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from training_grid import DEFAULT, SETTINGS, whole, write

TEXT = {
    "vocab_size": 4096, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "max_position_embeddings": 2048, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VIT = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 168,
    "patch_size": 14,
}  # fmt: skip
CLIP, SIGLIP = ({"model_type": f"{kind}_vision_model", "vision_use_head": False} | VIT for kind in ("clip", "siglip"))
#: Towers of the Qwen line: one sequence of all patches, merged four to one.
PACKED = {"depth": 4, "num_heads": 4, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
QWEN2 = PACKED | {"embed_dim": 256, "hidden_size": 512, "mlp_ratio": 3}
QWEN25 = PACKED | {
    "hidden_size": 256, "intermediate_size": 704, "out_hidden_size": 512, "window_size": 56,
    "fullatt_block_indexes": [1, 3],
}  # fmt: skip
QWEN3 = PACKED | {
    "hidden_size": 256, "intermediate_size": 704, "out_hidden_size": 512, "num_position_embeddings": 144,
    "deepstack_visual_indexes": [0, 1, 2],
}  # fmt: skip
GLM = PACKED | {"hidden_size": 256, "intermediate_size": 704, "out_hidden_size": 512, "image_size": 168}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [16, 8, 8]}}
MOE_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 4, 4]}}
MIXED = {
    "num_experts": 8, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 384, "head_dim": 64,
}  # fmt: skip


def _wrapper(text_type: str, vision: dict, text: dict | None = None, **fields: object) -> dict:
    return {"text_config": TEXT | {"model_type": text_type} | (text or {}), "vision_config": vision, **fields}


PLACES = [[112, 112], [112, 224], [224, 112], [224, 224]]
IMAGE = {"image_token_id": 9, "image_token_index": 9, "video_token_id": 10}
GEMMA3 = {"head_dim": 64, "sliding_window": 256, "query_pre_attn_scalar": 64}
#: Model type → configuration.
WRAPPERS: dict[str, dict] = {
    "qwen2_vl": _wrapper("qwen2_vl_text", QWEN2, MROPE, **IMAGE),
    "qwen2_5_vl": _wrapper("qwen2_5_vl_text", QWEN25, MROPE, **IMAGE),
    "qwen3_vl": _wrapper("qwen3_vl_text", QWEN3, MROPE | {"head_dim": 64}, **IMAGE),
    "qwen3_vl_moe": _wrapper("qwen3_vl_moe_text", QWEN3, MROPE | MIXED, **IMAGE),
    "glm4v": _wrapper("glm4v_text", GLM, MROPE, **IMAGE),
    "glm4v_moe": _wrapper("glm4v_moe_text", GLM, MOE_ROPE | MIXED, **IMAGE),
    "llava": _wrapper("llama", CLIP, **IMAGE),
    "llava_next": _wrapper(
        "mistral", CLIP | {"image_size": 112}, {"sliding_window": None}, image_grid_pinpoints=PLACES, **IMAGE
    ),
    "llava_onevision": _wrapper("qwen2", SIGLIP | {"image_size": 112}, image_grid_pinpoints=PLACES, **IMAGE),
    "paligemma": _wrapper("gemma", SIGLIP, {"head_dim": 64}, projection_dim=512, **IMAGE),
    "gemma3": _wrapper("gemma3_text", SIGLIP, GEMMA3, mm_tokens_per_image=16, **IMAGE),
    "mistral3": _wrapper(
        "mistral", {"model_type": "pixtral", "head_dim": 64} | VIT, {"sliding_window": None}, spatial_merge_size=2,
        **IMAGE,
    ),
    "internvl": _wrapper(
        "qwen2", VIT | {"image_size": [168, 168], "patch_size": [14, 14]}, image_seq_length=36, **IMAGE
    ),
    "idefics3": _wrapper("llama", VIT, scale_factor=2, **IMAGE),
    "smolvlm": _wrapper("llama", VIT, scale_factor=2, **IMAGE),
    "idefics2": _wrapper("mistral", VIT, {"sliding_window": None}, **IMAGE),
    "aya_vision": _wrapper("cohere2", SIGLIP, {"sliding_window": 256}, **IMAGE),
    "cohere2_vision": _wrapper("cohere2", SIGLIP, {"sliding_window": 256}, alignment_intermediate_size=1024, **IMAGE),
    "aria": _wrapper(
        "aria_text", {"model_type": "idefics3_vision"} | VIT,
        {"moe_num_experts": 8, "moe_topk": 2, "intermediate_size": 384}, **IMAGE,
    ),
    "got_ocr2": _wrapper(
        "qwen2", VIT | {"mlp_dim": 704, "global_attn_indexes": [1, 3], "window_size": 4}, **IMAGE
    ),
    "deepseek_vl": _wrapper("llama", SIGLIP, **IMAGE),
    "mllama": _wrapper(
        "mllama_text_model",
        {
            "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_global_layers": 2,
            "attention_heads": 4, "vision_output_dim": 768, "image_size": 168, "patch_size": 14, "max_num_tiles": 4,
            "intermediate_layers_indices": [1, 3], "supported_aspect_ratios": [[1, n] for n in range(1, 9)],
        },
        {"num_hidden_layers": 5, "cross_attention_layers": [1, 3]},
        **IMAGE,
    ),
    "llama4": _wrapper(
        "llama4_text", VIT | {"vision_output_dim": 512, "projector_input_dim": 512, "projector_output_dim": 512},
        {
            "num_local_experts": 8, "num_experts_per_tok": 1, "intermediate_size": 384, "intermediate_size_mlp": 1376,
            "head_dim": 64,
        }, **IMAGE,
    ),
    "gemma4": _wrapper(
        "gemma4_text", {"model_type": "gemma4_vision"} | VIT,
        {
            "num_hidden_layers": 6, "head_dim": 64, "global_head_dim": 128, "sliding_window": 256,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
            "num_key_value_heads": 1, "hidden_size_per_layer_input": 64, "vocab_size_per_layer_input": 4096,
        }, **IMAGE,
    ),
    "ovis2": _wrapper("qwen2", VIT | {"vocab_size": 512}, vocab_size=4096, hidden_size=512, **IMAGE),
    "glm46v": _wrapper("glm4v_moe_text", GLM, MOE_ROPE | MIXED, **IMAGE),
    "vipllava": _wrapper("llama", CLIP, vision_feature_layers=[-2, -3], **IMAGE),
    "lighton_ocr": _wrapper("qwen3", {"model_type": "pixtral", "head_dim": 64} | VIT, spatial_merge_size=2, **IMAGE),
    "exaone4_5": _wrapper("exaone4", QWEN25, **IMAGE),
    "video_llama_3": _wrapper("qwen2", {key: VIT[key] for key in VIT if key != "image_size"}, **IMAGE),
    "glm_ocr": _wrapper("glm_ocr_text", GLM, MROPE | {"head_dim": 64}, **IMAGE),
    "paddleocr_vl": _wrapper("paddleocr_vl_text", VIT, MROPE | {"head_dim": 64}, **IMAGE),
    "lfm2_vl": _wrapper(
        "lfm2", {key: SIGLIP[key] for key in SIGLIP if key not in {"image_size", "model_type"}} | {"num_patches": 144},
        **IMAGE,
    ),
    "qwen3_5": _wrapper(
        "qwen3_5_text", {key: QWEN3[key] for key in QWEN3 if key != "deepstack_visual_indexes"},
        {
            "head_dim": 64, "linear_num_key_heads": 4, "linear_num_value_heads": 8, "linear_key_head_dim": 64,
            "linear_value_head_dim": 64,
        }, **IMAGE,
    ),
    "voxtral": {
        "text_config": TEXT | {"model_type": "llama", "head_dim": 64},
        "audio_config": {
            "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4,
            "num_mel_bins": 128, "max_source_positions": 100,
        }, "audio_token_id": 9,
    },
    "qwen2_audio": {
        "text_config": TEXT | {"model_type": "qwen2"},
        "audio_config": {
            "d_model": 256, "encoder_ffn_dim": 704, "encoder_layers": 4, "encoder_attention_heads": 4,
            "num_mel_bins": 128, "max_source_positions": 100,
        }, "audio_token_index": 9,
    },
}  # fmt: skip

OWN = {"loss": "standard", "objective": "causal"}
IMAGES = {"images": 2, "image_size": 168}
#: Models whose images are given in another way.
SEEN = {name: {"images": 1, "image_size": 224} for name in ("llava_next", "llava_onevision")}
FEW = ("bf16", "autocast checkpointed", "fp32", "lora", "eager")
#: What each case sets.
CASES: dict[str, dict] = {
    **{label: SETTINGS[label] for label in FEW},
    **{f"images {label}": SETTINGS[label] | IMAGES for label in (*FEW, "lora checkpointed", "padded", "accumulating")},
    **{f"frozen {label}": SETTINGS[label] | IMAGES | {"train_vision": False} for label in ("bf16", "lora", "fp32")},
}
#: Models whose towers are programs here.
SEEING = (
    "llava", "llava_next", "llava_onevision",
    "paligemma", "gemma3", "mistral3", "lighton_ocr", "internvl", "idefics3", "smolvlm", "qwen2_vl",
    "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v", "glm4v_moe", "aya_vision", "cohere2_vision", "deepseek_vl",
)  # fmt: skip


def main(folder: Path, names: list[str]) -> None:
    from sizeup.workers.training_simulate import simulated

    for name in names or list(WRAPPERS):
        config, peaks, versions = {"model_type": name} | WRAPPERS[name], {}, {}
        for label, changes in CASES.items():
            if changes.get("images") and name not in SEEING:
                continue
            seen = SEEN.get(name, {}) if changes.get("images") else {}
            try:
                result = simulated({"config": config}, DEFAULT | OWN | changes | seen)
            except Exception as error:
                print(name, label, repr(error)[:200], file=sys.stderr)
                continue
            versions, peaks[label] = result["versions"], result["peak_bytes"]
        write(
            folder / f"{name}.json",
            {"versions": versions, "config": whole(config), "seen": IMAGES | SEEN.get(name, {}), "peaks": peaks},
        )
        print(name, len(peaks), "cases")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
