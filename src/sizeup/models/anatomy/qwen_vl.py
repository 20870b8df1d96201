"""Qwen's image-text models: patches of two frames, a ViT without a class token, a merger of four neighbours.

The merger is the projector: a norm over patches, then two projections over four of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizeup.models.anatomy.compose import composed, projector, text_alone
from sizeup.models.anatomy.dense import llama_like, qwen2, qwen3
from sizeup.models.anatomy.family import Anatomy, sizes
from sizeup.models.anatomy.moe import dense_or, expert_count, experts_per_token, qwen3_moe, qwen_halves
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    fused_attention,
    fused_experts,
    gated_mlp,
    linear,
    mixture,
    norm,
    norm_tensors,
    plain_mlp,
)
from sizeup.models.anatomy.towers import conv, projected_attention, table, two_way
from sizeup.models.anatomy.vision import Blocks, TowerSizes, pair, tower_sizes, vit
from sizeup.models.config import Config
from sizeup.models.mixers import Attention

LANGUAGE = "model.language_model"


def patch_embedding(cfg: Config, s: TowerSizes, *, bias: bool) -> Tensors:
    """A convolution over `temporal_patch_size` frames of one patch."""
    frames = cfg.int("temporal_patch_size", default=2)
    return conv("patch_embed.proj", s.hidden, s.channels, frames, *pair(cfg, "patch_size"), part="patch", bias=bias)


def merged(cfg: Config, s: TowerSizes) -> int:
    """Channels of the patches that are merged into one token."""
    return s.hidden * cfg.int("spatial_merge_size", default=2) ** 2


def merger(
    name: str,
    cfg: Config,
    s: TowerSizes,
    out: int,
    *,
    norm_name: str = "ln_q",
    names: tuple[str, str] = ("mlp.0", "mlp.2"),
    norm_bias: bool = True,
    after: bool = False,
) -> Tensors:
    """A norm, over a patch or (`after`) over the merged ones, and two projections over merged patches."""
    inputs = merged(cfg, s)
    return (
        *norm_tensors(f"{name}.{norm_name}", inputs if after else s.hidden, bias=norm_bias),
        *linear(f"{name}.{names[0]}", inputs, inputs, "projector", "up", bias=True),
        *linear(f"{name}.{names[1]}", out, inputs, "projector", "down", bias=True),
    )


def plain_layer(s: TowerSizes, names: Sequence[str] = ("fc1", "fc2")) -> list[Part]:
    """Layer norms, one projection for queries, keys and values, a plain feed-forward."""
    return [
        fused_attention(
            two_way(s.heads, s.hidden), s.hidden, qkv="attn.qkv", output="attn.proj", bias=True, output_bias=True
        ),
        plain_mlp(s.hidden, s.ffn, names=names),
        norm("norm1", s.hidden, bias=True),
        norm("norm2", s.hidden, bias=True),
    ]


def qwen2_visual(cfg: Config, prefix: str) -> Blocks:
    """Qwen2-VL's tower. Its `hidden_size` is that of the text model; its own width is `embed_dim`."""
    width = cfg.int("embed_dim")
    ratio = cfg.float("mlp_ratio", min=0.01, max=1000, default=4.0)
    own = Config({**cfg.data, "hidden_size": width, "intermediate_size": int(width * ratio)}, cfg.origin, cfg.path)
    s = tower_sizes(own)
    tower = vit(prefix, s, lambda _: plain_layer(s), embeddings=patch_embedding(cfg, s, bias=False), stack="blocks")
    return (*tower, *projector(merger(f"{prefix}.merger", cfg, s, cfg.int("hidden_size")), name="merger"))


def qwen2_5_visual(cfg: Config, prefix: str, *, split: bool = False) -> Blocks:
    """Qwen2.5-VL's tower: RMS norms, gated feed-forwards, and windows in all but a few layers.

    split: queries, keys and values have projections of their own (Omni). Fewer key heads: EXAONE 4.5.
    """
    s = tower_sizes(cfg)
    kv_heads = cfg.int("num_key_value_heads", default=s.heads)
    window = max(1, cfg.int("window_size") // pair(cfg, "patch_size")[0]) ** 2
    full = set(cfg.ints("fullatt_block_indexes", min=0) or ())
    kinds = ["" if layer in full else "window" for layer in range(s.layers)]

    def layer(kind: str) -> list[Part]:
        size = max(1, s.hidden // s.heads)
        mixer = Attention(s.heads, kv_heads, size, size, window=window if kind else None, causal=False)
        return [
            projected_attention(mixer, s.hidden, name="attn", names=("q", "k", "v", "proj"))
            if split
            else fused_attention(mixer, s.hidden, qkv="attn.qkv", output="attn.proj", bias=True, output_bias=True),
            gated_mlp(s.hidden, s.ffn, bias=True),
            norm("norm1", s.hidden),
            norm("norm2", s.hidden),
        ]

    tower = vit(prefix, s, layer, embeddings=patch_embedding(cfg, s, bias=False), stack="blocks", kinds=kinds)
    between = merger(f"{prefix}.merger", cfg, s, cfg.int("out_hidden_size"), norm_bias=False)
    return (*tower, *projector(between, name="merger"))


def qwen3_visual(cfg: Config, prefix: str, *, omni: bool = False) -> Blocks:
    """Qwen3-VL's tower: learned positions, and mergers of inner layers that feed early text layers (deepstack).

    omni: the mergers' names in Qwen3-Omni.
    """
    s = tower_sizes(cfg)
    out = cfg.int("out_hidden_size")
    embeddings = (
        *patch_embedding(cfg, s, bias=True),
        *table("pos_embed", cfg.int("num_position_embeddings"), s.hidden),
    )
    tower = vit(
        prefix, s, lambda _: plain_layer(s, ("linear_fc1", "linear_fc2")), embeddings=embeddings, stack="blocks"
    )
    norm_name, names = ("ln_q", ("mlp.0", "mlp.2")) if omni else ("norm", ("linear_fc1", "linear_fc2"))
    deep = f"{prefix}.{'merger_list' if omni else 'deepstack_merger_list'}"
    mergers = [
        merger(f"{deep}.{number}", cfg, s, out, norm_name=norm_name, names=names, after=True)
        for number, _ in enumerate(cfg.ints("deepstack_visual_indexes", min=0) or ())
    ]
    last = merger(f"{prefix}.merger", cfg, s, out, norm_name=norm_name, names=names)
    return (*tower, *projector(last, *mergers, name="merger"))


def qwen2_vl(cfg: Config) -> Anatomy:
    """Qwen2 with rotary positions in time, height and width, which are no tensors."""
    return composed(cfg, qwen2_visual(cfg.sub("vision_config"), "visual"), prefix="model", assumed="qwen2_vl_text")


def qwen2_5_vl(cfg: Config) -> Anatomy:
    """Qwen2-VL with windows in the tower."""
    return composed(cfg, qwen2_5_visual(cfg.sub("vision_config"), "visual"), prefix="model", assumed="qwen2_5_vl_text")


def qwen3_vl(cfg: Config) -> Anatomy:
    """Qwen3 behind Qwen3-VL's tower."""
    return composed(
        cfg, qwen3_visual(cfg.sub("vision_config"), "model.visual"), prefix=LANGUAGE, assumed="qwen3_vl_text"
    )


def qwen3_vl_moe(cfg: Config) -> Anatomy:
    """Qwen3-VL with mixtures."""
    return composed(
        cfg, qwen3_visual(cfg.sub("vision_config"), "model.visual"), prefix=LANGUAGE, assumed="qwen3_vl_moe_text"
    )


def qwen3_5(cfg: Config) -> Anatomy:
    """Qwen3.5: Qwen3-VL's tower without deepstack, gated delta nets between full layers in the text."""
    if alone := text_alone(cfg, "qwen3_5_text"):
        return alone
    return composed(
        cfg, qwen3_visual(cfg.sub("vision_config"), "model.visual"), prefix=LANGUAGE, assumed="qwen3_5_text"
    )


def qwen3_5_moe(cfg: Config) -> Anatomy:
    """Qwen3.5 with mixtures."""
    if alone := text_alone(cfg, "qwen3_5_moe_text"):
        return alone
    return composed(
        cfg, qwen3_visual(cfg.sub("vision_config"), "model.visual"), prefix=LANGUAGE, assumed="qwen3_5_moe_text"
    )


def exaone4_5(cfg: Config) -> Anatomy:
    """EXAONE 4 behind Qwen2.5-VL's tower with grouped keys."""
    return composed(cfg, qwen2_5_visual(cfg.sub("vision_config"), "model.visual"), prefix=LANGUAGE, assumed="exaone4")


def hyperclovax_vision_v2(cfg: Config) -> Anatomy:
    """HyperCLOVA X behind Qwen2.5-VL's tower and one more projection."""
    vision = cfg.sub("vision_config")
    width = cfg.sub("text_config").int("hidden_size")
    between = linear("model.vision_projector", width, vision.int("out_hidden_size"), "projector", "up", bias=True)
    parts = (*qwen2_5_visual(vision, "model.vision_model"), *projector(between))
    return composed(cfg, parts, prefix=LANGUAGE, head="model.language_model.lm_head", assumed="hyperclovax")


def qwen2_vl_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen2 (also Qwen2.5-VL and -Omni)."""
    return qwen2(cfg, prefix)


def qwen3_vl_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen3."""
    return qwen3(cfg, prefix)


def qwen3_omni_moe_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen3-MoE."""
    return qwen3_moe(cfg, prefix)


def qwen3_vl_moe_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen3-MoE with all experts of a layer in one tensor; published files store it transposed, (experts, in, out)."""
    s = sizes(cfg)
    count = expert_count(cfg, "num_local_experts", "num_experts")
    width, used = cfg.int("moe_intermediate_size"), experts_per_token(cfg, count)
    bias = cfg.bool("attention_bias", default=False)

    def sparse() -> Part:
        return mixture(s.hidden, width, count, used, routed=fused_experts(s.hidden, width, count, used))

    return llama_like(
        cfg,
        prefix,
        halves=qwen_halves(cfg, s),
        feed_forward=dense_or(s, sparse),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="head",
    )
