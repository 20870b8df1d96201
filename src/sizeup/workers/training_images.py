"""What a processor hands to a model with a vision tower: token ids with placeholders, pixels, grids.

Every sequence begins with its images: a token of text and the image's placeholders, `images` times.
"""

from __future__ import annotations

from typing import Any

#: Towers that take all images as one sequence of patches, with a grid for each.
PACKED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v", "glm4v_moe", "glm46v", "exaone4_5")
#: Models that are given the images of each sequence apart, with a mask of the pixels; those that are told their sizes.
NESTED, SIZED = frozenset({"idefics2", "idefics3", "smolvlm"}), frozenset({"mistral3", "lighton_ocr"})
#: Models whose processor says which tokens are an image's, under these names.
TYPED = {"gemma3": "token_type_ids", "paligemma": "token_type_ids"} | dict.fromkeys(PACKED, "mm_token_type_ids")


def pixels_of(config: Any, setting: dict[str, Any]) -> tuple[int, ...]:
    """Shape of the pixels of all images."""
    vision, kind = config.vision_config, config.model_type
    side = setting.get("image_size") or _first(vision.image_size)
    whole = setting["batch"] * setting["images"]
    if kind in PACKED:
        patch = _first(vision.patch_size)
        return whole * (side // patch) ** 2, vision.in_channels * vision.temporal_patch_size * patch * patch
    if kind in NESTED:
        return setting["batch"], setting["images"], 3, side, side
    return whole, 3, side, side


def known_inputs(torch: Any, config: Any, setting: dict[str, Any]) -> dict[str, Any]:
    """The tensors whose values matter: token ids, kinds of tokens, grids and sizes, pixels that tell empty images."""
    vision, kind = config.vision_config, config.model_type
    side = setting.get("image_size") or _first(vision.image_size)
    across = side // _first(vision.patch_size)
    whole = setting["batch"] * setting["images"]
    ids = placeholders(torch, config, setting, tokens_of(config, across))
    values = {"input_ids": ids}
    if kind in PACKED:
        values["image_grid_thw"] = torch.tensor([[1, across, across]] * whole)
    if kind in SIZED:
        values["image_sizes"] = torch.tensor([[side, side]] * whole)
    if kind in NESTED:
        shape = pixels_of(config, setting)
        values["pixel_attention_mask"] = torch.ones(shape[0], shape[1], side, side, dtype=torch.long)
        values["pixel_values"] = torch.ones(()).expand(shape)
    if kind in TYPED:
        values[TYPED[kind]] = (ids == _image_token(config)).long()
    return values


def placeholders(torch: Any, config: Any, setting: dict[str, Any], tokens: int) -> Any:
    """Ids of the sequences. Raises ValueError when the images don't fit into one."""
    if setting["images"] * (tokens + 1) > setting["sequence"]:
        raise ValueError(f"{setting['images']} images of {tokens} tokens don't fit into {setting['sequence']}")
    row = [0, *[_image_token(config)] * tokens] * setting["images"]
    return torch.tensor([row + [0] * (setting["sequence"] - len(row))] * setting["batch"])


def tokens_of(config: Any, across: int) -> int:
    """Placeholders of an image whose side is that many patches."""
    kind, vision = config.model_type, config.vision_config
    if kind in PACKED:
        return (across // vision.spatial_merge_size) ** 2
    if kind in SIZED:
        return (across // config.spatial_merge_size) ** 2
    if kind == "gemma3":
        return config.mm_tokens_per_image
    if kind in {"idefics3", "smolvlm"}:
        return across * across // config.scale_factor**2
    if kind == "internvl":
        return int(across * config.downsample_ratio) ** 2
    if kind == "idefics2":
        return config.perceiver_config.resampler_n_latents
    if kind in {"aya_vision", "cohere2_vision"}:
        return (across // config.downsample_factor) ** 2
    return across * across


def _first(size: Any) -> int:
    return int(size[0] if isinstance(size, list | tuple) else size)


def _image_token(config: Any) -> int:
    return next(int(getattr(config, name)) for name in ("image_token_id", "image_token_index") if hasattr(config, name))
