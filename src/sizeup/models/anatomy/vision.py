"""Vision towers in the shape of a ViT: patches, positions, layers of bidirectional attention.

Each function takes the tower's own configuration and the prefix of its names, and returns blocks whose tensors have
the role `vision`. `vision_tower` finds the function by the tower's model type, where a family allows any tower.
transformers 5 leaves CLIP's and SigLIP's inner `vision_model.` out of the names it writes; older checkpoints have it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sizeup.errors import NotFound
from sizeup.models.anatomy.defaults import filled
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    block,
    fused_attention,
    gated_mlp,
    linear,
    norm,
    norm_tensors,
    plain_mlp,
    stack_of,
    weight,
)
from sizeup.models.anatomy.towers import (
    BART_NAMES,
    conv,
    layer_norm,
    prefixed,
    projected_attention,
    table,
    tower,
    two_way,
    under,
)
from sizeup.models.config import MAX_LAYERS, Config
from sizeup.models.model import Block

Blocks = tuple[Block, ...]
Tower = Callable[[Config, str], Blocks]


class TowerSizes(msgspec.Struct, frozen=True):
    """The sizes of a tower."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    channels: int


def tower_sizes(cfg: Config) -> TowerSizes:
    """Read the usual names and their aliases. The feed-forward is four times as wide when nothing is said."""
    hidden = cfg.int("hidden_size", "embed_dim", "d_model")
    ratio = cfg.float("mlp_ratio", min=0.01, max=1000, default=4.0)
    return TowerSizes(
        hidden=hidden,
        layers=cfg.int("num_hidden_layers", "depth", "num_layers", max=MAX_LAYERS),
        heads=cfg.int("num_attention_heads", "num_heads", "attention_heads"),
        ffn=cfg.int("intermediate_size", "mlp_dim", default=max(1, int(hidden * ratio))),
        channels=cfg.int("num_channels", "in_channels", "in_chans", default=3),
    )


def pair(cfg: Config, *names: str) -> tuple[int, int]:
    """Height and width, which a configuration may give as one number or as two."""
    if isinstance(cfg.get(*names), list):
        sides = cfg.ints(*names) or ()
        if len(sides) != 2:
            raise cfg.bad(names[0], list(sides), "a number or a pair of numbers")
        return sides[0], sides[1]
    side = cfg.int(*names)
    return side, side


def patches(cfg: Config) -> int:
    """Patches of one image: (height // patch height) · (width // patch width)."""
    (height, width), (down, across) = pair(cfg, "image_size"), pair(cfg, "patch_size")
    return max(1, height // down) * max(1, width // across)


def vit(
    prefix: str,
    s: TowerSizes,
    layer: Callable[[str], Sequence[Part]],
    *,
    embeddings: Tensors,
    after: Tensors = (),
    stack: str = "encoder.layers",
    kinds: Sequence[str] = (),
) -> Blocks:
    """A tower: embeddings, layers, and what comes after them; names are relative to the tower."""
    blocks = (
        block("image embedding", under(prefix, embeddings)),
        *stack_of(
            prefixed(prefix, stack), kinds or [""] * s.layers, layer, label=lambda kind: f"{kind} vision layer".strip()
        ),
        block("vision frame", under(prefix, after)),
    )
    return tower("vision", (part for part in blocks if part.tensors))


def clip_layer(s: TowerSizes, *, names: Sequence[str] = BART_NAMES, attention: Part | None = None) -> list[Part]:
    """A norm before each half: attention, and a plain feed-forward."""
    return [
        attention or projected_attention(two_way(s.heads, s.hidden), s.hidden, names=names),
        plain_mlp(s.hidden, s.ffn),
        layer_norm("layer_norm1", s.hidden),
        layer_norm("layer_norm2", s.hidden),
    ]


def clip_vision(cfg: Config, prefix: str) -> Blocks:
    """A class token, patches without a bias, learned positions, and norms before and after the layers."""
    s = tower_sizes(cfg)
    embeddings = (
        *weight("embeddings.class_embedding", (s.hidden,), "embedding", "class"),
        *conv("embeddings.patch_embedding", s.hidden, s.channels, *pair(cfg, "patch_size"), part="patch", bias=False),
        *table("embeddings.position_embedding", patches(cfg) + 1, s.hidden),
        *norm_tensors("pre_layrnorm", s.hidden, bias=True),
    )
    after = norm_tensors("post_layernorm", s.hidden, bias=True)
    return vit(prefix, s, lambda _: clip_layer(s), embeddings=embeddings, after=after)


def siglip_vision(cfg: Config, prefix: str, *, head: bool | None = None) -> Blocks:
    """Patches with a bias, learned positions, a norm after the layers, and perhaps a head that attends to them all."""
    s = tower_sizes(cfg)
    embeddings = (
        *conv("embeddings.patch_embedding", s.hidden, s.channels, *pair(cfg, "patch_size"), part="patch"),
        *table("embeddings.position_embedding", patches(cfg), s.hidden),
    )
    return vit(prefix, s, lambda _: clip_layer(s), embeddings=embeddings, after=_siglip_after(cfg, s, head=head))


def _siglip_after(cfg: Config, s: TowerSizes, *, head: bool | None) -> Tensors:
    after = norm_tensors("post_layernorm", s.hidden, bias=True)
    if cfg.bool("vision_use_head", default=True) if head is None else head:
        after += attention_pooling("head", s)
    return after


def attention_pooling(name: str, s: TowerSizes) -> Tensors:
    """SigLIP's head: a learned query that attends to all patches, and a feed-forward."""
    return (
        *weight(f"{name}.probe", (1, 1, s.hidden), "head", "query"),
        *weight(f"{name}.attention.in_proj_weight", (3 * s.hidden, s.hidden), "head", "qkv"),
        *weight(f"{name}.attention.in_proj_bias", (3 * s.hidden,), "head", "qkv"),
        *linear(f"{name}.attention.out_proj", s.hidden, s.hidden, "head", "o", bias=True),
        *norm_tensors(f"{name}.layernorm", s.hidden, bias=True),
        *plain_mlp(s.hidden, s.ffn, name=f"{name}.mlp").tensors,
    )


def siglip2_vision(cfg: Config, prefix: str) -> Blocks:
    """SigLIP for any image shape: patches come flat, positions as a table that is resized."""
    s = tower_sizes(cfg)
    down, across = pair(cfg, "patch_size")
    embeddings = (
        *linear("embeddings.patch_embedding", s.hidden, s.channels * down * across, "embedding", "patch", bias=True),
        *table("embeddings.position_embedding", cfg.int("num_patches", default=256), s.hidden),
    )
    return vit(prefix, s, lambda _: clip_layer(s), embeddings=embeddings, after=_siglip_after(cfg, s, head=None))


def idefics_vision(cfg: Config, prefix: str) -> Blocks:
    """SigLIP without the head (Idefics2 and 3, SmolVLM)."""
    return siglip_vision(cfg, prefix, head=False)


def pixtral_vision(cfg: Config, prefix: str) -> Blocks:
    """A small llama over patches: rotary positions, RMS norms, gated feed-forwards, no biases."""
    s = tower_sizes(cfg)
    size = cfg.optional_int("head_dim")

    def layer(_: str) -> list[Part]:
        names = ("q_proj", "k_proj", "v_proj", "o_proj")
        mixer = two_way(s.heads, s.hidden, head_dim=size)
        return [
            projected_attention(mixer, s.hidden, name="attention", names=names, biases=""),
            gated_mlp(s.hidden, s.ffn, name="feed_forward", activation="gelu"),
            norm("attention_norm", s.hidden),
            norm("ffn_norm", s.hidden),
        ]

    down, across = pair(cfg, "patch_size")
    embeddings = (
        *conv("patch_conv", s.hidden, s.channels, down, across, part="patch", bias=False),
        *norm_tensors("ln_pre", s.hidden),
    )
    return vit(prefix, s, layer, embeddings=embeddings, stack="transformer.layers")


def internvl_vision(cfg: Config, prefix: str) -> Blocks:
    """A ViT with a learned scale after each half."""
    s = tower_sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    layer_norms = cfg.str("norm_type", default="layer_norm") == "layer_norm"

    def layer(_: str) -> list[Part]:
        names = ("q_proj", "k_proj", "v_proj", "projection_layer")
        scales = (weight(f"lambda_{half}", (s.hidden,), "norm", "scale") for half in (1, 2))
        over = ("attention.q_norm", "attention.k_norm") if cfg.bool("use_qk_norm", default=False) else ()
        return [
            projected_attention(
                two_way(s.heads, s.hidden), s.hidden, name="attention", names=names, biases="qkvo" if bias else "o"
            ),
            *(norm(name, s.hidden, bias=False) for name in over),
            plain_mlp(s.hidden, s.ffn),
            *(Part(scale) for scale in scales),
            norm("layernorm_before", s.hidden, bias=layer_norms),
            norm("layernorm_after", s.hidden, bias=layer_norms),
        ]

    down, across = pair(cfg, "patch_size")
    embeddings = (
        *weight("embeddings.cls_token", (1, 1, s.hidden), "embedding", "class"),
        *conv("embeddings.patch_embeddings.projection", s.hidden, s.channels, down, across, part="patch"),
    )
    if cfg.bool("use_mask_token", default=False):
        embeddings += weight("embeddings.mask_token", (1, 1, s.hidden), "embedding", "mask")
    if cfg.bool("use_absolute_position_embeddings", default=False):
        embeddings += weight(
            "embeddings.position_embeddings", (1, patches(cfg) + 1, s.hidden), "embedding", "positions"
        )
    after = () if cfg.bool("use_mean_pooling", default=True) else norm_tensors("layernorm", s.hidden, bias=True)
    return vit(prefix, s, layer, embeddings=embeddings, after=after, stack="encoder.layer")


def blip2_vision(cfg: Config, prefix: str) -> Blocks:
    """CLIP's layers with one projection for queries, keys and values; no norm before them."""
    s = tower_sizes(cfg)
    attention = fused_attention(
        two_way(s.heads, s.hidden),
        s.hidden,
        qkv="self_attn.qkv",
        output="self_attn.projection",
        bias=cfg.bool("qkv_bias", default=True),
        output_bias=True,
    )
    embeddings = (
        *weight("embeddings.class_embedding", (1, 1, s.hidden), "embedding", "class"),
        *weight("embeddings.position_embedding", (1, patches(cfg) + 1, s.hidden), "embedding", "positions"),
        *conv("embeddings.patch_embedding", s.hidden, s.channels, *pair(cfg, "patch_size"), part="patch"),
    )
    after = norm_tensors("post_layernorm", s.hidden, bias=True)
    return vit(prefix, s, lambda _: clip_layer(s, attention=attention), embeddings=embeddings, after=after)


def janus_vision(cfg: Config, prefix: str) -> Blocks:
    """SigLIP without the head, its output projection under another name, perhaps norms over queries and keys."""
    s = tower_sizes(cfg)
    biases = "qkvo" if cfg.bool("attention_bias", default=True) else "o"
    over: Tensors = ()
    if cfg.bool("use_qk_norm", default=False):
        over = tuple(t for side in "qk" for t in norm_tensors(f"self_attn.{side}_norm", s.hidden, bias=True))
    attention = projected_attention(
        two_way(s.heads, s.hidden),
        s.hidden,
        names=("q_proj", "k_proj", "v_proj", "projection_layer"),
        biases=biases,
        extra=over,
    )
    embeddings = (
        *conv("embeddings.patch_embedding", s.hidden, s.channels, *pair(cfg, "patch_size"), part="patch"),
        *table("embeddings.position_embedding", patches(cfg), s.hidden),
    )
    after = norm_tensors("post_layernorm", s.hidden, bias=True)
    return vit(prefix, s, lambda _: clip_layer(s, attention=attention), embeddings=embeddings, after=after)


def llama4_vision(cfg: Config, prefix: str) -> Blocks:
    """CLIP with rotary positions beside the learned ones; an adapter over pixels shuffled into channels.

    The adapter takes intermediate_size channels, which equals hidden_size / pixel_shuffle_ratio² in released models.
    """
    s = tower_sizes(cfg)
    down, across = pair(cfg, "patch_size")

    def layer(_: str) -> list[Part]:
        return [
            projected_attention(two_way(s.heads, s.hidden), s.hidden, names=("q_proj", "k_proj", "v_proj", "o_proj")),
            plain_mlp(s.hidden, s.ffn),
            layer_norm("input_layernorm", s.hidden),
            layer_norm("post_attention_layernorm", s.hidden),
        ]

    embeddings = (
        *weight("class_embedding", (s.hidden,), "embedding", "class"),
        *weight("positional_embedding_vlm", (patches(cfg) + 1, s.hidden), "embedding", "positions"),
        *linear("patch_embedding.linear", s.hidden, s.channels * down * across, "embedding", "patch"),
        *norm_tensors("layernorm_pre", s.hidden, bias=True),
    )
    inner = cfg.int("projector_input_dim")
    adapter = (
        *linear("vision_adapter.mlp.fc1", inner, s.ffn, "mlp", "up"),
        *linear("vision_adapter.mlp.fc2", cfg.int("projector_output_dim"), inner, "mlp", "down"),
    )
    after = (*norm_tensors("layernorm_post", s.hidden, bias=True), *adapter)
    return vit(prefix, s, layer, embeddings=embeddings, after=after, stack="model.layers")


def minimax_vision(cfg: Config, prefix: str) -> Blocks:
    """CLIP's layers with rotary positions, over patches of two frames."""
    s = tower_sizes(cfg)
    frames = cfg.int("temporal_patch_size", default=2)
    down, across = pair(cfg, "patch_size")
    embeddings = (
        *conv("embeddings.patch_embedding", s.hidden, s.channels, frames, down, across, part="patch", bias=False),
        *norm_tensors("pre_layrnorm", s.hidden, bias=True),
    )
    return vit(prefixed(prefix, "vision_model"), s, lambda _: clip_layer(s), embeddings=embeddings)


TOWERS: dict[str, Tower] = {
    "clip_vision_model": clip_vision,
    "siglip_vision_model": siglip_vision,
    "siglip2_vision_model": siglip2_vision,
    "idefics2_vision": idefics_vision,
    "idefics3_vision": idefics_vision,
    "smolvlm_vision": idefics_vision,
    "pixtral": pixtral_vision,
    "internvl_vision": internvl_vision,
    "janus_vision_model": janus_vision,
}


def vision_tower(cfg: Config, prefix: str, assumed: str = "clip_vision_model") -> Blocks:
    """The tower that a nested configuration names. Raises NotFound for one without an anatomy."""
    model_type = cfg.str("model_type", default=assumed)
    if model_type not in TOWERS:
        raise NotFound(
            f"{cfg.path or 'the configuration'} names vision tower {model_type[:80]!r}, which has no anatomy",
            hint="docs/adding-an-architecture.md says how to add one",
        )
    return TOWERS[model_type](filled(cfg, model_type, nested=True), prefix)
