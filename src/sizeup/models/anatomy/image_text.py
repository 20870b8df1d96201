"""Image-text models with a tower or projector of their own: MiniCPM-V, Ovis, Molmo, Aria, Kimi, OCR models."""

from __future__ import annotations

from sizeup.models.anatomy.compose import composed, parameter, projector, text_config, two_linears
from sizeup.models.anatomy.dense import ernie4_5
from sizeup.models.anatomy.family import Anatomy, full_attention, sizes
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
from sizeup.models.anatomy.towers import conv, layer_norm, projected_attention, table, tower, two_way
from sizeup.models.anatomy.vision import (
    Blocks,
    clip_layer,
    idefics_vision,
    pair,
    patches,
    pixtral_vision,
    tower_sizes,
    vision_tower,
    vit,
)
from sizeup.models.config import Config
from sizeup.models.tensors import Tensor

LANGUAGE, LANGUAGE_HEAD, INNER = "language_model.model", "language_model.lm_head", "model.language_model"


def width_of(cfg: Config, assumed: str) -> int:
    """Width of the text model."""
    return text_config(cfg, assumed).int("hidden_size")


def video_llava(cfg: Config) -> Anatomy:
    """LLaVA with one tower for images and one for videos."""
    vision = cfg.sub("vision_config")
    between = two_linears("multi_modal_projector", width_of(cfg, "llama"), vision.int("hidden_size"))
    towers = (*vision_tower(vision, "image_tower"), *vision_tower(vision, "video_tower"))
    return composed(cfg, (*towers, *projector(between)), prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="llama")


def video_llama_3(cfg: Config) -> Anatomy:
    """SigLIP's layers with rotary positions instead of a table, two projections, Qwen2."""
    vision, width = cfg.sub("vision_config"), width_of(cfg, "qwen2")
    s = tower_sizes(vision)
    embeddings = conv("embeddings.patch_embedding", s.hidden, s.channels, *pair(vision, "patch_size"), part="patch")
    after = norm_tensors("post_layernorm", s.hidden, bias=True)
    see = vit("model.vision_model", s, lambda _: clip_layer(s), embeddings=embeddings, after=after)
    between = two_linears("model.projector.readout", width, s.hidden, names=("0", "2"))
    return composed(cfg, (*see, *projector(between)), prefix=INNER, assumed="qwen2")


def lighton_ocr(cfg: Config) -> Anatomy:
    """Mistral 3's tower and projector in front of Qwen3."""
    vision, width = cfg.sub("vision_config"), width_of(cfg, "qwen3")
    own, merge = vision.int("hidden_size"), cfg.int("spatial_merge_size") ** 2
    name = "model.vision_projection"
    between = (
        *norm_tensors(f"{name}.norm", own),
        *linear(f"{name}.patch_merger.merging_layer", own, own * merge, "projector", "merge"),
        *two_linears(name, width, own, bias=False),
    )
    parts = (*pixtral_vision(vision, "model.vision_encoder"), *projector(between))
    return composed(cfg, parts, prefix=INNER, assumed="qwen3")


def qianfan_ocr(cfg: Config) -> Anatomy:
    """InternVL with the names of its first release, and Qwen3.

    transformers 5.23 would write `encoder.layers` for the text's layers as well; published files don't.
    """
    vision, width = cfg.sub("vision_config"), width_of(cfg, "qwen3")
    s = tower_sizes(vision)
    inputs = s.hidden * int(1 / cfg.float("downsample_ratio", min=0.01, max=1)) ** 2
    bias = vision.bool("attention_bias", default=True)
    scales = tuple(t for half in (1, 2) for t in weight(f"ls{half}", (s.hidden,), "norm", "scale"))

    def layer(_: str) -> list[Part]:
        return [
            fused_attention(
                two_way(s.heads, s.hidden), s.hidden, qkv="attn.qkv", output="attn.proj", bias=bias, output_bias=True
            ),
            plain_mlp(s.hidden, s.ffn),
            Part(scales),
            layer_norm("norm1", s.hidden),
            layer_norm("norm2", s.hidden),
        ]

    embeddings = (
        *weight("embeddings.class_embedding", (1, 1, s.hidden), "embedding", "class"),
        *conv("embeddings.patch_embedding", s.hidden, s.channels, *pair(vision, "patch_size"), part="patch"),
        *weight("embeddings.position_embedding", (1, patches(vision) + 1, s.hidden), "embedding", "positions"),
    )
    between = (
        *norm_tensors("mlp1.0", inputs, bias=True),
        *two_linears("mlp1", width, inputs, names=("1", "3")),
    )
    parts = (*vit("vision_model", s, layer, embeddings=embeddings), *projector(between))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="qwen3")


def paddleocr_vl(cfg: Config) -> Anatomy:
    """SigLIP without its head, a norm, four patches joined to one, two projections, ERNIE 4.5."""
    vision, width = cfg.sub("vision_config"), width_of(cfg, "paddleocr_vl_text")
    own = vision.int("hidden_size")
    joined = own * vision.int("spatial_merge_size", default=2) ** 2
    between = (
        *norm_tensors("mlp_AR.pre_norm", own, bias=True),
        *two_linears("mlp_AR", width, joined, middle=joined),
    )
    parts = (*idefics_vision(vision, "visual.vision_model"), *projector(between))
    return composed(cfg, parts, prefix="model", assumed="paddleocr_vl_text")


def paddleocr_vl_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """ERNIE 4.5."""
    return ernie4_5(cfg, prefix)


def minicpmv4_6(cfg: Config) -> Anatomy:
    """SigLIP with a merger of windows inside the tower, mergers after it, and Qwen3.5."""
    vision, width = cfg.sub("vision_config"), width_of(cfg, "qwen3_5_text")
    own, wide = vision.int("hidden_size"), vision.int("intermediate_size")
    window = vision.ints("window_kernel_size") or (2, 2)
    joined = own * window[0] * window[-1]
    inside = "model.vision_tower.vit_merger"
    mixer = two_way(vision.int("num_attention_heads"), own, window=window[0] * window[-1])
    merge = (
        *projected_attention(mixer, own, name=f"{inside}.self_attn").tensors,
        *norm_tensors(f"{inside}.layer_norm1", own, bias=True),
        *norm_tensors(f"{inside}.pre_norm", joined, bias=True),
        *linear(f"{inside}.linear_1", wide * window[0] * window[-1], joined, "mlp", "up", bias=True),
        *linear(f"{inside}.linear_2", own, wide * window[0] * window[-1], "mlp", "down", bias=True),
    )
    kernel = cfg.ints("merge_kernel_size") or (2, 2)
    merged, times = own * kernel[0] * kernel[-1], cfg.int("merger_times", max=100, default=1)
    mergers: Tensors = ()
    for number in range(times):
        out = width if number == times - 1 else own
        name = f"model.merger.mlp.{number}"
        mergers += two_linears(name, out, merged, middle=merged, norm="pre_norm")
    parts = (
        *idefics_vision(vision, "model.vision_tower"),
        *tower("vision", (block("window merger", merge),)),
        *projector(mergers),
    )
    return composed(cfg, parts, prefix=INNER, assumed="qwen3_5_text")


def ovis2(cfg: Config) -> Anatomy:
    """An AIMv2 tower that names visual words, with a table of them that is looked up like text; Qwen2."""
    vision = cfg.sub("vision_config")
    s = tower_sizes(vision)
    bias, mlp_bias = vision.bool("qkv_bias", default=False), vision.bool("mlp_bias", default=False)

    def layer(_: str) -> list[Part]:
        return [
            projected_attention(two_way(s.heads, s.hidden), s.hidden, name="attention", biases="qkvo" if bias else ""),
            gated_mlp(s.hidden, s.ffn, name="ffn", bias=mlp_bias),
            norm("rms_norm1", s.hidden),
            norm("rms_norm2", s.hidden),
        ]

    embeddings = (
        *conv("embeddings.patch_embedding", s.hidden, s.channels, *pair(vision, "patch_size"), part="patch"),
        *table("embeddings.position_embedding", patches(vision), s.hidden),
        *norm_tensors("embeddings.rms_norm", s.hidden),
    )
    words = vision.int("vocab_size")
    named = words - vision.int("num_visual_indicator_tokens", min=0, default=5)
    stride = vision.int("hidden_stride", default=1) ** 2
    between = (
        *linear("model.vision_tower.head_linear", named, s.hidden * stride, "projector", "up"),
        *norm_tensors("model.vision_tower.head_norm", named, bias=True),
        *table("model.visual_embeddings_table", words, cfg.int("hidden_size"), "visual_words"),
    )
    see = vit(
        "model.vision_tower.transformer", s, layer, embeddings=embeddings, after=norm_tensors("rms_norm", s.hidden)
    )
    nested = Config({k: v for k, v in cfg.data.items() if k != "hidden_size"}, cfg.origin, cfg.path)
    return composed(nested, (*see, *projector(between)), prefix=INNER, assumed="qwen2")


def aria(cfg: Config) -> Anatomy:
    """SigLIP, learned queries that attend to all patches, two projections, a mixture of experts."""
    vision, width = cfg.sub("vision_config"), width_of(cfg, "aria_text")
    own, name = vision.int("hidden_size"), "multi_modal_projector"
    queries = cfg.get("projector_patch_to_query_dict")
    counts = Config(queries if isinstance(queries, dict) else {}, cfg.origin, "projector_patch_to_query_dict")
    most = cfg.int(
        "max_value_projector_patch_to_query_dict", default=max((counts.int(k) for k in counts.data), default=256)
    )
    cross = f"{name}.cross_attn"
    between = (
        *parameter(f"{name}.query", most, own, part="query"),
        *(t for side in "qkv" for t in linear(f"{cross}.{side}_proj", own, own, "projector", side)),
        *parameter(f"{cross}.multihead_attn.in_proj_weight", 3 * own, own, part="qkv"),
        *parameter(f"{cross}.multihead_attn.in_proj_bias", 3 * own, part="qkv"),
        *linear(f"{cross}.multihead_attn.out_proj", own, own, "projector", "o", bias=True),
        *linear(f"{cross}.linear", own, own, "projector", "o", bias=True),
        *(t for norm_ in ("layer_norm", "layer_norm_kv") for t in norm_tensors(f"{cross}.{norm_}", own, bias=True)),
        *norm_tensors(f"{name}.layer_norm", own, bias=True),
        *linear(f"{name}.feed_forward.linear_in", width, own, "projector", "up"),
        *linear(f"{name}.feed_forward.linear_out", width, width, "projector", "down"),
    )
    parts = (*idefics_vision(vision, "vision_tower"), *projector(between))
    return composed(cfg, parts, prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="aria_text")


def moon_vision(vision: Config, prefix: str, places: tuple[int, int]) -> Blocks:
    """MoonViT: a table of places by row and column, rotary positions, fused projections."""
    s = tower_sizes(vision)

    def layer(_: str) -> list[Part]:
        mixer = two_way(s.heads, s.hidden)
        return [
            fused_attention(mixer, s.hidden, qkv="wqkv", output="wo", bias=True, output_bias=True),
            plain_mlp(s.hidden, s.ffn, names=("fc0", "fc1")),
            layer_norm("norm0", s.hidden),
            layer_norm("norm1", s.hidden),
        ]

    embeddings = (
        *weight("patch_embed.pos_emb.weight", (*places, s.hidden), "embedding", "positions"),
        *conv("patch_embed.proj", s.hidden, s.channels, *pair(vision, "patch_size"), part="patch"),
    )
    after = norm_tensors("encoder.final_layernorm", s.hidden, bias=True)
    return vit(prefix, s, layer, embeddings=embeddings, after=after, stack="encoder.blocks")


def kimi_k25(cfg: Config) -> Anatomy:
    """MoonViT over images and videos, four patches joined to one, two projections, DeepSeek-V3.

    Names are those of the published files; transformers 5.23 would write `blocks` for the text's layers as well.
    """
    vision, width = cfg.sub("vision_config"), width_of(cfg, "deepseek_v3")
    see = moon_vision(vision, "vision_tower", (vision.int("pos_emb_height"), vision.int("pos_emb_width")))
    kernel = vision.ints("merge_kernel_size") or (2, 2)
    own = cfg.int("projection_hidden_size", default=tower_sizes(vision).hidden)
    joined = own * kernel[0] * kernel[-1]
    between = (
        *norm_tensors("mm_projector.pre_norm", own, bias=True),
        *two_linears("mm_projector.proj", width, joined, middle=joined, names=("0", "2")),
    )
    return composed(cfg, (*see, *projector(between)), prefix=LANGUAGE, head=LANGUAGE_HEAD, assumed="deepseek_v3")


def molmo2(cfg: Config) -> Anatomy:
    """Two layers of a ViT side by side, attention that pools patches, a gated projector, a Qwen3 by other names."""
    vision, adapter = cfg.sub("vision_config"), cfg.sub("adapter_config")
    s = tower_sizes(vision)
    root, down = "model.vision_backbone", pair(vision, "patch_size")

    def layer(_: str) -> list[Part]:
        mixer = two_way(s.heads, s.hidden, head_dim=vision.int("head_dim"))
        return [
            projected_attention(mixer, s.hidden, name="attention", names=("wq", "wk", "wv", "wo")),
            plain_mlp(s.hidden, s.ffn, name="feed_forward", names=("w1", "w2")),
            layer_norm("attention_norm", s.hidden),
            layer_norm("ffn_norm", s.hidden),
        ]

    positions = (vision.int("num_position_embeddings"), s.hidden)
    embeddings = (
        *linear("patch_embedding", s.hidden, s.channels * down[0] * down[1], "embedding", "patch", bias=True),
        *weight("positional_embedding", positions, "embedding", "positions"),
    )
    see = vit(f"{root}.image_vit", s, layer, embeddings=embeddings, stack="transformer.resblocks")
    own, wide = adapter.int("hidden_size"), adapter.int("intermediate_size")
    features = len(adapter.list("vision_feature_layers", "vision_feature_layer", "vit_layers")) or 1
    pooled = two_way(adapter.int("num_attention_heads"), own, head_dim=adapter.int("head_dim"))
    pool = projected_attention(
        pooled, own, name=f"{root}.image_pooling_2d", names=("wq", "wk", "wv", "wo"), source=features * own
    )
    name = f"{root}.image_projector"
    between = (
        *pooling_queries(pool, features * own),
        *linear(f"{name}.w1", wide, own, "projector", "gate"),
        *linear(f"{name}.w3", wide, own, "projector", "up"),
        *linear(f"{name}.w2", adapter.int("text_hidden_size"), wide, "projector", "down"),
    )
    return composed(cfg, (*see, *projector(between)), prefix="model.transformer", assumed="molmo2_text")


def pooling_queries(pool: Part, inputs: int) -> Tensors:
    """The projections of a pooling attention whose queries are as wide as its keys."""
    return tuple(
        Tensor(t.name, (t.shape[0], inputs), t.role, t.part) if t.part == "q" and len(t.shape) == 2 else t
        for t in pool.tensors
    )


def molmo2_text(cfg: Config, prefix: str = "model.transformer") -> Anatomy:
    """Qwen3 with fused projections, and further words in a second table (transformers writes two equal halves)."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    over = tuple(t for side in "qk" for t in norm_tensors(f"self_attn.{side}_norm", s.head_dim, part=f"{side}_norm"))

    def layer(_: str) -> list[Part]:
        return [
            fused_attention(
                full_attention(s),
                s.hidden,
                qkv="self_attn.att_proj",
                output="self_attn.attn_out",
                bias=bias,
                extra=over,
            ),
            gated_mlp(s.hidden, s.ffn, fused="ff_proj", names=("ff_out",)),
            norm("attn_norm", s.hidden),
            norm("ff_norm", s.hidden),
        ]

    more = cfg.int("additional_vocab_size", min=0, default=0)
    blocks = (
        block(
            "embedding",
            weight(f"{prefix}.wte.embedding", (s.vocabulary, s.hidden), "embedding", "tokens"),
            weight(f"{prefix}.wte.new_embedding", (more, s.hidden), "embedding", "tokens"),
        ),
        *stack_of(f"{prefix}.blocks", [""] * s.layers, layer, label=lambda _: "layer"),
        block(
            "output",
            norm_tensors(f"{prefix}.ln_f", s.hidden),
            linear("lm_head", s.vocabulary, s.hidden, "head", "head"),
        ),
    )
    return Anatomy(blocks, s.hidden, s.vocabulary, s.context)
