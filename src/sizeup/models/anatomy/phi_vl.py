"""Phi with eyes and ears: Phi-3-Vision, and Phi-4-multimodal with SigLIP and a conformer of its own."""

from __future__ import annotations

import msgspec

from sizeup.models.anatomy.audio import listen
from sizeup.models.anatomy.compose import parameter, projector, renamed, two_linears, without_head
from sizeup.models.anatomy.defaults import filled
from sizeup.models.anatomy.dense import phi3
from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.parts import Part, Tensors, gated_mlp, linear, norm_tensors, weight
from sizeup.models.anatomy.towers import class_of, conv, layer_norm, projected_attention, table, two_way
from sizeup.models.anatomy.vision import Blocks, clip_vision, siglip_vision
from sizeup.models.config import MAX_LAYERS, Config

QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


#: CLIP ViT-L/14 at 336 pixels, which Phi-3-Vision names instead of describing it.
CLIP_LARGE_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "num_channels": 3,
}


def phi3_v(cfg: Config) -> Anatomy:
    """CLIP, four patches joined to one, two projections, learned ends of rows and of the whole image; Phi-3.

    The class isn't in transformers: names and sizes follow the published file (Phi-3.5-vision: 4,146,621,440).
    """
    root = "model.vision_embed_tokens"
    see = cfg.optional_sub("img_processor")
    channels = 4 * (see.int("image_dim_out", default=1024) if see else 1024)
    text = filled(cfg, "phi3")
    width = text.int("hidden_size")
    between = (
        *two_linears(f"{root}.img_projection", width, channels, names=("0", "2")),
        *parameter(f"{root}.glb_GN", 1, 1, channels, part="newline"),
        *parameter(f"{root}.sub_GN", 1, 1, 1, channels, part="newline"),
    )
    inner = phi3(text, "model")
    tower_ = clip_vision(Config(CLIP_LARGE_336, cfg.origin, "img_processor"), f"{root}.img_processor.vision_model")
    return Anatomy((*tower_, *projector(between), *inner.blocks), inner.hidden, inner.vocabulary, inner.context)


def phi4_audio(cfg: Config, prefix: str) -> Blocks:
    """A conformer with gated feed-forwards, a gated convolution with biases of its own, and a table of distances."""
    hidden, ffn, heads = cfg.int("hidden_size"), cfg.int("intermediate_size"), cfg.int("num_attention_heads")
    wide, deep = cfg.int("ext_pw_out_channel"), cfg.int("depthwise_separable_out_channel")
    inner = hidden * cfg.int("depthwise_multiplier", default=1)

    def half(name: str) -> list[Part]:
        forward = gated_mlp(hidden, ffn, name=name, fused="gate_up_proj", names=("down_proj",), bias=True)
        return [layer_norm(f"{name}.layer_norm", hidden), forward]

    def layer(_: str) -> list[Part]:
        convolution = (
            *norm_tensors("conv.layer_norm", hidden, bias=True),
            *weight("conv.glu.b1", (1, wide, 1), "state_space", "in"),
            *weight("conv.glu.b2", (1, wide, 1), "state_space", "in"),
            *conv("conv.glu.ext_pw_conv_1d", 2 * wide, hidden, 1, role="state_space", part="in"),
            *conv("conv.dw_sep_conv_1d.dw_conv", inner, 1, cfg.int("kernel_size"), role="state_space"),
            *conv("conv.dw_sep_conv_1d.pw_conv", deep, inner, 1, role="state_space"),
            *conv("conv.ext_pw_conv_1d", wide, deep, 1, role="state_space", part="out"),
        )
        return [
            *half("feed_forward_in"),
            layer_norm("layer_norm_att", hidden),
            projected_attention(two_way(heads, hidden), hidden, names=QKVO),
            Part(convolution),
            *half("feed_forward_out"),
            layer_norm("layer_norm", hidden),
        ]

    distance = cfg.int("bias_max_distance")
    buckets = distance if cfg.bool("bias_symmetric", default=False) else 2 * distance
    bins = cfg.int("input_size")
    before = (
        *weight("encoder_embedding.global_mean", (bins,), "buffer", "norm"),
        *weight("encoder_embedding.global_invstd", (bins,), "buffer", "norm"),
        *_subsampling(cfg, hidden),
        *table("relative_attention_bias_layer.bias_values", buckets, heads, "relative_bias"),
    )
    return listen(prefix, cfg.int("num_blocks", max=MAX_LAYERS), layer, before=before, stack="encoders")


def _subsampling(cfg: Config, hidden: int) -> Tensors:
    """A convolution, then depthwise and pointwise pairs, until time is `time_reduction` times shorter."""
    channels = cfg.int("nemo_conv_channels")
    tensors: Tensors = conv("embed.conv.0", channels, 1, 3, 3)
    for pair in range(max(1, cfg.int("time_reduction").bit_length() - 1) - 1):
        tensors += conv(f"embed.conv.{2 + 3 * pair}", channels, 1, 3, 3)
        tensors += conv(f"embed.conv.{3 + 3 * pair}", channels, channels, 1, 1)
    bands = cfg.int("input_size", default=80)
    for _ in range(max(1, cfg.int("time_reduction").bit_length() - 1)):
        bands = (bands - 1) // 2 + 1
    inputs = channels * cfg.int("nemo_final_size", default=bands)
    return tensors + linear("embed.out", hidden, inputs, "embedding", "projection", bias=True)


def phi4_multimodal(cfg: Config) -> Anatomy:
    """Phi-4-mini behind both towers, each with two projections; sound has another pair for when there is an image.

    Published files hold the adapters of vision and speech (LoRA) in separate folders, which aren't counted.
    """
    bare = class_of(cfg, "").endswith("Model")
    vision, audio = cfg.sub("vision_config"), cfg.sub("audio_config")
    text = phi3(cfg, "model")
    eye, ear = "model.embed_tokens_extend.image_embed", "model.embed_tokens_extend.audio_embed"
    seen, heard, width = vision.int("hidden_size"), audio.int("hidden_size"), text.hidden
    heard *= audio.int("downsample_rate", default=1)
    between = (
        *parameter(f"{eye}.global_img_feature_extensor", 1, 1, seen, part="newline"),
        *parameter(f"{eye}.sub_img_feature_extensor", 1, 1, 1, seen, part="newline"),
        *two_linears(eye, width, seen, names=("img_projection_up", "img_projection_down")),
        *two_linears(ear, width, heard, names=("up_proj_for_speech", "down_proj_for_speech")),
        *two_linears(ear, width, heard, names=("up_proj_for_vision_speech", "down_proj_for_vision_speech")),
    )
    see = Config({**vision.data, "image_size": vision.get("crop_size", "image_size")}, cfg.origin, vision.path)
    blocks = (
        *siglip_vision(see, f"{eye}.img_processor", head=True),
        *phi4_audio(audio, f"{ear}.encoder"),
        *projector(between),
        *text.blocks,
    )
    if bare:
        blocks = tuple(part for part in (renamed(without_head(b), "model.", "") for b in blocks) if part.tensors)
    return msgspec.structs.replace(text, blocks=blocks)


def phi4mm(cfg: Config) -> Anatomy:
    """Phi-4-multimodal as its authors publish it: with the adapters of vision and speech inside the file."""
    sound = cfg.optional_sub("audio_processor")
    inner = sound.optional_sub("config") if sound else None
    distances = inner.optional_sub("relative_attention_bias_args") if inner else None
    most = distances.int("t5_bias_max_distance", default=500) if distances else 500
    parts = {"vision_config": {}, "audio_config": {"bias_max_distance": most}}
    whole = phi4_multimodal(filled(Config(cfg.data | parts, cfg.origin), "phi4_multimodal"))
    adapters = tuple(
        adapter
        for name in ("vision", "speech")
        if (ranks := cfg.optional_sub(f"{name}_lora"))
        for adapter in _adapters(whole.blocks, name, ranks.int("r"))
    )
    return msgspec.structs.replace(whole, blocks=(*whole.blocks, *adapters))


def _adapters(blocks: Blocks, name: str, rank: int) -> Blocks:
    """Low-rank adapters beside every projection of the text layers: rank · (inputs + outputs) each."""
    return tuple(
        msgspec.structs.replace(
            part,
            name=f"{name} adapter",
            stack="projector",
            mixers=(),
            feed_forward=None,
            tensors=tuple(
                side
                for tensor in part.tensors
                if len(tensor.shape) == 2
                for side in _low_rank(tensor.name.removesuffix(".weight"), tensor.shape, name, rank)
            ),
        )
        for part in blocks
        if part.layers and part.stack == "text"
    )


def _low_rank(module: str, shape: tuple[int, ...], name: str, rank: int) -> Tensors:
    outputs, inputs = shape
    return (
        *linear(f"{module}.lora_A.{name}", rank, inputs, "projector", "lora_a"),
        *linear(f"{module}.lora_B.{name}", outputs, rank, "projector", "lora_b"),
    )
