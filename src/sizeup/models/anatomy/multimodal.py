"""Image-text models of the LLaVA pattern: a vision tower, a projector, and any text model behind them."""

from __future__ import annotations

import msgspec

from sizeup.models.anatomy.compose import (
    composed,
    parameter,
    projector,
    renamed,
    text_alone,
    text_config,
    two_linears,
)
from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.parts import Part, Tensors, gated_mlp, linear, norm, norm_tensors, stack_of
from sizeup.models.anatomy.towers import crossing, projected_attention, tower
from sizeup.models.anatomy.vision import idefics_vision, llama4_vision, minimax_vision, siglip_vision, vision_tower
from sizeup.models.config import MAX_LAYERS, Config

LANGUAGE = "language_model.model"
LANGUAGE_HEAD = "language_model.lm_head"


def hidden_of(cfg: Config, assumed: str = "llama") -> int:
    """Width of the text model."""
    return text_config(cfg, assumed).int("hidden_size", "n_embd", "d_model")


def feature_layers(cfg: Config) -> int:
    """How many layers of the tower are joined: `vision_feature_layer` is a number or a list of them."""
    chosen = cfg.get("vision_feature_layer")
    return max(1, len(chosen)) if isinstance(chosen, list) else 1


def llava(cfg: Config, *, newline: bool = False) -> Anatomy:
    """Two projections between tower and text. newline: a learned end of each row of patches (LLaVA-NeXT on)."""
    vision, hidden = cfg.sub("vision_config"), hidden_of(cfg)
    inputs = vision.int("hidden_size") * feature_layers(cfg)
    between = two_linears(
        "multi_modal_projector", hidden, inputs, bias=cfg.bool("multimodal_projector_bias", default=True)
    )
    row = parameter("image_newline", hidden, part="newline") if newline else ()
    parts = (*vision_tower(vision, "vision_tower"), *projector(between, row))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="llama")


def llava_next(cfg: Config) -> Anatomy:
    """LLaVA on tiles of an image, with a learned end of each row."""
    return llava(cfg, newline=True)


def vipllava(cfg: Config) -> Anatomy:
    """LLaVA on five layers of the tower, with a norm over them."""
    vision = cfg.sub("vision_config")
    layers = len(cfg.list("vision_feature_layers", "vision_feature_layer")) or 1
    inputs = vision.int("hidden_size") * layers
    between = two_linears("multi_modal_projector", hidden_of(cfg), inputs, norm="projector_layernorm")
    parts = (*vision_tower(vision, "vision_tower"), *projector(between))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="llama")


def paligemma(cfg: Config) -> Anatomy:
    """SigLIP, one projection, Gemma."""
    vision = cfg.sub("vision_config")
    width = cfg.int("projection_dim", default=vision.int("projection_dim", default=hidden_of(cfg, "gemma")))
    between = linear("multi_modal_projector.linear", width, vision.int("hidden_size"), "projector", "up", bias=True)
    parts = (*vision_tower(vision, "vision_tower", "siglip_vision_model"), *projector(between))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="gemma")


def gemma3(cfg: Config) -> Anatomy:
    """SigLIP, a norm over pooled patches and one projection (stored transposed), Gemma 3."""
    if alone := text_alone(cfg, "gemma3_text"):
        return alone
    vision, hidden = cfg.sub("vision_config"), hidden_of(cfg, "gemma3_text")
    width = vision.int("hidden_size")
    between = (
        *parameter("multi_modal_projector.mm_input_projection_weight", width, hidden, part="up"),
        *norm_tensors("multi_modal_projector.mm_soft_emb_norm", width),
    )
    parts = (*vision_tower(vision, "vision_tower", "siglip_vision_model"), *projector(between))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="gemma3_text")


def shieldgemma2(cfg: Config) -> Anatomy:
    """Gemma 3 as the inside of a classifier."""
    whole = gemma3(cfg)
    inside = (renamed(part, "", "model.") for part in whole.blocks)
    blocks = tuple(renamed(part, f"model.{LANGUAGE_HEAD}", "lm_head") for part in inside)
    return msgspec.structs.replace(whole, blocks=blocks)


def mistral3(cfg: Config) -> Anatomy:
    """Pixtral, a merger of neighbouring patches, LLaVA's projector, and a Mistral."""
    vision = cfg.sub("vision_config")
    width = vision.int("hidden_size")
    bias = cfg.bool("multimodal_projector_bias", default=False)
    name, merged = "multi_modal_projector", cfg.int("spatial_merge_size", default=2) ** 2 * width
    between = (
        *norm_tensors(f"{name}.norm", width),
        *linear(f"{name}.patch_merger.merging_layer", width, merged, "projector", "merge"),
        *two_linears(name, hidden_of(cfg, "mistral"), width * feature_layers(cfg), bias=bias),
    )
    parts = (*vision_tower(vision, "vision_tower", "pixtral"), *projector(between))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="mistral")


def internvl(cfg: Config) -> Anatomy:
    """InternViT, pixels shuffled into channels, a norm and LLaVA's projector, any text model."""
    vision = cfg.sub("vision_config")
    ratio = cfg.float("downsample_ratio", min=0.01, max=1, default=0.5)
    inputs = vision.int("hidden_size") * int(1 / ratio) ** 2
    between = two_linears("multi_modal_projector", hidden_of(cfg, "qwen2"), inputs, norm="layer_norm")
    parts = (*vision_tower(vision, "vision_tower", "internvl_vision"), *projector(between))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="qwen2")


def llama4(cfg: Config) -> Anatomy:
    """Llama 4's own tower with its adapter, one projection, and a mixture of experts."""
    if alone := text_alone(cfg, "llama4_text"):
        return alone
    vision = cfg.sub("vision_config")
    inputs = vision.int("vision_output_dim")
    between = linear("multi_modal_projector.linear_1", hidden_of(cfg, "llama4_text"), inputs, "projector", "up")
    parts = (*llama4_vision(vision, "vision_model"), *projector(between))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="llama4_text")


def cohere2_vision(cfg: Config) -> Anatomy:
    """SigLIP, pixels shuffled into channels, a gated projector, Cohere 2."""
    vision = cfg.sub("vision_config")
    inputs = vision.int("hidden_size") * cfg.int("downsample_factor") ** 2
    middle = cfg.int("alignment_intermediate_size")
    name = "model.multi_modal_projector"
    between = (
        *linear(f"{name}.linear_1", middle, inputs, "projector", "gate_up", bias=True),
        *linear(f"{name}.linear_2", hidden_of(cfg, "cohere2"), middle // 2, "projector", "down", bias=True),
    )
    parts = (*vision_tower(vision, "model.vision_tower", "siglip_vision_model"), *projector(between))
    return composed(cfg, parts, prefix="model.language_model", assumed="cohere2")


def aya_vision(cfg: Config) -> Anatomy:
    """Cohere2-Vision with a norm over what comes in and older names."""
    vision = cfg.sub("vision_config")
    inputs = vision.int("hidden_size") * cfg.int("downsample_factor") ** 2
    hidden = hidden_of(cfg, "cohere2")
    middle = cfg.int("alignment_intermediate_size", default=hidden)
    name = "multi_modal_projector"
    between = (
        *norm_tensors(f"{name}.layernorm", inputs, bias=True),
        *linear(f"{name}.linear_1", middle, inputs, "projector", "gate_up", bias=True),
        *linear(f"{name}.linear_2", hidden, middle // 2, "projector", "down", bias=True),
    )
    parts = (*vision_tower(vision, "vision_tower", "siglip_vision_model"), *projector(between))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="cohere2")


def lfm2_vl(cfg: Config) -> Anatomy:
    """SigLIP 2, pixels shuffled into channels, a norm and two projections, LFM2."""
    vision, hidden = cfg.sub("vision_config"), hidden_of(cfg, "lfm2")
    inputs = vision.int("hidden_size") * cfg.int("downsample_factor") ** 2
    between = two_linears(
        "model.multi_modal_projector",
        hidden,
        inputs,
        middle=cfg.int("projector_hidden_size"),
        bias=cfg.bool("projector_bias", default=True),
        norm="layer_norm" if cfg.bool("projector_use_layernorm", default=True) else "",
    )
    parts = (*vision_tower(vision, "model.vision_tower", "siglip2_vision_model"), *projector(between))
    return composed(cfg, parts, prefix="model.language_model", assumed="lfm2")


def idefics2(cfg: Config) -> Anatomy:
    """SigLIP, then a resampler: a few latents that attend to all patches, layer by layer."""
    vision, perceiver = cfg.sub("vision_config"), cfg.sub("perceiver_config")
    text = text_config(cfg, "mistral")
    hidden, name = text.int("hidden_size"), "model.connector"
    projection = gated_mlp(vision.int("hidden_size"), text.int("intermediate_size"), name=f"{name}.modality_projection")
    down = linear(f"{name}.modality_projection.down_proj", hidden, text.int("intermediate_size"), "projector", "down")
    heads, size = perceiver.int("resampler_n_heads"), perceiver.int("resampler_head_dim")
    mixer = crossing(heads, hidden, kv_heads=perceiver.int("num_key_value_heads"), head_dim=size)

    def layer(_: str) -> list[Part]:
        return [
            projected_attention(mixer, hidden, names=("q_proj", "k_proj", "v_proj", "o_proj"), biases=""),
            gated_mlp(hidden, 4 * hidden),
            norm("input_latents_norm", hidden),
            norm("input_context_norm", hidden),
            norm("post_attention_layernorm", hidden),
        ]

    depth, latents = perceiver.int("resampler_depth", max=MAX_LAYERS), perceiver.int("resampler_n_latents")
    resampler = stack_of(f"{name}.perceiver_resampler.layers", [""] * depth, layer, label=lambda _: "resampler layer")
    parts = (
        *idefics_vision(vision, "model.vision_model"),
        *projector(projection.tensors[:2], down),
        *tower("projector", resampler),
        *projector(
            parameter(f"{name}.perceiver_resampler.latents", latents, hidden, part="query"),
            norm_tensors(f"{name}.perceiver_resampler.norm", hidden),
            name="resampler",
        ),
    )
    return composed(cfg, parts, prefix="model.text_model", assumed="mistral")


def idefics3(cfg: Config) -> Anatomy:
    """SigLIP, pixels shuffled into channels, one projection, a Llama (also SmolVLM)."""
    vision = cfg.sub("vision_config")
    inputs = vision.int("hidden_size") * cfg.int("scale_factor") ** 2
    between = linear("model.connector.modality_projection.proj", hidden_of(cfg), inputs, "projector", "up")
    parts = (*idefics_vision(vision, "model.vision_model"), *projector(between))
    return composed(cfg, parts, prefix="model.text_model", assumed="llama")


def deepseek_vl(cfg: Config) -> Anatomy:
    """SigLIP, two projections, a Llama."""
    vision = cfg.sub("vision_config")
    hidden = hidden_of(cfg)
    between = two_linears("model.aligner", hidden, vision.int("hidden_size"), names=("linear1", "linear2"))
    parts = (*siglip_vision(vision, "model.vision_model"), *projector(between))
    return composed(cfg, parts, prefix="model.language_model", assumed="llama")


def minimax_m3_vl(cfg: Config) -> Anatomy:
    """A tower over pairs of frames, LLaVA's projector on patches, then a merger of four patches."""
    vision, hidden = cfg.sub("vision_config"), hidden_of(cfg, "minimax_m3_vl_text")
    middle = cfg.int("projector_hidden_size", default=hidden)
    between = two_linears("multi_modal_projector", hidden, vision.int("hidden_size"), middle=middle)
    merge = vision.int("spatial_merge_size", default=2) ** 2
    merger = two_linears("patch_merge_mlp", hidden, hidden * merge, middle=middle)
    parts = (*minimax_vision(vision, "vision_tower"), *projector(between, merger))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, text_type="minimax_m3")


def fuyu(cfg: Config) -> Anatomy:
    """No tower: raw patches go through one projection into the text model."""
    hidden = hidden_of(cfg, "persimmon")
    inputs = cfg.int("patch_size") ** 2 * cfg.int("num_channels")
    between: Tensors = linear("vision_embed_tokens", hidden, inputs, "projector", "patch", bias=True)
    return composed(cfg, projector(between), prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="persimmon")
