"""SAM's vision tower, and the models that read documents with it: GOT-OCR, DeepSeek-VL's high-resolution half."""

from __future__ import annotations

from sizeup.models.anatomy.compose import composed, parameter, projector, text_config
from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.parts import Part, Tensors, fused_attention, linear, norm, norm_tensors, plain_mlp, weight
from sizeup.models.anatomy.towers import conv, two_way
from sizeup.models.anatomy.vision import Blocks, pair, siglip_vision, tower_sizes, vit
from sizeup.models.config import Config


def sam_vision(cfg: Config, prefix: str) -> Blocks:
    """A ViT with windows in all but a few layers, relative positions for rows and columns, a neck of convolutions."""
    s = tower_sizes(cfg)
    (height, width), (down, across) = pair(cfg, "image_size"), pair(cfg, "patch_size")
    rows, columns = max(1, height // down), max(1, width // across)
    window, out = cfg.int("window_size", min=0), cfg.int("output_channels")
    full = set(cfg.ints("global_attn_indexes", min=0) or ())
    kinds = ["" if layer in full or not window else "window" for layer in range(s.layers)]
    size = max(1, s.hidden // s.heads)

    def layer(kind: str) -> list[Part]:
        sides = (window, window) if kind else (rows, columns)
        relative: Tensors = ()
        if cfg.bool("use_rel_pos", default=True):
            for axis, side in zip("hw", sides, strict=True):
                relative += weight(f"attn.rel_pos_{axis}", (2 * side - 1, size), "attention", "relative_bias")
        mixer = two_way(s.heads, s.hidden, window=window**2 if kind else None)
        bias = cfg.bool("qkv_bias", default=True)
        return [
            fused_attention(
                mixer, s.hidden, qkv="attn.qkv", output="attn.proj", bias=bias, output_bias=True, extra=relative
            ),
            plain_mlp(s.hidden, s.ffn, names=("lin1", "lin2")),
            norm("layer_norm1", s.hidden, bias=True),
            norm("layer_norm2", s.hidden, bias=True),
        ]

    embeddings = conv("patch_embed.projection", s.hidden, s.channels, down, across, part="patch")
    if cfg.bool("use_abs_pos", default=True):
        embeddings += weight("pos_embed", (1, rows, columns, s.hidden), "embedding", "positions")
    return vit(prefix, s, layer, embeddings=embeddings, after=neck("neck", s.hidden, out), stack="layers", kinds=kinds)


def neck(name: str, inputs: int, outputs: int) -> Tensors:
    """Two convolutions with a norm each, from the tower's width to fewer channels."""
    return (
        *conv(f"{name}.conv1", outputs, inputs, 1, 1, bias=False),
        *norm_tensors(f"{name}.layer_norm1", outputs, bias=True),
        *conv(f"{name}.conv2", outputs, outputs, 3, 3, bias=False),
        *norm_tensors(f"{name}.layer_norm2", outputs, bias=True),
    )


def got_ocr2(cfg: Config) -> Anatomy:
    """SAM's tower, two convolutions that halve the image, one projection, Qwen2."""
    vision = cfg.sub("vision_config")
    hidden, channels = text_config(cfg, "qwen2").int("hidden_size"), vision.int("output_channels")
    name = "multi_modal_projector"
    between = (
        *conv(f"{name}.conv_upsampler1", 2 * channels, channels, 3, 3, bias=False),
        *conv(f"{name}.conv_upsampler2", hidden, 2 * channels, 3, 3, bias=False),
        *linear(f"{name}.multimodal_projector", hidden, hidden, "projector", "up", bias=True),
    )
    parts = (*sam_vision(vision, "vision_tower"), *projector(between))
    return composed(cfg, parts, prefix="language_model.model", head="language_model.lm_head", assumed="qwen2")


def deepseek_vl_hybrid(cfg: Config) -> Anatomy:
    """SigLIP for the whole image and SAM for its details, each with a projection, then one for both; a Llama."""
    vision, fine = cfg.sub("vision_config"), cfg.sub("high_res_vision_config")
    hidden, channels = text_config(cfg, "llama").int("hidden_size"), fine.int("output_channels")
    half = hidden // 2
    between = (
        *parameter("model.high_res_vision_alpha", 1, part="scale"),
        *neck("model.high_res_vision_neck", fine.int("hidden_size"), channels),
        *conv("model.high_res_vision_proj.conv1", 2 * channels, channels, 3, 3, bias=False),
        *conv("model.high_res_vision_proj.conv2", 4 * channels, 2 * channels, 3, 3, bias=False),
        *linear("model.aligner.vision_proj", half, vision.int("hidden_size"), "projector", "up", bias=True),
        *linear("model.aligner.high_res_vision_proj", half, 4 * channels, "projector", "up", bias=True),
        *linear("model.aligner.proj", hidden, 2 * half, "projector", "down", bias=True),
    )
    parts = (
        *siglip_vision(vision, "model.vision_model"),
        *sam_vision(fine, "model.high_res_vision_model.vision_encoder"),
        *projector(between),
    )
    return composed(cfg, parts, prefix="model.language_model", assumed="llama")
