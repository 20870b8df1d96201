"""T5Gemma: two Gemmas as encoder and decoder. The first has cross-attention, the second attends to both at once."""

from __future__ import annotations

from collections.abc import Callable

from sizeup.models.anatomy.compose import parameter, part_config, projector
from sizeup.models.anatomy.dense import sliding_pattern
from sizeup.models.anatomy.family import SLIDING, Anatomy, Sizes, layer_kinds, sizes
from sizeup.models.anatomy.parts import Part, Tensors, attention, block, gated_mlp, head, norm, norm_tensors, stack_of
from sizeup.models.anatomy.towers import class_of, crossing, prefixed, table
from sizeup.models.anatomy.vision import vision_tower
from sizeup.models.config import Config
from sizeup.models.mixers import Attention
from sizeup.models.model import Block
from sizeup.models.tensors import Tensor

FEED_FORWARD_NORMS = ("pre_feedforward_layernorm", "post_feedforward_layernorm")


def _layers(
    cfg: Config, s: Sizes, prefix: str, side: str, *, period: int, cross: Callable[[], list[Part]], qk_norm: str | None
) -> tuple[Block, ...]:
    """Gemma's layers with windows between full ones; `cross` is what a decoder adds."""
    kinds = layer_kinds(cfg, s.layers, sliding_pattern(cfg, period))
    bias = cfg.bool("attention_bias", default=False)

    def layer(kind: str) -> list[Part]:
        window = cfg.optional_int("sliding_window") if kind == SLIDING else None
        cap = cfg.optional_float("attn_logit_softcapping")
        mixer = Attention(
            s.heads, s.kv_heads, s.head_dim, s.head_dim, window=window, causal=side == "decoder", softcap=cap
        )
        return [
            attention(mixer, s.hidden, qkv_bias=bias, output_bias=bias, qk_norm=qk_norm),
            norm("pre_self_attn_layernorm", s.hidden),
            norm("post_self_attn_layernorm", s.hidden),
            *cross(),
            gated_mlp(s.hidden, s.ffn, activation="gelu_tanh"),
            *(norm(name, s.hidden) for name in FEED_FORWARD_NORMS),
        ]

    def label(kind: str) -> str:
        return f"{'sliding-window ' if kind == SLIDING else ''}{side} layer"

    return stack_of(f"{prefix}.layers", kinds, layer, stack=side, label=label)


def t5gemma(cfg: Config) -> Anatomy:
    """Two Gemma 2 with a word table each; the decoder's layers also attend to the encoder's output."""
    encoder, decoder = part_config(cfg, "encoder", "t5_gemma_module"), part_config(cfg, "decoder", "t5_gemma_module")
    if encoder is None or decoder is None:
        raise cfg.bad("decoder" if encoder else "encoder", None, "the configuration of a Gemma")
    bare = class_of(cfg, "").endswith("Model")
    root = "" if bare else "model"
    e, d = sizes(encoder), sizes(decoder)
    bias = decoder.bool("attention_bias", default=False)

    def crossed() -> list[Part]:
        mixer = crossing(d.heads, d.hidden, kv_heads=d.kv_heads, head_dim=d.head_dim)
        part = attention(mixer, d.hidden, name="cross_attn", qkv_bias=bias, output_bias=bias)
        wide = tuple(_from(t, e.hidden) if t.part in {"k", "v"} else t for t in part.tensors)
        return [
            Part(wide, part.mixers),
            norm("pre_cross_attn_layernorm", d.hidden),
            norm("post_cross_attn_layernorm", d.hidden),
        ]

    first, second = prefixed(root, "encoder"), prefixed(root, "decoder")
    words = table(f"{second}.embed_tokens", d.vocabulary, d.hidden, "tokens")
    tied_to = words[0].name if cfg.bool("tie_word_embeddings", default=True) else ""
    output = () if bare else head("lm_head.out_proj", d.vocabulary, d.hidden, tied_to=tied_to)
    blocks = (
        block("embedding", table(f"{first}.embed_tokens", e.vocabulary, e.hidden, "tokens"), words),
        *_layers(encoder, e, first, "encoder", period=2, cross=list, qk_norm=None),
        block("encoder frame", norm(f"{first}.norm", e.hidden), stack="encoder"),
        *_layers(decoder, d, second, "decoder", period=2, cross=crossed, qk_norm=None),
        block("decoder frame", norm(f"{second}.norm", d.hidden), stack="decoder"),
        *((block("output", output),) if output else ()),
    )
    return Anatomy(blocks, d.hidden, d.vocabulary, d.context)


def _from(tensor: Tensor, inputs: int) -> Tensor:
    """The projection with another width of what it projects."""
    shape = (tensor.shape[0], inputs) if tensor.is_matrix else tensor.shape
    return Tensor(tensor.name, shape, tensor.role, tensor.part)


def t5gemma2(cfg: Config) -> Anatomy:
    """Two Gemma 3 with one word table; the encoder sees images, the decoder's attention takes both sequences in."""
    encoder, decoder = part_config(cfg, "encoder", "t5gemma2_encoder"), part_config(cfg, "decoder", "t5gemma2_decoder")
    if encoder is None or decoder is None:
        raise cfg.bad("decoder" if encoder else "encoder", None, "the configuration of a Gemma")
    text, vision = encoder.sub("text_config"), encoder.sub("vision_config")
    root = "" if class_of(cfg, "").endswith("Model") else "model"
    first, second = prefixed(root, "encoder"), prefixed(root, "decoder")
    e, d = sizes(text), sizes(decoder)
    width = vision.int("hidden_size")
    between = (
        *parameter(f"{first}.multi_modal_projector.mm_input_projection_weight", width, e.hidden, part="up"),
        *norm_tensors(f"{first}.multi_modal_projector.mm_soft_emb_norm", width),
    )

    def crossed() -> list[Part]:
        return [Part((), (crossing(d.heads, d.hidden, kv_heads=d.kv_heads, head_dim=d.head_dim),))]

    words = f"{first}.embed_tokens.weight"
    output = head("lm_head.out_proj", d.vocabulary, d.hidden, tied_to=words) if root else ()
    blocks = (
        *vision_tower(vision, f"{first}.vision_tower", "siglip_vision_model"),
        *projector(between),
        block("embedding", _shared_words(first, second, e)),
        *_layers(text, e, first, "encoder", period=6, cross=list, qk_norm="head"),
        block("encoder frame", norm(f"{first}.norm", e.hidden), stack="encoder"),
        *_layers(decoder, d, second, "decoder", period=6, cross=crossed, qk_norm="head"),
        block("decoder frame", norm(f"{second}.norm", d.hidden), stack="decoder"),
        *((block("output", output),) if output else ()),
    )
    return Anatomy(blocks, d.hidden, d.vocabulary, d.context)


def _shared_words(first: str, second: str, e: Sizes) -> Tensors:
    """One word table and one embedding of the end of an image, for both halves."""
    words, end = f"{first}.embed_tokens.weight", f"{first}.embed_tokens.eoi_embedding"
    return (
        *table(f"{first}.embed_tokens", e.vocabulary, e.hidden, "tokens"),
        Tensor(end, (e.hidden,), "embedding", "tokens"),
        *table(f"{second}.embed_tokens", e.vocabulary, e.hidden, "tokens", tied_to=words),
        Tensor(f"{second}.embed_tokens.eoi_embedding", (e.hidden,), "embedding", "tokens", tied_to=end),
    )
