"""Gemma 3n and 4 with eyes and ears: a ViT of their own kind, a conformer, and one projection from each into the text.

Linear layers of Gemma 4's towers may be clipped (`use_clipped_linears`): each then stores the four limits of its inputs
and outputs, which are buffers.
"""

from __future__ import annotations

from sizeup.models.anatomy.audio import listen
from sizeup.models.anatomy.compose import composed, part_config, projector, text_alone, text_config
from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.mobilenet import mobilenet_v5
from sizeup.models.anatomy.parts import Part, Tensors, gated_mlp, linear, norm, norm_tensors, plain_mlp, weight
from sizeup.models.anatomy.towers import conv, projected_attention
from sizeup.models.anatomy.vision import Blocks, pair, tower_sizes, vit
from sizeup.models.config import MAX_LAYERS, Config
from sizeup.models.mixers import Attention
from sizeup.models.model import Block

MOBILENET = "mobilenetv5_300m_enc"
LIMITS = ("input_min", "input_max", "output_min", "output_max")


def limits(*names: str, clipped: bool) -> Part:
    """The stored limits of clipped linear layers."""
    found = (weight(f"{name}.{limit}", (), "buffer", "limit") for name in names for limit in LIMITS)
    return Part(tuple(t for tensors in found for t in tensors) if clipped else ())


def gemma4_vision(cfg: Config, prefix: str) -> Blocks:
    """A ViT with Gemma's four norms a layer, rotary positions, norms over queries and keys, a table for each axis."""
    s = tower_sizes(cfg)
    kv_heads, size = cfg.int("num_key_value_heads", default=s.heads), cfg.int("head_dim")
    clipped = cfg.bool("use_clipped_linears", default=False)
    down, across = pair(cfg, "patch_size")
    mixer = Attention(s.heads, kv_heads, size, size, causal=False)
    projections = tuple(f"{side}_proj.linear" for side in "qkvo")
    halves = ("gate_proj", "up_proj", "down_proj")

    def layer(_: str) -> list[Part]:
        over = tuple(t for side in "qk" for t in norm_tensors(f"self_attn.{side}_norm", size))
        return [
            projected_attention(mixer, s.hidden, names=projections, biases="", extra=over),
            limits(*(f"self_attn.{side}_proj" for side in "qkvo"), clipped=clipped),
            gated_mlp(s.hidden, s.ffn, names=[f"{half}.linear" for half in halves], activation="gelu_tanh"),
            limits(*(f"mlp.{half}" for half in halves), clipped=clipped),
            *(
                norm(name, s.hidden)
                for name in (
                    "input_layernorm",
                    "post_attention_layernorm",
                    "pre_feedforward_layernorm",
                    "post_feedforward_layernorm",
                )
            ),
        ]

    places = (2, cfg.int("position_embedding_size"), s.hidden)
    embeddings = (
        *weight("patch_embedder.position_embedding_table", places, "embedding", "positions"),
        *linear("patch_embedder.input_proj", s.hidden, s.channels * down * across, "embedding", "patch"),
    )
    after: Tensors = ()
    if cfg.bool("standardize", default=False):
        after = tuple(t for name in ("std_bias", "std_scale") for t in weight(name, (s.hidden,), "buffer", "norm"))
    return vit(prefix, s, layer, embeddings=embeddings, after=after)


def gemma4_audio(cfg: Config, prefix: str) -> Blocks:
    """A conformer over chunks: feed-forward, attention with relative positions, convolution, feed-forward."""
    hidden, heads = cfg.int("hidden_size"), cfg.int("num_attention_heads")
    size = max(1, hidden // heads)
    clipped = cfg.bool("use_clipped_linears", default=False)
    mixer = Attention(heads, heads, size, size, chunk=cfg.optional_int("attention_chunk_size"), causal=False)
    names = ("q_proj.linear", "k_proj.linear", "v_proj.linear", "post.linear")

    def half(name: str) -> list[Part]:
        layers = ("ffw_layer_1", "ffw_layer_2")
        return [
            plain_mlp(hidden, 4 * hidden, name=name, names=[f"{layer}.linear" for layer in layers], bias=False),
            limits(*(f"{name}.{layer}" for layer in layers), clipped=clipped),
            norm(f"{name}.pre_layer_norm", hidden),
            norm(f"{name}.post_layer_norm", hidden),
        ]

    def layer(_: str) -> list[Part]:
        relative = (
            *weight("self_attn.per_dim_scale", (size,), "attention", "scale"),
            *linear("self_attn.relative_k_proj", hidden, hidden, "attention", "relative_bias"),
        )
        convolution = (
            *linear("lconv1d.linear_start.linear", 2 * hidden, hidden, "state_space", "in"),
            *conv("lconv1d.depthwise_conv1d", hidden, 1, cfg.int("conv_kernel_size"), role="state_space", bias=False),
            *linear("lconv1d.linear_end.linear", hidden, hidden, "state_space", "out"),
            *norm_tensors("lconv1d.pre_layer_norm", hidden),
            *norm_tensors("lconv1d.conv_norm", hidden),
        )
        return [
            *half("feed_forward1"),
            projected_attention(mixer, hidden, names=names, biases="", extra=relative),
            limits(*(f"self_attn.{side}" for side in ("q_proj", "k_proj", "v_proj", "post")), clipped=clipped),
            Part(convolution),
            limits("lconv1d.linear_start", "lconv1d.linear_end", clipped=clipped),
            *half("feed_forward2"),
            *(norm(name, hidden) for name in ("norm_pre_attn", "norm_post_attn", "norm_out")),
        ]

    channels = cfg.ints("subsampling_conv_channels") or (128, 32)
    before = _subsampling(channels, hidden, "layer{}")
    after = linear("output_proj", cfg.int("output_proj_dims"), hidden, "projector", "up", bias=True)
    layers = cfg.int("num_hidden_layers", max=MAX_LAYERS)
    return listen(prefix, layers, layer, before=before, after=after)


def _subsampling(channels: tuple[int, ...], hidden: int, name: str, *, bins: int = 128) -> Tensors:
    """Convolutions that halve time and mel bins, each with a norm; then a projection of what is left of the bins."""
    tensors: Tensors = ()
    inputs = 1
    for number, outputs in enumerate(channels):
        module = f"subsample_conv_projection.{name.format(number)}"
        tensors += conv(f"{module}.conv", outputs, inputs, 3, 3, bias=False)
        tensors += norm_tensors(f"{module}.norm", outputs)
        inputs, bins = outputs, (bins + 1) // 2
    name = "subsample_conv_projection.input_proj_linear"
    return (*tensors, *linear(name, hidden, inputs * bins, "embedding", "projection"))


def gemma4(cfg: Config, assumed: str = "gemma4_text") -> Anatomy:
    """Gemma 4: towers for images and sound when the configuration has them."""
    if alone := text_alone(cfg, assumed):
        return alone
    width = text_config(cfg, assumed).int("hidden_size")
    parts: list[Block] = []
    if vision := part_config(cfg, "vision_config", "gemma4_vision"):
        between = linear("model.embed_vision.embedding_projection", width, vision.int("hidden_size"), "projector", "up")
        parts += (*gemma4_vision(vision, "model.vision_tower"), *projector(between))
    if audio := part_config(cfg, "audio_config", "gemma4_audio"):
        inputs = audio.int("output_proj_dims")
        between = linear("model.embed_audio.embedding_projection", width, inputs, "projector", "up")
        parts += (*gemma4_audio(audio, "model.audio_tower"), *projector(between))
    return composed(cfg, parts, prefix="model.language_model", assumed=assumed)


def gemma4_unified(cfg: Config) -> Anatomy:
    """Gemma 4 without towers: raw patches and raw sound are projected straight into the text."""
    if alone := text_alone(cfg, "gemma4_unified_text"):
        return alone
    width = text_config(cfg, "gemma4_unified_text").int("hidden_size")
    parts: list[Block] = []
    if vision := part_config(cfg, "vision_config", "gemma4_unified_vision"):
        side = vision.int("patch_size") * vision.int("pooling_kernel_size")
        inner, name = vision.int("mm_embed_dim"), "model.vision_embedder"
        patch = 3 * side**2
        parts += projector(
            norm_tensors(f"{name}.patch_ln1", patch, bias=True),
            linear(f"{name}.patch_dense", inner, patch, "projector", "patch", bias=True),
            norm_tensors(f"{name}.patch_ln2", inner, bias=True),
            weight(f"{name}.pos_embedding", (vision.int("mm_posemb_size"), 2, inner), "projector", "positions"),
            norm_tensors(f"{name}.pos_norm", inner, bias=True),
            linear("model.embed_vision.embedding_projection", width, inner, "projector", "up"),
            name="image projector",
        )
    if audio := part_config(cfg, "audio_config", "gemma4_unified_audio"):
        name, inputs = "model.embed_audio.embedding_projection", audio.int("audio_embed_dim")
        parts += projector(linear(name, width, inputs, "projector", "up"), name="sound projector")
    return composed(cfg, parts, prefix="model.language_model", assumed="gemma4_unified_text")


def gemma3n_audio(cfg: Config, prefix: str) -> Blocks:
    """Gemma 4's conformer with older names and unclipped layers."""
    hidden, heads = cfg.int("hidden_size"), cfg.int("conf_num_attention_heads")
    size = max(1, hidden // heads)
    mixer = Attention(heads, heads, size, size, chunk=cfg.optional_int("conf_attention_chunk_size"), causal=False)

    def half(name: str) -> list[Part]:
        names = ("ffw_layer_1", "ffw_layer_2")
        forward = plain_mlp(hidden, 4 * hidden, name=name, names=names, bias=False)
        return [forward, norm(f"{name}.pre_layer_norm", hidden), norm(f"{name}.post_layer_norm", hidden)]

    def layer(_: str) -> list[Part]:
        module = "attention.attn"
        relative = (
            *weight(f"{module}.per_dim_scale", (size,), "attention", "scale"),
            *linear(f"{module}.relative_position_embedding.pos_proj", hidden, hidden, "attention", "relative_bias"),
        )
        names = (*(f"attn.{side}_proj" for side in "qkv"), "post")
        kernel = cfg.int("conf_conv_kernel_size")
        convolution = (
            *linear("lconv1d.linear_start", 2 * hidden, hidden, "state_space", "in"),
            *conv("lconv1d.depthwise_conv1d", hidden, 1, kernel, role="state_space", bias=False),
            *linear("lconv1d.linear_end", hidden, hidden, "state_space", "out"),
            *norm_tensors("lconv1d.pre_layer_norm", hidden),
            *norm_tensors("lconv1d.conv_norm", hidden),
        )
        return [
            *half("ffw_layer_start"),
            projected_attention(mixer, hidden, name="attention", names=names, biases="", extra=relative),
            norm("attention.pre_attn_norm", hidden),
            norm("attention.post_norm", hidden),
            Part(convolution),
            *half("ffw_layer_end"),
            norm("norm", hidden),
        ]

    channels = cfg.ints("sscp_conv_channel_size") or (128, 32)
    before = _subsampling(channels, hidden, "conv_{}", bins=cfg.int("input_feat_size"))
    layers = cfg.int("conf_num_hidden_layers", max=MAX_LAYERS)
    return listen(prefix, layers, layer, before=before, stack="conformer")


def _soft_words(part: Config, name: str, width: int) -> tuple[Block, ...]:
    """Gemma 3n's projector: a table of special words, norms for them and for soft ones, and one projection."""
    inner = part.int("hidden_size")
    return projector(
        weight(f"{name}.embedding.weight", (part.int("vocab_size"), inner), "projector", "tokens"),
        norm_tensors(f"{name}.hard_embedding_norm", inner),
        norm_tensors(f"{name}.soft_embedding_norm", inner),
        linear(f"{name}.embedding_projection", width, inner, "projector", "up"),
    )


def gemma3n(cfg: Config) -> Anatomy:
    """MobileNetV5, a conformer, and a text model whose layers share caches and have embeddings of their own."""
    if alone := text_alone(cfg, "gemma3n_text"):
        return alone
    vision, audio = cfg.sub("vision_config"), cfg.sub("audio_config")
    network = vision.str("architecture", default=MOBILENET)
    if network != MOBILENET:
        raise vision.bad("architecture", network, f"{MOBILENET}, the only one described")
    width = text_config(cfg, "gemma3n_text").int("hidden_size")
    parts = (
        *mobilenet_v5("model.vision_tower.timm_model"),
        *gemma3n_audio(audio, "model.audio_tower"),
        *_soft_words(vision, "model.embed_vision", width),
        *_soft_words(audio, "model.embed_audio", width),
    )
    return composed(cfg, parts, prefix="model.language_model", assumed="gemma3n_text")
