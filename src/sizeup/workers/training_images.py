"""What a processor hands to a model with a vision tower: token ids with placeholders, pixels, grids.

Every sequence begins with its images: a token of text and the image's placeholders, `images` times.
"""

from __future__ import annotations

from typing import Any

#: Towers that take all images as one sequence of patches, with a grid for each.
PACKED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v", "glm4v_moe", "glm46v", "exaone4_5")
#: Models that are given the images of each sequence apart, with a mask of the pixels; those that are told their sizes.
NESTED = frozenset({"idefics2", "idefics3", "smolvlm"})
SIZED = frozenset({"mistral3", "lighton_ocr", "llava_next", "llava_onevision"})
#: What the models call the patches on a side that become one token.
MERGED = {
    "mistral3": "spatial_merge_size", "lighton_ocr": "spatial_merge_size", "idefics3": "scale_factor",
    "smolvlm": "scale_factor", "aya_vision": "downsample_factor", "cohere2_vision": "downsample_factor",
}  # fmt: skip
#: Models that cut an image into tiles.
TILED = frozenset({"llava_next", "llava_onevision"})
#: Models whose processor says which tokens are an image's, under these names.
TYPED = {"gemma3": "token_type_ids", "paligemma": "token_type_ids"} | dict.fromkeys(PACKED, "mm_token_type_ids")


def pixels_of(config: Any, setting: dict[str, Any]) -> tuple[int, ...]:
    """Shape of the pixels of all images."""
    vision, kind = config.vision_config, config.model_type
    side = setting.get("image_size") or _first(vision.image_size)
    whole = setting["batch"] * setting["images"]
    if kind in TILED:
        own = _first(vision.image_size)
        return whole, tiles_of(config, side, setting["images"]), 3, own, own
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
    tokens = tiled_tokens(config, side, setting["images"]) if kind in TILED else tokens_of(config, across)
    ids = placeholders(torch, config, setting, tokens)
    values = {"input_ids": ids}
    if kind in PACKED:
        values["image_grid_thw"] = torch.tensor([[1, across, across]] * whole)
    if kind in SIZED:
        values["image_sizes"] = torch.tensor([[side, side]] * whole)
    if kind in NESTED:
        shape = pixels_of(config, setting)
        values["pixel_attention_mask"] = torch.ones(shape[0], shape[1], side, side, dtype=torch.long)
        values["pixel_values"] = torch.ones(()).expand(shape)
    if setting["padding"]:
        values["attention_mask"] = torch.ones_like(ids)
    if kind in TYPED:
        values[TYPED[kind]] = (ids == _image_token(config)).long()
    return values


def placeholders(torch: Any, config: Any, setting: dict[str, Any], tokens: int) -> Any:
    """Ids of the sequences. Raises ValueError when the images don't fit into one."""
    if setting["images"] * (tokens + 1) > setting["sequence"]:
        raise ValueError(f"{setting['images']} images of {tokens} tokens don't fit into {setting['sequence']}")
    row = [0, *[_image_token(config)] * tokens] * setting["images"]
    return torch.tensor([row + [0] * (setting["sequence"] - len(row))] * setting["batch"])


def tiles_of(config: Any, side: int, images: int) -> int:
    """Tiles of an image, the whole among them."""
    if config.model_type == "llava_onevision" and images > 1:
        return 1
    height, width = _resolution(config, side)
    tile = _first(config.vision_config.image_size)
    return 1 + -(-height // tile) * -(-width // tile)


def tiled_tokens(config: Any, side: int, images: int) -> int:
    """Placeholders of an image cut into tiles: the whole, the tiles without padding, and one after each line."""
    across = _first(config.vision_config.image_size) // _first(config.vision_config.patch_size)
    if tiles_of(config, side, images) == 1:
        return across * across + 1
    tile = _first(config.vision_config.image_size)
    rows, columns = (size // tile * across for size in _resolution(config, side))
    cut = abs(rows - columns) // 2 * 2
    rows, columns = (rows, columns - cut) if columns > rows else (rows - cut, columns)
    return across * across + rows * (columns + 1)


def _resolution(config: Any, side: int) -> tuple[int, int]:
    from transformers.image_processing_utils import select_best_resolution

    height, width = select_best_resolution((side, side), config.image_grid_pinpoints)
    return int(height), int(width)


def tokens_of(config: Any, across: int) -> int:
    """Placeholders of an image whose side is that many patches."""
    kind, vision = config.model_type, config.vision_config
    if kind == "gemma3":
        return int(config.mm_tokens_per_image)
    if kind == "idefics2":
        return int(config.perceiver_config.resampler_n_latents)
    if kind == "internvl":
        return int(across * config.downsample_ratio) ** 2
    owner, name = (vision, "spatial_merge_size") if kind in PACKED else (config, MERGED.get(kind, ""))
    return (across // int(getattr(owner, name, 1))) ** 2


def _first(size: Any) -> int:
    return int(size[0] if isinstance(size, list | tuple) else size)


def _image_token(config: Any) -> int:
    return next(int(getattr(config, name)) for name in ("image_token_id", "image_token_index") if hasattr(config, name))
