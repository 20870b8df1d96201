"""Models that describe an image: GIT, BLIP, Florence-2, Kosmos-2, Pix2Struct."""

from __future__ import annotations

from sizeup.models.anatomy.compose import parameter, part_config, projector, renamed
from sizeup.models.anatomy.encoders import bert, bert_layer
from sizeup.models.anatomy.family import Anatomy, sizes
from sizeup.models.anatomy.parts import (
    Part,
    block,
    fused_attention,
    gated_mlp,
    head,
    linear,
    norm,
    norm_tensors,
    plain_mlp,
    stack_of,
    weight,
)
from sizeup.models.anatomy.seq2seq import bart
from sizeup.models.anatomy.towers import (
    conv,
    crossing,
    layer_norm,
    projected_attention,
    table,
    tower,
    two_way,
)
from sizeup.models.anatomy.vision import Blocks, blip2_vision, clip_vision, tower_sizes, vit
from sizeup.models.config import MAX_LAYERS, Config
from sizeup.models.mixers import Attention
from sizeup.models.model import Block


def git(cfg: Config) -> Anatomy:
    """CLIP, a projection and a norm, a BERT that sees the image and earlier words."""
    vision, s = cfg.sub("vision_config"), sizes(cfg)
    bare = (cfg.strs("architectures") or ("",))[0].endswith("Model")
    root = "" if bare else "git."
    causal = Config(cfg.data | {"is_decoder": True}, cfg.origin, cfg.path)
    name = f"{root}visual_projection.visual_projection"
    between = (
        *linear(f"{name}.0", s.hidden, vision.int("hidden_size"), "projector", "up", bias=True),
        *norm_tensors(f"{name}.1", s.hidden, bias=True),
    )
    words = (
        *table(f"{root}embeddings.word_embeddings", s.vocabulary, s.hidden, "tokens"),
        *table(f"{root}embeddings.position_embeddings", s.context or 1, s.hidden),
        *norm_tensors(f"{root}embeddings.LayerNorm", s.hidden, bias=True),
    )
    frames = cfg.int("num_image_with_embedding", min=0, max=10_000, default=0)
    for frame in range(frames):
        shape = (1, 1, vision.int("hidden_size"))
        words += weight(f"{root}img_temperal_embedding.{frame}", shape, "embedding", "positions")
    head = () if bare else linear("output", s.vocabulary, s.hidden, "head", "head", bias=True)
    blocks = (
        *clip_vision(vision, f"{root}image_encoder.vision_model"),
        *projector(between),
        block("embedding", words),
        *stack_of(f"{root}encoder.layer", [""] * s.layers, lambda _: bert_layer(causal, s), label=lambda _: "layer"),
        block("output", head),
    )
    return Anatomy(tuple(b for b in blocks if b.tensors), s.hidden, s.vocabulary, s.context)


def blip(cfg: Config) -> Anatomy:
    """A ViT, and a BERT that attends to its patches while it writes."""
    text = cfg.sub("text_config")
    kept = {name: value for name, value in text.data.items() if name != "type_vocab_size"}
    more = {
        "architectures": ["BertLMHeadModel"],
        "is_decoder": True,
        "add_cross_attention": True,
        "encoder_hidden_size": cfg.sub("vision_config").int("hidden_size"),
    }
    writes = bert(Config(kept | more, cfg.origin, text.path))
    blocks = (
        *blip2_vision(cfg.sub("vision_config"), "vision_model"),
        *(renamed(part, "", "text_decoder.") for part in writes.blocks),
    )
    return Anatomy(blocks, writes.hidden, writes.vocabulary, writes.context)


def davit(cfg: Config, prefix: str) -> Blocks:
    """Florence-2's tower: stages that halve the image, each layer attending over windows, then over channels."""
    widths, depths = cfg.ints("embed_dim") or (), cfg.ints("depths", max=MAX_LAYERS) or ()
    kernels, heads = cfg.ints("patch_size") or (), cfg.ints("num_heads") or ()
    groups, first = cfg.ints("num_groups") or (), cfg.list("patch_prenorm")
    if not len(widths) == len(depths) == len(kernels) == len(heads) == len(groups) == len(first):
        raise cfg.bad("depths", list(depths), f"a list of {len(widths)} numbers, as embed_dim is")
    window = cfg.int("window_size") ** 2
    ratio = cfg.float("mlp_ratio", min=0.01, max=1000, default=4.0)
    bias = cfg.bool("qkv_bias", default=True)
    blocks: list[Block] = []
    inputs = cfg.int("in_channels", default=3)
    for stage, width in enumerate(widths):
        name = f"{prefix}.convs.{stage}"
        embedding = (
            *conv(f"{name}.conv", width, inputs, kernels[stage], kernels[stage], part="patch"),
            *norm_tensors(f"{name}.norm", inputs if first[stage] else width, bias=True),
        )
        size = max(1, width // heads[stage])
        spatial = Attention(heads[stage], heads[stage], size, size, window=window, causal=False)
        channel = two_way(groups[stage], width)

        def layer(_: str, width: int = width, spatial: Attention = spatial, channel: Attention = channel) -> list[Part]:
            inner = max(1, int(width * ratio))
            return [
                part
                for half, module, mixer in (("spatial", "window", spatial), ("channel", "channel", channel))
                for part in _davit_half(f"{half}_block", f"{module}_attn", width, inner, mixer, bias=bias)
            ]

        blocks.append(block(f"stage {stage + 1} embedding", embedding))
        blocks += stack_of(
            f"{prefix}.blocks.{stage}", [""] * depths[stage], layer, label=f"stage {stage + 1} layer".format
        )
        inputs = width
    return tower("vision", blocks)


def _davit_half(name: str, module: str, width: int, inner: int, mixer: Attention, *, bias: bool) -> list[Part]:
    """Attention and a feed-forward, each after a depthwise convolution and a norm."""
    attention = fused_attention(
        mixer, width, qkv=f"{name}.{module}.qkv", output=f"{name}.{module}.proj", bias=bias, output_bias=True
    )
    return [
        Part(conv(f"{name}.conv1", width, 1, 3, 3)),
        layer_norm(f"{name}.norm1", width),
        attention,
        Part(conv(f"{name}.conv2", width, 1, 3, 3)),
        layer_norm(f"{name}.norm2", width),
        plain_mlp(width, inner, name=f"{name}.ffn"),
    ]


def florence2(cfg: Config) -> Anatomy:
    """DaViT, learned rows, columns and a computed table of time, one projection, BART."""
    vision, text = cfg.sub("vision_config"), part_config(cfg, "text_config", "bart")
    if text is None:
        raise cfg.bad("text_config", None, "the configuration of a BART")
    inner = (vision.ints("embed_dim") or (1024,))[-1]
    out, rows = vision.int("projection_dim"), vision.int("max_position_embeddings")
    name = "model.multi_modal_projector"
    between = (
        *linear(f"{name}.image_projection", out, inner, "projector", "up"),
        *norm_tensors(f"{name}.image_proj_norm", out, bias=True),
        *table(f"{name}.image_position_embed.row_embeddings", rows, inner // 2),
        *table(f"{name}.image_position_embed.column_embeddings", rows, inner - inner // 2),
        *weight(
            f"{name}.visual_temporal_embed.pos_idx_to_embed",
            (vision.int("max_temporal_embeddings"), inner),
            "buffer",
            "positions",
        ),
    )
    reads = bart(Config(text.data | {"architectures": ["BartModel"]}, cfg.origin, text.path))
    root = "model.language_model."
    words = f"{root}shared.weight"
    tied = cfg.bool("tie_word_embeddings", default=True)
    blocks = (
        *davit(vision, "model.vision_tower"),
        *projector(between),
        *(renamed(part, "", root) for part in reads.blocks),
        block("output", head("lm_head", reads.vocabulary, reads.hidden, tied_to=words if tied else "")),
    )
    return Anatomy(blocks, reads.hidden, reads.vocabulary, reads.context)


def kosmos_text(cfg: Config, prefix: str, *, inner_norm: bool = True, segments: bool = False) -> Anatomy:
    """A decoder with BART's names and norms inside its halves. segments: tells words from image (Kosmos-2.5)."""
    hidden, heads, ffn = cfg.int("embed_dim"), cfg.int("attention_heads"), cfg.int("ffn_dim")
    vocabulary, size = cfg.int("vocab_size"), max(1, cfg.int("embed_dim") // cfg.int("attention_heads"))
    mixer = Attention(heads, heads, size, size)

    def layer(_: str) -> list[Part]:
        return [
            projected_attention(mixer, hidden),
            *([layer_norm("self_attn.inner_attn_ln", hidden)] if inner_norm else []),
            layer_norm("self_attn_layer_norm", hidden),
            plain_mlp(hidden, ffn, name="ffn"),
            layer_norm("ffn.ffn_layernorm", ffn),
            layer_norm("final_layer_norm", hidden),
        ]

    words = table(f"{prefix}.model.embed_tokens", vocabulary, hidden, "tokens")
    tied_to = words[0].name if cfg.bool("tie_word_embeddings", default=True) else ""
    blocks = (
        block("embedding", words, table(f"{prefix}.model.segment_emb", 2, hidden, "segments") if segments else ()),
        *stack_of(f"{prefix}.model.layers", [""] * cfg.int("layers", max=MAX_LAYERS), layer, label=lambda _: "layer"),
        block(
            "output",
            norm_tensors(f"{prefix}.model.layer_norm", hidden, bias=True),
            head(f"{prefix}.lm_head", vocabulary, hidden, tied_to=tied_to),
        ),
    )
    return Anatomy(blocks, hidden, vocabulary, cfg.optional_int("max_position_embeddings"))


def latents(cfg: Config, text: Config, vision: Config) -> Blocks:
    """Kosmos' projector: learned queries that attend to the image once."""
    width, name = text.int("embed_dim"), "image_to_text_projection"
    mixer = crossing(text.int("attention_heads"), width)
    return projector(
        linear(f"{name}.dense", width, vision.int("hidden_size"), "projector", "up", bias=True),
        parameter(f"{name}.latent_query", cfg.int("latent_query_num"), width, part="query"),
        projected_attention(mixer, width, name=f"{name}.x_attn"),
    )


def kosmos_2(cfg: Config) -> Anatomy:
    """CLIP, latents, and a decoder that also writes where in the image it is looking."""
    text, vision = cfg.sub("text_config"), cfg.sub("vision_config")
    inner = kosmos_text(text, "text_model")
    blocks = (*clip_vision(vision, "vision_model.model"), *latents(cfg, text, vision), *inner.blocks)
    return Anatomy(blocks, inner.hidden, inner.vocabulary, inner.context)


def pix2struct_vision(cfg: Config, prefix: str) -> Blocks:
    """A ViT for any image shape: rows and columns have tables, feed-forwards are gated, nothing has a bias."""
    s = tower_sizes(cfg)
    size = cfg.int("d_kv", "head_dim", default=max(1, s.hidden // s.heads))
    ffn = cfg.int("d_ff", "intermediate_size")
    rows = cfg.int("seq_len", "max_num_patches")

    def layer(_: str) -> list[Part]:
        names = ("query", "key", "value", "output")
        mixer = two_way(s.heads, s.hidden, head_dim=size)
        return [
            projected_attention(mixer, s.hidden, name="attention", names=names, biases=""),
            gated_mlp(s.hidden, ffn, names=("wi_0", "wi_1", "wo"), activation="gelu"),
            norm("pre_mlp_layer_norm", s.hidden),
            norm("pre_attention_layer_norm", s.hidden),
        ]

    patch = cfg.int("patch_embed_hidden_size")
    embeddings = (
        *linear("embeddings.patch_projection", s.hidden, patch, "embedding", "patch", bias=True),
        *table("embeddings.row_embedder", rows, s.hidden),
        *table("embeddings.column_embedder", rows, s.hidden),
    )
    after = norm_tensors("layernorm", s.hidden)
    return vit(prefix, s, layer, embeddings=embeddings, after=after, stack="encoder.layer")


def kosmos_2_5(cfg: Config) -> Anatomy:
    """Pix2Struct's tower, latents, and Kosmos' decoder without the norm inside attention."""
    text, vision = cfg.sub("text_config"), cfg.sub("vision_config")
    inner = kosmos_text(text, "text_model", inner_norm=False, segments=True)
    blocks = (*pix2struct_vision(vision, "vision_model"), *latents(cfg, text, vision), *inner.blocks)
    return Anatomy(blocks, inner.hidden, inner.vocabulary, inner.context)


def pix2struct(cfg: Config) -> Anatomy:
    """Its own tower, and T5's decoder with names of its own."""
    text = cfg.sub("text_config")
    hidden, heads, size = text.int("hidden_size"), text.int("num_heads"), text.int("d_kv")
    vocabulary, ffn = text.int("vocab_size"), text.int("d_ff")
    names = ("query", "key", "value", "output")

    def layer(kind: str) -> list[Part]:
        own = Attention(heads, heads, size, size)
        cross = crossing(heads, hidden, head_dim=size)
        name = "self_attention.attention"
        rows = (text.int("relative_attention_num_buckets"), heads)
        bias = weight(f"{name}.relative_attention_bias.weight", rows, "attention", "relative_bias") if kind else ()
        return [
            projected_attention(own, hidden, name=name, names=names, biases="", extra=bias),
            norm("self_attention.layer_norm", hidden),
            projected_attention(cross, hidden, name="encoder_decoder_attention.attention", names=names, biases=""),
            norm("encoder_decoder_attention.layer_norm", hidden),
            gated_mlp(hidden, ffn, name="mlp.DenseReluDense", names=("wi_0", "wi_1", "wo"), activation="gelu"),
            norm("mlp.layer_norm", hidden),
        ]

    layers = text.int("num_layers", max=MAX_LAYERS)
    kinds = ["first" if number == 0 else "" for number in range(layers)]
    words = table("decoder.embed_tokens", vocabulary, hidden, "tokens")
    tied_to = words[0].name if cfg.bool("tie_word_embeddings", default=False) else ""
    blocks = (
        *pix2struct_vision(cfg.sub("vision_config"), "encoder"),
        block("embedding", words),
        *stack_of("decoder.layer", kinds, layer, stack="decoder", label=lambda kind: f"{kind} decoder layer".strip()),
        block("decoder frame", norm("decoder.final_layer_norm", hidden), stack="decoder"),
        block("output", head("decoder.lm_head", vocabulary, hidden, tied_to=tied_to)),
    )
    return Anatomy(blocks, hidden, vocabulary)
