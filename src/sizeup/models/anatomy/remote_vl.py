"""Image-text models whose classes are published with the weights: InternVL, MiniCPM-V, Molmo, Kimi-VL, DeepSeek-OCR."""

from __future__ import annotations

import msgspec

from sizeup.errors import NotFound
from sizeup.models.anatomy.compose import composed, parameter, projector, renamed, two_linears
from sizeup.models.anatomy.family import Anatomy, Sizes, decoder, full_attention, sizes
from sizeup.models.anatomy.image_text import moon_vision, pooling_queries
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    fused_attention,
    gated_mlp,
    linear,
    norm_tensors,
    plain_mlp,
    weight,
)
from sizeup.models.anatomy.registry import nested_anatomy
from sizeup.models.anatomy.respelled import read_as
from sizeup.models.anatomy.sam import sam_vision
from sizeup.models.anatomy.towers import conv, layer_norm, projected_attention, two_way
from sizeup.models.anatomy.vision import (
    Blocks,
    TowerSizes,
    clip_vision,
    pair,
    patches,
    siglip_vision,
    tower_sizes,
    vit,
)
from sizeup.models.config import Config

LANGUAGE = "language_model.model"
LANGUAGE_HEAD = "language_model.lm_head"


def _undescribed(cfg: Config, what: str) -> NotFound:
    """The error for a relative that has the same model type and other parts; it leads to an estimate."""
    return NotFound(f"{what} has no anatomy ({cfg.origin})", hint="docs/adding-an-architecture.md says how to add one")


def intern_vision(cfg: Config, prefix: str) -> Blocks:
    """InternViT: fused projections, a learned scale after each half; the 6B with RMS norms over queries and keys."""
    s = tower_sizes(cfg)
    layer_norms = cfg.str("norm_type", default="layer_norm") == "layer_norm"
    over: Tensors = ()
    if cfg.bool("qk_normalization", default=False):
        over = tuple(t for side in "qk" for t in norm_tensors(f"attn.{side}_norm", s.hidden, part=f"{side}_norm"))
    attention = fused_attention(
        two_way(s.heads, s.hidden),
        s.hidden,
        qkv="attn.qkv",
        output="attn.proj",
        bias=cfg.bool("qkv_bias", default=False),
        output_bias=True,
        extra=over,
    )
    halves = (
        *(norm_tensors(f"norm{half}", s.hidden, bias=layer_norms) for half in (1, 2)),
        *(weight(f"ls{half}", (s.hidden,), "norm", "scale") for half in (1, 2)),
    )
    layer = [attention, plain_mlp(s.hidden, s.ffn), *(Part(tensors) for tensors in halves)]
    embeddings = (
        *weight("embeddings.class_embedding", (1, 1, s.hidden), "embedding", "class"),
        *conv("embeddings.patch_embedding", s.hidden, s.channels, *pair(cfg, "patch_size"), part="patch"),
        *weight("embeddings.position_embedding", (1, patches(cfg) + 1, s.hidden), "embedding", "positions"),
    )
    return vit(prefix, s, lambda _: layer, embeddings=embeddings)


def internvl_chat(cfg: Config) -> Anatomy:
    """InternViT, pixels shuffled into channels, a norm and two projections, any text model (`llm_config`)."""
    vision, text = cfg.sub("vision_config"), cfg.sub("llm_config")
    ratio = cfg.float("downsample_ratio", min=0.01, max=1, default=0.5)
    inputs, hidden = vision.int("hidden_size") * int(1 / ratio) ** 2, text.int("hidden_size")
    between = (
        *norm_tensors("mlp1.0", inputs, bias=True),
        *linear("mlp1.1", hidden, inputs, "projector", "up", bias=True),
        *linear("mlp1.3", hidden, hidden, "projector", "down", bias=True),
    )
    parts = (*intern_vision(vision, "vision_model"), *projector(between))
    own = Config({name: value for name, value in text.data.items() if name != "architectures"}, cfg.origin, text.path)
    inner = nested_anatomy(own, LANGUAGE)
    blocks = inner.blocks
    for head in ("lm_head.", "output."):
        blocks = tuple(renamed(part, head, f"language_model.{head}") for part in blocks)
    return Anatomy((*parts, *blocks), inner.hidden, inner.vocabulary, inner.context, inner.notes)


#: Text model of MiniCPM-V by its `version`.
MINICPM_TEXT = {"2.0": "minicpm", "2.5": "llama", "2.6": "qwen2", "4.0": "llama", "4": "llama", "4.5": "qwen3"}


def minicpmv(cfg: Config) -> Anatomy:
    """SigLIP without its head, a resampler of one attention layer, and a text model that the version names."""
    version = str(cfg.get("version") or "2.5")
    if version not in MINICPM_TEXT or version == "2.0":
        raise _undescribed(cfg, f"MiniCPM-V of version {version[:20]!r}")
    vision, hidden = read_as(cfg.sub("vision_config"), "siglip_vision_model"), cfg.int("hidden_size")
    own = vision.int("hidden_size")
    between = (
        *parameter("resampler.query", cfg.int("query_num", default=64), hidden, part="query"),
        *linear("resampler.kv_proj", hidden, own, "projector", "kv"),
        *weight("resampler.attn.in_proj_weight", (3 * hidden, hidden), "projector", "qkv"),
        *weight("resampler.attn.in_proj_bias", (3 * hidden,), "projector", "qkv"),
        *linear("resampler.attn.out_proj", hidden, hidden, "projector", "o", bias=True),
        *(t for name in ("ln_q", "ln_kv", "ln_post") for t in norm_tensors(f"resampler.{name}", hidden, bias=True)),
        *parameter("resampler.proj", hidden, hidden, part="up"),
    )
    if cfg.bool("drop_vision_last_layer", default=False):
        fewer = vision.int("num_hidden_layers", min=2) - 1
        vision = Config(vision.data | {"num_hidden_layers": fewer}, vision.origin, vision.path)
    parts = (*siglip_vision(vision, "vpm", head=False), *projector(between))
    return composed(cfg, parts, prefix="llm.model", head="llm.lm_head", text_type=MINICPM_TEXT[version])


#: CLIP ViT-L/14 at 336 pixels without its last layers, and words beyond the vocabulary: constants of Molmo's own class.
MOLMO_VISION = TowerSizes(hidden=1024, layers=23, heads=16, ffn=4096, channels=3)
MOLMO_PATCHES, MOLMO_PIXELS, MOLMO_FEATURES, MOLMO_WORDS = 577, 14 * 14 * 3, 2, 128


def molmo(cfg: Config) -> Anatomy:
    """Two layers of CLIP side by side, attention that pools patches, a gated projector; OLMo's names around Qwen2.

    The class isn't in transformers, and its tower isn't in the configuration: sizes follow the published file
    (Molmo-7B-D: 8,021,025,280). `intermediate_size` is the width of gate and up together.
    """
    v, both, hidden = MOLMO_VISION, cfg.int("intermediate_size"), cfg.int("hidden_size")
    root = "model.vision_backbone"

    def layer(_: str) -> list[Part]:
        return [
            projected_attention(two_way(v.heads, v.hidden), v.hidden, name="attention", names=("wq", "wk", "wv", "wo")),
            plain_mlp(v.hidden, v.ffn, name="feed_forward", names=("w1", "w2")),
            layer_norm("attention_norm", v.hidden),
            layer_norm("ffn_norm", v.hidden),
        ]

    embeddings = (
        *weight("class_embedding", (v.hidden,), "embedding", "class"),
        *weight("positional_embedding", (MOLMO_PATCHES, v.hidden), "embedding", "positions"),
        *linear("patch_embedding", v.hidden, MOLMO_PIXELS, "embedding", "patch"),
        *norm_tensors("pre_ln", v.hidden, bias=True),
    )
    see = vit(f"{root}.image_vit", v, layer, embeddings=embeddings, stack="transformer.resblocks")
    joined = MOLMO_FEATURES * v.hidden
    names = ("wq", "wk", "wv", "wo")
    pool = projected_attention(
        two_way(v.heads, v.hidden), v.hidden, name=f"{root}.image_pooling_2d", names=names, source=joined
    )
    name = f"{root}.image_projector"
    between = (
        *pooling_queries(pool, joined),
        *linear(f"{name}.w1", both // 2, v.hidden, "projector", "gate"),
        *linear(f"{name}.w3", both // 2, v.hidden, "projector", "up"),
        *linear(f"{name}.w2", hidden, both // 2, "projector", "down"),
        *parameter(f"{root}.pad_embed", 2, joined, part="padding"),
    )
    text = _molmo_text(cfg, both)
    return Anatomy((*see, *projector(between), *text.blocks), text.hidden, text.vocabulary, text.context)


def _molmo_text(cfg: Config, both: int) -> Anatomy:
    s, prefix = sizes(cfg), "model.transformer"
    rows = cfg.int("embedding_size", default=s.vocabulary)
    wide = Sizes(s.hidden, s.layers, s.heads, s.kv_heads, s.head_dim, both // 2, rows, s.context)
    bias = cfg.bool("qkv_bias", default=False)
    mix = fused_attention(full_attention(wide), s.hidden, qkv="att_proj", output="attn_out", bias=bias)
    forward = Part(
        (
            *linear("ff_proj", both, s.hidden, "mlp", "gate_up"),
            *linear("ff_out", s.hidden, both // 2, "mlp", "down"),
        ),
        feed_forward=gated_mlp(s.hidden, both // 2).feed_forward,
    )
    after = cfg.bool("norm_after", default=False)
    return decoder(
        cfg,
        prefix,
        s=wide,
        mix=lambda _: mix,
        feed_forward=lambda _: forward,
        norms=("attn_norm", "ff_norm"),
        norm_bias=cfg.str("layer_norm_type", default="rms") != "rms",
        layers_name="blocks",
        embedding="wte.embedding",
        positions=weight(f"{prefix}.wte.new_embedding", (MOLMO_WORDS, s.hidden), "embedding", "tokens"),
        final_norm="ln_f",
        head_name=f"{prefix}.ff_out",
        tied=cfg.bool("weight_tying", default=False) and not after,
    )


def kimi_vl(cfg: Config) -> Anatomy:
    """MoonViT, four patches joined to one, a norm and two projections, DeepSeek-V3 without compressed queries."""
    vision, hidden = cfg.sub("vision_config"), cfg.sub("text_config").int("hidden_size")
    kernel = vision.ints("merge_kernel_size") or (2, 2)
    joined = vision.int("hidden_size") * kernel[0] * kernel[-1]
    between = (
        *norm_tensors("multi_modal_projector.pre_norm", vision.int("hidden_size"), bias=True),
        *two_linears("multi_modal_projector", hidden, joined, middle=joined),
    )
    places = (vision.int("init_pos_emb_height", default=64), vision.int("init_pos_emb_width", default=64))
    parts = (*moon_vision(vision, "vision_tower", places), *projector(between))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="deepseek_v3")


#: What DeepSeek-OCR's own class builds in front of its text model: SAM's base and CLIP's large tower.
OCR_SAM = {
    "hidden_size": 768,
    "output_channels": 256,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 1024,
    "patch_size": 16,
    "mlp_dim": 3072,
    "window_size": 14,
    "global_attn_indexes": [2, 5, 8, 11],
}
OCR_CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 14,
}


def without_last_norm(blocks: Blocks) -> Blocks:
    """A tower whose layers' output is taken as it is."""
    kept = (
        msgspec.structs.replace(part, tensors=tuple(t for t in part.tensors if "post_layernorm" not in t.name))
        for part in blocks
    )
    return tuple(part for part in kept if part.tensors)


def deepseek_ocr(cfg: Config) -> Anatomy:
    """SAM, two convolutions and CLIP over its output, one projection, the first DeepSeek mixture.

    The class isn't in transformers: sizes follow the published file (DeepSeek-OCR: 3,336,106,240).
    """
    text, between = cfg.sub("language_config"), cfg.sub("projector_config")
    if between.str("projector_type", default="linear") != "linear":
        raise _undescribed(cfg, "DeepSeek-VL2 with a projector other than DeepSeek-OCR's")
    hidden = text.int("hidden_size")
    fine, whole = (Config(sizes_, cfg.origin, "vision_config") for sizes_ in (OCR_SAM, OCR_CLIP))
    parts = (
        *sam_vision(fine, "model.sam_model"),
        *without_last_norm(clip_vision(whole, "model.vision_model")),
        *projector(
            conv("model.sam_model.net_2", 512, 256, 3, 3, bias=False),
            conv("model.sam_model.net_3", 1024, 512, 3, 3, bias=False),
            linear("model.projector.layers", hidden, between.int("input_dim"), "projector", "up", bias=True),
            parameter("model.image_newline", hidden, part="newline"),
            parameter("model.view_seperator", hidden, part="newline"),
        ),
    )
    latent = text.bool("use_mla", default=True)
    inner = {name: value for name, value in text.data.items() if name not in {"architectures", "model_type"}}
    family = Config(inner | {"model_type": "deepseek_v2" if latent else "deepseek"}, cfg.origin, text.path)
    found = nested_anatomy(family, "model")
    return Anatomy((*parts, *found.blocks), found.hidden, found.vocabulary, found.context, found.notes)
