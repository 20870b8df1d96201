"""Vision models that stand alone: ViT and its relatives, DINO, and the pairs of CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    block,
    gated_mlp,
    linear,
    norm_tensors,
    plain_mlp,
    stack_of,
    weight,
)
from sizeup.models.anatomy.towers import (
    class_of,
    conv,
    labels_of,
    layer_norm,
    prefixed,
    projected_attention,
    table,
    two_way,
    under,
)
from sizeup.models.anatomy.vision import (
    Blocks,
    TowerSizes,
    clip_layer,
    clip_vision,
    pair,
    patches,
    siglip2_vision,
    siglip_vision,
    tower_sizes,
)
from sizeup.models.anatomy.vision import (
    vit as vit_tower,
)
from sizeup.models.config import Config
from sizeup.models.mixers import Attention


def alone(s: TowerSizes, blocks: Blocks, *heads: Tensors) -> Anatomy:
    """A vision model by itself; it has no vocabulary, which its size of 1 stands for."""
    output = tuple(b for b in (block("output", *heads),) if b.tensors)
    return Anatomy((*blocks, *output), s.hidden, 1)


def vit_layer(cfg: Config, s: TowerSizes, *, names: Sequence[str], norms: Sequence[str], forward: Part) -> list[Part]:
    """A norm before attention and one before the feed-forward; `qkv_bias` may leave those biases out."""
    biases = "qkvo" if cfg.bool("qkv_bias", default=True) else "o"
    attention = projected_attention(two_way(s.heads, s.hidden), s.hidden, name="attention", names=names, biases=biases)
    return [attention, forward, *(layer_norm(name, s.hidden) for name in norms)]


VIT_NAMES = ("attention.query", "attention.key", "attention.value", "output.dense")


def patch_and_class(cfg: Config, s: TowerSizes, *tokens: str, more: int = 0) -> Tensors:
    """Patches, further tokens of shape (1, 1, hidden), and a position for each patch and each of `1 + more` tokens."""
    rows = patches(cfg) + 1 + more
    return (
        *(t for token in tokens for t in weight(f"embeddings.{token}", (1, 1, s.hidden), "embedding", "class")),
        *conv("embeddings.patch_embeddings.projection", s.hidden, s.channels, *pair(cfg, "patch_size"), part="patch"),
        *weight("embeddings.position_embeddings", (1, rows, s.hidden), "embedding", "positions"),
    )


def vit(
    cfg: Config,
    root: str = "vit",
    tokens: Sequence[str] = ("cls_token",),
    *,
    extra: Tensors = (),
    after: Tensors = (),
    heads: Tensors | None = None,
    more: int = 0,
    bare: bool | None = None,
) -> Anatomy:
    """Patches, a class token and learned positions; `…Model` has a pooler, `…ForImageClassification` a classifier."""
    s = tower_sizes(cfg)
    name = class_of(cfg, "ViTForImageClassification")
    is_bare = name.endswith("Model") if bare is None else bare
    forward = plain_mlp(s.hidden, s.ffn, name="", names=("intermediate.dense", "output.dense"))
    norms = ("layernorm_before", "layernorm_after")
    blocks = vit_tower(
        "" if is_bare else root,
        s,
        lambda _: vit_layer(cfg, s, names=VIT_NAMES, norms=norms, forward=forward),
        embeddings=(*patch_and_class(cfg, s, *tokens, more=more), *extra),
        after=(*norm_tensors("layernorm", s.hidden, bias=True), *after),
        stack="encoder.layer",
    )
    if heads is not None and not is_bare:
        return alone(s, blocks, heads)
    if is_bare:
        width = cfg.int("pooler_output_size", default=s.hidden)
        return alone(s, blocks, linear("pooler.dense", width, s.hidden, "head", "pooler", bias=True))
    return alone(s, blocks, linear("classifier", labels_of(cfg), s.hidden, "head", "classifier", bias=True))


def deit(cfg: Config) -> Anatomy:
    """ViT with a token that learns from a teacher."""
    return vit(cfg, "deit", ("cls_token", "distillation_token"), more=1)


def yolos(cfg: Config) -> Anatomy:
    """ViT with tokens that each detect an object: a class and a box; perhaps positions anew in every layer."""
    s = tower_sizes(cfg)
    tokens = cfg.int("num_detection_tokens")
    rows = patches(cfg) + 1 + tokens
    detect = weight("embeddings.detection_tokens", (1, tokens, s.hidden), "embedding", "query")
    middle: Tensors = ()
    if cfg.bool("use_mid_position_embeddings", default=True):
        shape = (max(0, s.layers - 1), 1, rows, s.hidden)
        middle = weight("encoder.mid_position_embeddings", shape, "embedding", "positions")
    labels = labels_of(cfg, 91) + 1
    heads = tuple(
        tensor
        for module, outputs in (("class_labels_classifier", labels), ("bbox_predictor", 4))
        for number, rows_ in enumerate((s.hidden, s.hidden, outputs))
        for tensor in linear(f"{module}.layers.{number}", rows_, s.hidden, "head", "classifier", bias=True)
    )
    return vit(cfg, extra=detect, after=middle, heads=heads, more=tokens)


def dinov2(cfg: Config, *, registers: bool = False) -> Anatomy:
    """ViT with a learned scale after each half; perhaps registers, tokens that hold what no patch needs."""
    s = tower_sizes(cfg)
    name = class_of(cfg, "Dinov2Model")
    bare = not name.endswith("ForImageClassification")
    scales = tuple(t for half in (1, 2) for t in weight(f"layer_scale{half}.lambda1", (s.hidden,), "norm", "scale"))
    width = int(s.hidden * cfg.float("mlp_ratio", min=0.01, max=1000, default=4.0))
    forward = plain_mlp(s.hidden, width)
    if cfg.bool("use_swiglu_ffn", default=False):
        inner = (int(width * 2 / 3) + 7) // 8 * 8
        gated = (
            *linear("mlp.weights_in", 2 * inner, s.hidden, "mlp", "gate_up", bias=True),
            *linear("mlp.weights_out", s.hidden, inner, "mlp", "down", bias=True),
        )
        forward = Part(gated, feed_forward=gated_mlp(s.hidden, inner).feed_forward)
    extra: Tensors = ()
    if cfg.bool("use_mask_token", default=True):
        extra += weight("embeddings.mask_token", (1, s.hidden), "embedding", "mask")
    if registers:
        extra += weight(
            "embeddings.register_tokens", (1, cfg.int("num_register_tokens"), s.hidden), "embedding", "class"
        )

    def layer(_: str) -> list[Part]:
        return [*vit_layer(cfg, s, names=VIT_NAMES, norms=("norm1", "norm2"), forward=forward), Part(scales)]

    root = "" if bare else "dinov2_with_registers" if registers else "dinov2"
    embeddings = (*patch_and_class(cfg, s, "cls_token"), *extra)
    after = norm_tensors("layernorm", s.hidden, bias=True)
    blocks = vit_tower(root, s, layer, embeddings=embeddings, after=after, stack="encoder.layer")
    if bare:
        return alone(s, blocks)
    return alone(s, blocks, linear("classifier", labels_of(cfg), 2 * s.hidden, "head", "classifier", bias=True))


def dinov2_with_registers(cfg: Config) -> Anatomy:
    """DINOv2 with registers."""
    return dinov2(cfg, registers=True)


def dinov3_vit(cfg: Config) -> Anatomy:
    """DINOv2 with rotary positions and a switch for every bias."""
    s = tower_sizes(cfg)
    switches = {"q": "query_bias", "k": "key_bias", "v": "value_bias", "o": "proj_bias"}
    biases = "".join(side for side, name in switches.items() if cfg.bool(name, default=side != "k"))
    scales = tuple(t for half in (1, 2) for t in weight(f"layer_scale{half}.lambda1", (s.hidden,), "norm", "scale"))
    bias = cfg.bool("mlp_bias", default=True)
    forward = (
        gated_mlp(s.hidden, s.ffn, bias=bias)
        if cfg.bool("use_gated_mlp", default=False)
        else plain_mlp(s.hidden, s.ffn, names=("up_proj", "down_proj"), bias=bias)
    )

    def layer(_: str) -> list[Part]:
        names = ("q_proj", "k_proj", "v_proj", "o_proj")
        mixer = two_way(s.heads, s.hidden)
        return [
            projected_attention(mixer, s.hidden, name="attention", names=names, biases=biases),
            forward,
            Part(scales),
            layer_norm("norm1", s.hidden),
            layer_norm("norm2", s.hidden),
        ]

    registers = (1, cfg.int("num_register_tokens", min=0), s.hidden)
    embeddings = (
        *weight("embeddings.cls_token", (1, 1, s.hidden), "embedding", "class"),
        *weight("embeddings.mask_token", (1, 1, s.hidden), "embedding", "mask"),
        *weight("embeddings.register_tokens", registers, "embedding", "class"),
        *conv("embeddings.patch_embeddings", s.hidden, s.channels, *pair(cfg, "patch_size"), part="patch"),
    )
    after = norm_tensors("norm", s.hidden, bias=True)
    return alone(s, vit_tower("", s, layer, embeddings=embeddings, after=after, stack="layer"))


def clip_text(cfg: Config, prefix: str, *, causal: bool = True) -> tuple[Blocks, int, int, int | None]:
    """CLIP's text encoder, its width, its vocabulary and its context. SigLIP's sees both ways."""
    s = tower_sizes(cfg)
    vocabulary, context = cfg.int("vocab_size"), cfg.int("max_position_embeddings")
    size = max(1, s.hidden // s.heads)
    attention = projected_attention(Attention(s.heads, s.heads, size, size, causal=causal), s.hidden)
    blocks = (
        block(
            "embedding",
            table(prefixed(prefix, "embeddings.token_embedding"), vocabulary, s.hidden, "tokens"),
            table(prefixed(prefix, "embeddings.position_embedding"), context, s.hidden),
        ),
        *stack_of(
            prefixed(prefix, "encoder.layers"),
            [""] * s.layers,
            lambda _: clip_layer(s, attention=attention),
            stack="encoder",
            label=lambda _: "encoder layer",
        ),
        block("encoder frame", under(prefix, norm_tensors("final_layer_norm", s.hidden, bias=True)), stack="encoder"),
    )
    return blocks, s.hidden, vocabulary, context


def clip(cfg: Config) -> Anatomy:
    """Two encoders whose outputs are projected into one space."""
    text, vision = cfg.sub("text_config"), cfg.sub("vision_config")
    blocks, hidden, vocabulary, context = clip_text(text, "text_model")
    out = cfg.int("projection_dim")
    heads = (
        *linear("visual_projection", out, vision.int("hidden_size"), "projector", "up"),
        *linear("text_projection", out, hidden, "projector", "up"),
        *weight("logit_scale", (), "head", "scale"),
    )
    return Anatomy((*clip_vision(vision, "vision_model"), *blocks, block("output", heads)), hidden, vocabulary, context)


def siglip(cfg: Config, *, flexible: bool = False) -> Anatomy:
    """CLIP with a head over each encoder, a bias of the logits, and no class token. flexible: SigLIP 2."""
    text, vision = cfg.sub("text_config"), cfg.sub("vision_config")
    blocks, hidden, vocabulary, context = clip_text(text, "text_model", causal=False)
    heads = (
        *linear(
            "text_model.head", text.int("projection_size", default=hidden), hidden, "head", "projection", bias=True
        ),
        *weight("logit_scale", (1,), "head", "scale"),
        *weight("logit_bias", (1,), "head", "scale"),
    )
    see = siglip2_vision if flexible else siglip_vision
    return Anatomy((*see(vision, "vision_model"), *blocks, block("output", heads)), hidden, vocabulary, context)


def siglip2(cfg: Config) -> Anatomy:
    """SigLIP for any image shape."""
    return siglip(cfg, flexible=True)


def clip_vision_model(cfg: Config) -> Anatomy:
    """CLIP's vision encoder alone."""
    return _tower_alone(cfg, clip_vision(cfg, ""))


def siglip_vision_model(cfg: Config) -> Anatomy:
    """SigLIP's vision encoder alone."""
    return _tower_alone(cfg, siglip_vision(cfg, ""))


def siglip2_vision_model(cfg: Config) -> Anatomy:
    """SigLIP 2's vision encoder alone."""
    return _tower_alone(cfg, siglip2_vision(cfg, ""))


def _tower_alone(cfg: Config, blocks: Blocks) -> Anatomy:
    return alone(tower_sizes(cfg), blocks)
