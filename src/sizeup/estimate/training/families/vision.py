"""Vision transformers by themselves, and pairs of one with a text encoder."""

from __future__ import annotations

import msgspec

from sizeup.estimate.training.architectures.image_encoder import ImageShape
from sizeup.estimate.training.architectures.pairs import PairShape
from sizeup.estimate.training.architectures.projectors import Projector
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families import towers
from sizeup.estimate.training.families.common import base
from sizeup.estimate.training.idle import Idle
from sizeup.models.anatomy.defaults import filled
from sizeup.models.anatomy.vision import pair
from sizeup.models.config import Config

#: A tower by itself leads into no text.
NOWHERE = Projector(kind="", out=1)
VIT_NAMES = {f"attn.{x}_proj": f"attention.{x}_proj" for x in "qkv"} | {"attn.proj": "attention.o_proj"}
DINO_NAMES = {f"attn.{x[0]}_proj": f"attention.attention.{x}" for x in ("query", "key", "value")}
CLIP_NAMES = {"self_attn.o_proj": "self_attn.out_proj", "mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"}


def vit(cfg: Config) -> ImageShape:
    """ViT: a class token, a trained position for each patch, norms before the halves and after the layers."""
    rows = (pair(cfg, "image_size")[0] // pair(cfg, "patch_size")[0]) ** 2 + 1
    tower = towers.vit(
        cfg, NOWHERE, class_token=1, positions="parameter", position_rows=rows, last_norm=True,
        qkv_bias=cfg.bool("qkv_bias", default=True), names=VIT_NAMES,
    )  # fmt: skip
    return ImageShape(tower=tower)


def deit(cfg: Config) -> ImageShape:
    """ViT with a second token, which learns from another model; its head is left aside."""
    shape = vit(cfg)
    tower = msgspec.structs.replace(shape.tower, class_token=2, position_rows=shape.tower.position_rows + 1)
    return msgspec.structs.replace(shape, tower=tower)


def dinov2(cfg: Config) -> ImageShape:
    """ViT whose halves are weighed; the patches' mean stands beside the class token in the head."""
    hidden = cfg.int("hidden_size")
    rows = (pair(cfg, "image_size")[0] // pair(cfg, "patch_size")[0]) ** 2 + 1
    tower = towers.vit(
        cfg, NOWHERE, class_token=1, positions="parameter", position_rows=rows, last_norm=True, scaled=True,
        ffn=hidden * cfg.int("mlp_ratio", default=4), qkv_bias=cfg.bool("qkv_bias", default=True),
        softmax_in_fp32=False, names=DINO_NAMES, rest=(Idle("mask_token", hidden),),
    )  # fmt: skip
    return ImageShape(tower=tower, mean=True, keeps_pixels=False)


def clip(cfg: Config) -> PairShape:
    """CLIP: the class token of an image against the last token of a text that sees what is before."""
    vision = filled(cfg.sub("vision_config"), "clip_vision_model", nested=True)
    text = filled(cfg.sub("text_config"), "clip_text_model", nested=True)
    tower = towers.clip(vision, NOWHERE)
    rows = text.int("max_position_embeddings", default=77)
    words = base(
        text, qkv_bias=True, output_bias=True, mlp_bias=True, norm="layer", mlp="plain", rotary=0.0, way=Way(),
        activation=text.str("hidden_act", default="quick_gelu"), position_table=rows, names=CLIP_NAMES,
        attention_dropout=text.float("attention_dropout", default=0.0),
    )  # fmt: skip
    return PairShape(
        tower=tower, text=words, projection=cfg.int("projection_dim", default=512),
        buffers=(8 * rows, 8 * tower.position_rows),
    )  # fmt: skip
