"""Llama 3.2 Vision: some text layers attend to the image instead of to earlier words.

The tower looks at up to four tiles of an image, each place in the grid of tiles with an embedding of its own; further
layers (`num_global_layers`) look at all tiles at once. The features of five inner layers go along with the last.
"""

from __future__ import annotations

from collections.abc import Callable

from sizeup.models.anatomy.compose import composed, projector, text_alone, text_config
from sizeup.models.anatomy.family import Anatomy, full_attention, sizes, text_frame
from sizeup.models.anatomy.parts import Part, Tensors, attention, gated_mlp, linear, norm, plain_mlp, stack_of, weight
from sizeup.models.anatomy.towers import conv, crossing, layer_norm, projected_attention, table, tower, two_way
from sizeup.models.anatomy.vision import Blocks, TowerSizes, pair, patches, tower_sizes, vit
from sizeup.models.config import MAX_LAYERS, Config

QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


def _vision_layer(s: TowerSizes, *, gated: bool) -> Callable[[str], list[Part]]:
    """Attention without biases and a plain feed-forward; in global layers each half has a learned gate."""

    def layer(_: str) -> list[Part]:
        gates = (weight(f"gate_{half}", (1,), "norm", "gate") for half in ("attn", "ffn")) if gated else ()
        return [
            projected_attention(two_way(s.heads, s.hidden), s.hidden, names=QKVO, biases=""),
            plain_mlp(s.hidden, s.ffn),
            layer_norm("input_layernorm", s.hidden),
            layer_norm("post_attention_layernorm", s.hidden),
            *(Part(gate) for gate in gates),
        ]

    return layer


def _tile_embedding(name: str, ratios: int, width: int) -> Tensors:
    """An embedding for each shape of the grid of tiles, with a learned gate."""
    return (*table(f"{name}.embedding", ratios, width), *weight(f"{name}.gate", (1,), "embedding", "gate"))


def mllama_vision(cfg: Config, prefix: str) -> Blocks:
    """The tower: tile and patch positions, local layers, global layers."""
    s = tower_sizes(cfg)
    rows, tiles = patches(cfg) + 1, cfg.int("max_num_tiles")
    ratios = len(cfg.list("supported_aspect_ratios")) + 1
    place = "gated_positional_embedding"
    embeddings = (
        *weight("class_embedding", (s.hidden,), "embedding", "class"),
        *conv("patch_embedding", s.hidden, s.channels, *pair(cfg, "patch_size"), part="patch", bias=False),
        *weight(f"{place}.embedding", (rows, s.hidden), "embedding", "positions"),
        *weight(f"{place}.gate", (1,), "embedding", "gate"),
        *table(f"{place}.tile_embedding", ratios, tiles * rows * s.hidden),
        *_tile_embedding("pre_tile_positional_embedding", ratios, tiles * s.hidden),
        *_tile_embedding("post_tile_positional_embedding", ratios, tiles * s.hidden),
        *layer_norm("layernorm_pre", s.hidden).tensors,
        *layer_norm("layernorm_post", s.hidden).tensors,
    )
    local = vit(prefix, s, _vision_layer(s, gated=False), embeddings=embeddings, stack="transformer.layers")
    layers = cfg.int("num_global_layers", max=MAX_LAYERS)
    stack = stack_of(
        f"{prefix}.global_transformer.layers",
        [""] * layers,
        _vision_layer(s, gated=True),
        label=lambda _: "global vision layer",
    )
    return (*local, *tower("vision", stack))


def mllama_text_model(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama whose `cross_attention_layers` attend to the image, gated; the table has 8 rows more than the head."""
    s = sizes(cfg)
    listed = cfg.ints("cross_attention_layers", min=0)
    crossed = set(range(3, 39, 5) if listed is None else listed)

    def layer(kind: str) -> list[Part]:
        common = [
            gated_mlp(s.hidden, s.ffn),
            norm("input_layernorm", s.hidden),
            norm("post_attention_layernorm", s.hidden),
        ]
        if not kind:
            return [attention(full_attention(s), s.hidden), *common]
        mixer = crossing(s.heads, s.hidden, kv_heads=s.kv_heads, head_dim=s.head_dim)
        gates = (weight(f"cross_attn_{half}_gate", (1,), "norm", "gate") for half in ("attn", "mlp"))
        return [attention(mixer, s.hidden, name="cross_attn", qk_norm="head"), *common, *(Part(g) for g in gates)]

    kinds = ["cross-attention" if number in crossed else "" for number in range(s.layers)]
    layers = stack_of(f"{prefix}.layers", kinds, layer, label=lambda kind: f"{kind} layer".strip())
    return text_frame(cfg, s, layers, prefix=prefix, extra_rows=8)


def mllama(cfg: Config) -> Anatomy:
    """Tower, one projection, text."""
    if alone := text_alone(cfg, "mllama_text_model"):
        return alone
    vision = cfg.sub("vision_config")
    width = text_config(cfg, "mllama_text_model").int("hidden_size")
    between = linear("multi_modal_projector", width, vision.int("vision_output_dim"), "projector", "up", bias=True)
    parts = (*mllama_vision(vision, "vision_model"), *projector(between))
    return composed(
        cfg, parts, prefix="language_model.model", head="language_model.lm_head", assumed="mllama_text_model"
    )
