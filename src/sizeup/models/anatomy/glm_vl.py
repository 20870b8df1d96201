"""GLM's image-text models: a gated ViT over patches of two frames, a convolution that joins four, a gated merger."""

from __future__ import annotations

from sizeup.models.anatomy.compose import composed, projector
from sizeup.models.anatomy.dense import glm4
from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.moe_corrected import glm4_moe
from sizeup.models.anatomy.parts import Part, Tensors, fused_attention, gated_mlp, linear, norm, norm_tensors
from sizeup.models.anatomy.qwen_vl import LANGUAGE, patch_embedding
from sizeup.models.anatomy.towers import conv, table, two_way
from sizeup.models.anatomy.vision import Blocks, patches, tower_sizes, vit
from sizeup.models.config import Config


def glm_visual(cfg: Config, prefix: str, *, ocr: bool = False) -> Blocks:
    """GLM-4V's tower: its feed-forward is as wide as its output, its merger as wide as `intermediate_size`.

    ocr: GLM-OCR's: rotary positions alone, norms over queries and keys, a feed-forward as wide as `intermediate_size`.
    """
    s = tower_sizes(cfg)
    out, merge = cfg.int("out_hidden_size"), cfg.int("spatial_merge_size", default=2)
    bias = cfg.bool("attention_bias", default=ocr)
    size = max(1, s.hidden // s.heads)
    over: Tensors = ()
    if ocr:
        over = tuple(tensor for side in "qk" for tensor in norm_tensors(f"attn.{side}_norm", size))

    def layer(_: str) -> list[Part]:
        mixer = two_way(s.heads, s.hidden)
        return [
            fused_attention(
                mixer, s.hidden, qkv="attn.qkv", output="attn.proj", bias=bias, output_bias=ocr and bias, extra=over
            ),
            gated_mlp(s.hidden, s.ffn if ocr else out, bias=ocr and bias),
            norm("norm1", s.hidden),
            norm("norm2", s.hidden),
        ]

    embeddings = patch_embedding(cfg, s, bias=True)
    if not ocr:
        embeddings += table("embeddings.position_embedding", patches(cfg), s.hidden)
        embeddings += norm_tensors("post_conv_layernorm", s.hidden)
    tower = vit(prefix, s, layer, embeddings=embeddings, after=norm_tensors("post_layernorm", s.hidden), stack="blocks")
    width = out * s.channels if ocr else s.ffn
    between = (
        *conv(f"{prefix}.downsample", out, s.hidden, merge, merge, role="projector"),
        *linear(f"{prefix}.merger.proj", out, out, "projector", "in"),
        *norm_tensors(f"{prefix}.merger.post_projection_norm", out, bias=True),
    )
    return (*tower, *projector(between, gated_mlp(out, width, name=f"{prefix}.merger"), name="merger"))


def glm4v(cfg: Config, assumed: str = "glm4v_text") -> Anatomy:
    """GLM-4 behind the tower (also GLM-4.6V)."""
    return composed(cfg, glm_visual(cfg.sub("vision_config"), "model.visual"), prefix=LANGUAGE, assumed=assumed)


def glm4v_moe(cfg: Config) -> Anatomy:
    """GLM-4.5 behind the tower."""
    return glm4v(cfg, "glm4v_moe_text")


def glm_ocr(cfg: Config) -> Anatomy:
    """A small GLM-4 without biases behind a tower with rotary positions alone."""
    tower = glm_visual(cfg.sub("vision_config"), "model.visual", ocr=True)
    return composed(cfg, tower, prefix=LANGUAGE, assumed="glm_ocr_text")


def glm4v_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """GLM-4 with biases on query, key and value."""
    data = {"attention_bias": True} | cfg.data
    return glm4(Config(data, cfg.origin, cfg.path), prefix)


def glm_ocr_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """GLM-4 without biases."""
    return glm4(Config(cfg.data | {"attention_bias": False}, cfg.origin, cfg.path), prefix)


def glm4v_moe_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """GLM-4.5."""
    return glm4_moe(cfg, prefix)
