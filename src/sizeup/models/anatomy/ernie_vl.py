"""ERNIE-4.5-VL: experts for words and narrower ones for images in the same layers, a tower, a resampler."""

from __future__ import annotations

import msgspec

from sizeup.models.anatomy.compose import composed, projector
from sizeup.models.anatomy.dense import llama_like
from sizeup.models.anatomy.family import DENSE, Anatomy, Sizes, sizes, sparse_halves
from sizeup.models.anatomy.moe import expert_count, experts_per_token, shared_count, shared_mlp
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    fused_attention,
    gated_mlp,
    linear,
    mixture,
    norm_tensors,
    plain_mlp,
    weight,
)
from sizeup.models.anatomy.towers import layer_norm, two_way
from sizeup.models.anatomy.vision import Blocks, pair, tower_sizes, vit
from sizeup.models.config import MAX_EXPERTS, Config


def ernie4_5_vl_moe_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """ERNIE-4.5's mixture twice over: a word passes experts of its own kind alone, which is what counts as active."""
    s = sizes(cfg)
    bias = cfg.bool("use_bias", default=False)
    halves = sparse_halves(cfg, s.layers, cfg.int("moe_layer_start_index", min=0, default=1))
    return llama_like(
        cfg,
        prefix,
        halves=halves,
        feed_forward=lambda kind: gated_mlp(s.hidden, s.ffn, bias=bias) if kind == DENSE else _two_mixtures(cfg, s),
        qkv_bias=bias,
        output_bias=bias,
        tied=True,
    )


def _two_mixtures(cfg: Config, s: Sizes) -> Part:
    widths = cfg.ints("moe_intermediate_size") or (1536, 512)
    if len(widths) != 2:
        raise cfg.bad("moe_intermediate_size", list(widths), "a list of two widths, for words and for images")
    words, images = _counts(cfg)
    used = experts_per_token(cfg, words, "moe_k")
    shared = shared_mlp(s, shared_count(cfg, "moe_num_shared_experts") * widths[0])
    part = mixture(s.hidden, widths[0], words, used, shared=shared)
    kept = tuple(tensor for tensor in part.tensors if tensor.role != "router")
    seen = (
        msgspec.structs.replace(tensor, active=0)
        for number in range(words, words + images)
        for tensor in gated_mlp(s.hidden, widths[1], name=f"mlp.experts.{number}", role="routed_expert").tensors
    )
    routers = (
        *weight("mlp.gate.weight", (s.hidden, words), "router", "router"),
        *weight("mlp.gate.weight_1", (s.hidden, images), "router", "router"),
        *weight("mlp.moe_statics.e_score_correction_bias", (2, words), "router", "router_correction"),
    )
    return Part((*routers, *kept, *seen), feed_forward=part.feed_forward)


def _counts(cfg: Config) -> tuple[int, int]:
    """Experts for words and for images: one number, or a list of two."""
    if isinstance(cfg.get("moe_num_experts"), list):
        both = cfg.ints("moe_num_experts", max=MAX_EXPERTS) or ()
        if len(both) != 2:
            raise cfg.bad("moe_num_experts", list(both), "a number or a list of two")
        return both[0], both[1]
    count = expert_count(cfg, "moe_num_experts")
    return count, count


def ernie4_5_vl_moe(cfg: Config) -> Anatomy:
    """A ViT over flat patches, a resampler that joins four patches and two frames, the two mixtures."""
    vision = cfg.sub("vision_config")
    hidden = (cfg.optional_sub("text_config") or cfg).int("hidden_size")
    space = vision.int("hidden_size") * vision.int("spatial_merge_size", default=2) ** 2
    time = space * vision.int("temporal_merge_size", default=2)
    name = "model.resampler_model"
    between = (
        *_perceptron(f"{name}.spatial_linear", space, space),
        *_perceptron(f"{name}.temporal_linear", space, time),
        *linear(f"{name}.mlp", hidden, space, "projector", "up", bias=True),
        *norm_tensors(f"{name}.after_norm", hidden),
    )
    parts = (*ernie_vision(vision, "model.vision_model"), *projector(between))
    return composed(cfg, parts, prefix="model", text_type="ernie4_5_vl_moe_text")


def _perceptron(name: str, width: int, inputs: int) -> Tensors:
    return (
        *linear(f"{name}.0", width, inputs, "projector", "up", bias=True),
        *linear(f"{name}.2", width, width, "projector", "down", bias=True),
        *norm_tensors(f"{name}.3", width, bias=True),
    )


def ernie_vision(cfg: Config, prefix: str) -> Blocks:
    """Fused projections, rotary positions, patches as a projection without a bias."""
    s = tower_sizes(cfg)
    down, across = pair(cfg, "patch_size")
    attention = fused_attention(
        two_way(s.heads, s.hidden), s.hidden, qkv="attn.qkv", output="attn.proj", bias=True, output_bias=True
    )
    layer = [attention, plain_mlp(s.hidden, s.ffn), layer_norm("norm1", s.hidden), layer_norm("norm2", s.hidden)]
    embeddings = linear("patch_embed.proj", s.hidden, s.channels * down * across, "embedding", "patch")
    after = norm_tensors("ln", s.hidden, bias=True)
    return vit(prefix, s, lambda _: layer, embeddings=embeddings, after=after, stack="blocks")
