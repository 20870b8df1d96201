"""Towers of models that see images, and what leads from them into the text. Each function is named by the wrapper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sizeup.estimate.training.architectures.projectors import Projector
from sizeup.estimate.training.architectures.vision_shape import Tower
from sizeup.models.anatomy.defaults import filled
from sizeup.models.anatomy.vision import pair
from sizeup.models.config import Config

SPLIT = {"attn.proj": "self_attn.out_proj"} | {f"attn.{x}_proj": f"self_attn.{x}_proj" for x in "qkv"}
#: What mergers call their two projections.
MERGER, FC = ({"linear_1": first, "linear_2": second} for first, second in (("0", "2"), ("linear_fc1", "linear_fc2")))
#: Towers that a wrapper takes by their own model types → what they are without their projector.
OWN = {"clip_vision_model": "clip", "siglip_vision_model": "siglip", "pixtral": "pixtral"}


def vit(cfg: Config, projector: Projector, **twists: Any) -> Tower:
    """A tower of the usual field names."""
    fields: dict[str, Any] = {
        "hidden": cfg.int("hidden_size", "embed_dim"), "layers": cfg.int("num_hidden_layers", "depth"),
        "head_count": cfg.int("num_attention_heads", "num_heads"), "ffn": cfg.int("intermediate_size", default=1),
        "patch": pair(cfg, "patch_size")[0], "channels": cfg.int("num_channels", "in_channels", default=3),
        "activation": cfg.str("hidden_act", default="gelu"), "projector": projector,
    }  # fmt: skip
    if cfg.has("image_size"):
        fields["side"] = pair(cfg, "image_size")[0]
    return Tower(**(fields | twists))


def _rows(cfg: Config) -> int:
    return (pair(cfg, "image_size")[0] // pair(cfg, "patch_size")[0]) ** 2


def clip(cfg: Config, projector: Projector, **twists: Any) -> Tower:
    """A class token, a table of positions, a norm before the layers; the last norm is for the class token alone."""
    fields: dict[str, Any] = {
        "patch_bias": False, "class_token": 1, "positions": "table", "position_rows": _rows(cfg) + 1,
        "first_norm": True, "names": SPLIT,
    }  # fmt: skip
    return vit(cfg, projector, **(fields | twists))


def siglip(cfg: Config, projector: Projector, **twists: Any) -> Tower:
    """A table of positions, a norm after the layers."""
    fields: dict[str, Any] = {"positions": "table", "position_rows": _rows(cfg), "last_norm": True, "names": SPLIT}
    return vit(cfg, projector, **(fields | twists))


def pixtral(cfg: Config, projector: Projector, **twists: Any) -> Tower:
    """A gated llama of patches, all images in one sequence under a mask."""
    names = {"attn.proj": "attention.o_proj"} | {f"attn.{x}_proj": f"attention.{x}_proj" for x in "qkv"}
    fields: dict[str, Any] = {
        "patch_bias": False, "norm": "rms", "first_norm": True, "qkv_bias": False, "output_bias": False, "mlp": "gated",
        "mlp_bias": False, "rotary": "stream", "masked": True, "names": names | {"mlp.fc2": "mlp.down_proj"},
    }  # fmt: skip
    return vit(cfg, projector, **(fields | twists))


def packed(cfg: Config, projector: Projector, **twists: Any) -> Tower:
    """The line of Qwen 2 VL: patches of two frames, all images in one sequence, heads turned in fp32."""
    fields: dict[str, Any] = {
        "frames": cfg.int("temporal_patch_size", default=2), "patch_bias": False, "fused": True, "rotary": "wide",
        "packed": True, "typed": True, "names": {"mlp.fc2": "mlp.down_proj", "patch_embed": "patch_embed.proj"},
    }  # fmt: skip
    return vit(cfg, projector, **(fields | twists))


def _vision(cfg: Config) -> Config:
    part = cfg.sub("vision_config")
    return filled(part, part.str("model_type", default=""), nested=True)


def _any(cfg: Config, projector: Projector, **twists: Any) -> Tower:
    """The tower that the wrapper's configuration names."""
    vision = _vision(cfg)
    kind = OWN.get(vision.str("model_type", default=""), "siglip")
    return {"clip": clip, "siglip": siglip, "pixtral": pixtral}[kind](vision, projector, **twists)


def _features(cfg: Config, default: int) -> int:
    """Layers up to the one whose output is used; 0 for all."""
    wanted = cfg.data.get("vision_feature_layer", default)
    layers = _vision(cfg).int("num_hidden_layers")
    if not isinstance(wanted, int):
        return 0
    return layers + wanted + 1 if wanted < 0 else wanted


def llava(cfg: Config, out: int) -> Tower:
    """Features before the last layer's, two projections."""
    bias = cfg.bool("multimodal_projector_bias", default=True)
    activation = cfg.str("projector_hidden_act", default="gelu")
    used = _features(cfg, -2)
    tower = _any(cfg, Projector(kind="two", out=out, bias=bias, activation=activation), features=used)
    return msgspec.structs.replace(tower, last_norm=False)


def llava_next(cfg: Config, out: int) -> Tower:
    """LLaVA's of an image and its tiles."""
    tower = llava(cfg, out)
    places = cfg.data.get("image_grid_pinpoints") or []
    resolutions = tuple((int(height), int(width)) for height, width in places)
    projector = msgspec.structs.replace(tower.projector, kind="tiles")
    return msgspec.structs.replace(tower, projector=projector, resolutions=resolutions)


def llava_onevision(cfg: Config, out: int) -> Tower:
    """The same of SigLIP's last layer; several images of a sequence aren't cut."""
    tower = llava_next(Config(cfg.data | {"vision_feature_layer": -1}, cfg.origin), out)
    return msgspec.structs.replace(tower, tiles_alone=True)


def paligemma(cfg: Config, out: int) -> Tower:
    """One projection of every patch."""
    return _any(cfg, Projector(kind="one", out=out, joined=False), typed=True)


def deepseek_vl(cfg: Config, out: int) -> Tower:
    """SigLIP after its last norm, two projections."""
    names = {"linear_1": "linear1", "linear_2": "linear2"}
    return _any(cfg, Projector(kind="two", out=out, joined=False, names=names))


def gemma3(cfg: Config, out: int) -> Tower:
    """Squares of patches averaged to a fixed number of tokens."""
    tokens = cfg.int("mm_tokens_per_image", default=256)
    return _any(cfg, Projector(kind="pooled", out=out, tokens=tokens, joined=False), typed=True)


def mistral3(cfg: Config, out: int) -> Tower:
    """Pixtral's tower, squares of patches projected to one."""
    side = cfg.int("spatial_merge_size", default=2)
    bias = cfg.bool("multimodal_projector_bias", default=False)
    return _any(cfg, Projector(kind="unfolded", out=out, side=side, norm="rms", bias=bias))


def internvl(cfg: Config, out: int) -> Tower:
    """A class token, trained positions, each half multiplied by a weight; squares of patches are one token."""
    vision = _vision(cfg)
    side = round(1 / cfg.float("downsample_ratio", default=0.5))
    b = vision.bool("attention_bias", default=False)
    return vit(
        vision, Projector(kind="shuffled", out=out, side=side, norm="layer", joined=False), class_token=1,
        positions="parameter", position_rows=_rows(vision) + 1, scaled=True, softmax_in_fp32=False, qkv_bias=b,
        norm="rms" if vision.str("norm_type", default="layer_norm") == "rms_norm" else "layer",
        last_norm=not vision.bool("use_mean_pooling", default=True), names={"attn.proj": "attention.projection_layer"},
    )  # fmt: skip


def idefics3(cfg: Config, out: int) -> Tower:
    """SigLIP's layers, squares of patches in one projection."""
    side = cfg.int("scale_factor", default=2)
    projector = Projector(kind="one", out=out, side=side, bias=False, joined=False)
    return _any(cfg, projector, pixel_masks=True, hook="embeddings")


def qwen2_vl(cfg: Config, out: int) -> Tower:
    """Plain feed-forwards, a merger after a layer norm."""
    vision = _vision(cfg)
    width = vision.int("embed_dim", default=1280)
    inner = int(width * vision.float("mlp_ratio", default=4))
    projector = Projector(kind="merger", out=out, side=vision.int("spatial_merge_size", default=2), norm="layer",
                          returned=False, names=MERGER)  # fmt: skip
    return packed(vision, projector, hidden=width, ffn=inner, names={"patch_embed": "patch_embed.proj"})


def qwen2_5_vl(cfg: Config, out: int) -> Tower:
    """Gated feed-forwards and RMS norms; most layers see windows of an image."""
    vision = _vision(cfg)
    projector = Projector(kind="merger", out=out, side=vision.int("spatial_merge_size", default=2), norm="rms",
                          returned=False, names=MERGER)  # fmt: skip
    window = vision.int("window_size", default=112) // vision.int("patch_size")
    whole = tuple(vision.ints("fullatt_block_indexes", min=0) or ())
    return packed(vision, projector, norm="rms", mlp="gated", window=window, whole=whole)


def qwen3_vl(cfg: Config, out: int) -> Tower:
    """Positions resampled to each image; features of three layers go into the text's first layers."""
    vision = _vision(cfg)
    projector = Projector(kind="merger", out=out, side=vision.int("spatial_merge_size", default=2), norm="layer",
                          returned=False, names=FC)  # fmt: skip
    deep = tuple(vision.ints("deepstack_visual_indexes", min=0) or ())
    names = {f"mlp.fc{n}": f"mlp.linear_fc{n}" for n in (1, 2)} | {"patch_embed": "patch_embed.proj"}
    return packed(
        vision, projector, patch_bias=True, hook="", positions="resampled",
        position_rows=vision.int("num_position_embeddings"), deep=deep, names=names,
    )  # fmt: skip


def glm4v(cfg: Config, out: int) -> Tower:
    """RMS norms, positions sampled from a table, squares of patches in a convolution, a gated merger."""
    vision = _vision(cfg)
    width = vision.int("out_hidden_size", default=out)
    projector = Projector(
        kind="downsampled", out=width, side=vision.int("spatial_merge_size", default=2), returned=False,
        inner=vision.int("intermediate_size"), activation=vision.str("hidden_act", default="silu"),
    )  # fmt: skip
    return packed(
        vision, projector, patch_bias=True, hook="", norm="rms", first_norm=True, last_norm=True, positions="sampled",
        position_rows=_rows(vision), mlp="gated", mlp_bias=False, ffn=width, output_bias=False,
        qkv_bias=vision.bool("attention_bias", default=False),
    )  # fmt: skip


def aya_vision(cfg: Config, out: int) -> Tower:
    """SigLIP before its last norm, squares of patches normed, a gate over halves."""
    inner = cfg.int("alignment_intermediate_size", default=out)
    projector = Projector(
        kind="gated", out=out, side=cfg.int("downsample_factor", default=2), inner=inner, norm="layer", joined=False
    )
    return msgspec.structs.replace(_any(cfg, projector), last_norm=False)


def cohere2_vision(cfg: Config, out: int) -> Tower:
    """The same after the last norm, without one of its own."""
    inner = cfg.int("alignment_intermediate_size")
    side = cfg.int("downsample_factor", default=2)
    return _any(cfg, Projector(kind="gated", out=out, side=side, inner=inner, joined=False))


#: Wrapper → its tower, for a text of that width.
TOWERS: dict[str, Callable[[Config, int], Tower]] = {
    "llava": llava, "llava_next": llava_next, "llava_onevision": llava_onevision, "paligemma": paligemma,
    "gemma3": gemma3, "mistral3": mistral3,
    "lighton_ocr": mistral3, "internvl": internvl, "idefics3": idefics3, "smolvlm": idefics3, "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl, "qwen3_vl_moe": qwen3_vl, "glm4v": glm4v, "glm4v_moe": glm4v,
    "glm46v": glm4v, "aya_vision": aya_vision, "deepseek_vl": deepseek_vl, "cohere2_vision": cohere2_vision,
}  # fmt: skip
