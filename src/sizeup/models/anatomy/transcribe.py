"""Encoder-decoders of speech beside Whisper: Moonshine, and NVIDIA's and Cohere's conformers with a decoder."""

from __future__ import annotations

from sizeup.models.anatomy.audio import audio_sizes, conformer_layer, listen, parakeet_tower, subsampling
from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    block,
    head,
    linear,
    norm,
    norm_tensors,
    plain_mlp,
    stack_of,
    weight,
)
from sizeup.models.anatomy.towers import class_of, conv, crossing, prefixed, projected_attention, table, tower, under
from sizeup.models.config import MAX_LAYERS, Config
from sizeup.models.mixers import Attention
from sizeup.models.model import FeedForward

QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


def moonshine(cfg: Config) -> Anatomy:
    """Three convolutions over the waveform, rotary positions, norms without biases, a gated decoder."""
    hidden, ffn = cfg.int("hidden_size"), cfg.int("intermediate_size")
    vocabulary = cfg.int("vocab_size")
    bias = "qkv" if cfg.bool("attention_bias", default=False) else ""
    root = "" if class_of(cfg, "").endswith("Model") else "model"

    def mixer(side: str, *, cross: bool = False) -> Attention:
        heads = cfg.int(f"{side}_num_attention_heads")
        size = max(1, hidden // heads)
        kv_heads = cfg.int(f"{side}_num_key_value_heads", default=heads)
        return Attention(heads, kv_heads, size, size, cross=cross, causal=side == "decoder" and not cross)

    def encode(_: str) -> list[Part]:
        return [
            projected_attention(mixer("encoder"), hidden, names=QKVO, biases=bias),
            plain_mlp(hidden, ffn),
            norm("input_layernorm", hidden),
            norm("post_attention_layernorm", hidden),
        ]

    def decode(_: str) -> list[Part]:
        up = linear("mlp.fc1", 2 * ffn, hidden, "mlp", "gate_up", bias=True)
        down = linear("mlp.fc2", hidden, ffn, "mlp", "down", bias=True)
        cross = mixer("decoder", cross=True)
        return [
            projected_attention(mixer("decoder"), hidden, names=QKVO, biases=bias),
            projected_attention(cross, hidden, name="encoder_attn", names=QKVO, biases=bias),
            Part((*up, *down), feed_forward=FeedForward(width=ffn)),
            *(norm(name, hidden) for name in ("input_layernorm", "post_attention_layernorm", "final_layernorm")),
        ]

    waveform = (
        *conv("conv1", hidden, 1, 127, bias=False),
        *conv("conv2", 2 * hidden, hidden, 7),
        *conv("conv3", hidden, 2 * hidden, 3),
        *norm_tensors("groupnorm", hidden, bias=True),
        *norm_tensors("layer_norm", hidden),
    )
    encoder, decoder = prefixed(root, "encoder"), prefixed(root, "decoder")
    layers = {side: cfg.int(f"{side}_num_hidden_layers", max=MAX_LAYERS) for side in ("encoder", "decoder")}
    words = table(f"{decoder}.embed_tokens", vocabulary, hidden, "tokens")
    tied_to = words[0].name if cfg.bool("tie_word_embeddings", default=True) else ""
    blocks = (
        block("embedding", words),
        *stack_of(f"{encoder}.layers", [""] * layers["encoder"], encode, stack="encoder", label=_encoder_label),
        block("encoder frame", under(encoder, waveform), stack="encoder"),
        *stack_of(f"{decoder}.layers", [""] * layers["decoder"], decode, stack="decoder", label=_decoder_label),
        block("decoder frame", norm(f"{decoder}.norm", hidden), stack="decoder"),
        *((block("output", head("proj_out", vocabulary, hidden, tied_to=tied_to)),) if root else ()),
    )
    return Anatomy(blocks, hidden, vocabulary, cfg.optional_int("max_position_embeddings"))


def _encoder_label(_: str) -> str:
    return "encoder layer"


def _decoder_label(_: str) -> str:
    return "decoder layer"


def canary(cfg: Config) -> Anatomy:
    """A fast conformer, and a plain decoder with norms before its halves and after the embedding."""
    encoder = cfg.sub("encoder_config")
    text = cfg.sub("decoder_config")
    root = "" if class_of(cfg, "").endswith("Model") else "model"
    hidden, heads, ffn = text.int("hidden_size"), text.int("num_attention_heads"), text.int("intermediate_size")
    vocabulary = text.int("vocab_size")
    size = text.int("head_dim", default=max(1, hidden // heads))
    kv_heads = text.int("num_key_value_heads", default=heads)
    biases = "qkvo" if text.bool("attention_bias", default=True) else ""
    own = Attention(heads, kv_heads, size, size)
    cross = crossing(heads, hidden, kv_heads=kv_heads, head_dim=size)

    def decode(_: str) -> list[Part]:
        return [
            projected_attention(own, hidden, names=QKVO, biases=biases),
            projected_attention(cross, hidden, name="encoder_attn", names=QKVO, biases=biases),
            plain_mlp(hidden, ffn, activation="relu"),
            *(
                norm(name, hidden, bias=True)
                for name in ("input_layernorm", "post_attention_layernorm", "final_layernorm")
            ),
        ]

    decoder = prefixed(root, "decoder")
    words = table(f"{decoder}.embed_tokens", vocabulary, hidden, "tokens")
    tied_to = words[0].name if cfg.bool("tie_word_embeddings", default=True) else ""
    norms = (*norm_tensors("norm", hidden, bias=True), *norm_tensors("embedding_layernorm", hidden, bias=True))
    layers = text.int("num_hidden_layers", max=MAX_LAYERS)
    blocks = (
        *parakeet_tower(encoder, prefixed(root, "encoder")),
        block("embedding", words),
        *stack_of(f"{decoder}.layers", [""] * layers, decode, stack="decoder", label=_decoder_label),
        block("decoder frame", under(decoder, norms), stack="decoder"),
        *((block("output", head("proj_out", vocabulary, hidden, tied_to=tied_to, bias=True)),) if root else ()),
    )
    return Anatomy(blocks, hidden, vocabulary, text.optional_int("max_position_embeddings"))


def cohere_asr(cfg: Config) -> Anatomy:
    """Canary's pattern with the names of Cohere's checkpoint and a learned position table."""
    encoder = cfg.sub("encoder_config")
    h = audio_sizes(encoder)
    hidden, heads = cfg.int("hidden_size"), cfg.int("num_attention_heads")
    size, ffn = cfg.int("head_dim", default=max(1, hidden // heads)), cfg.int("intermediate_size")
    vocabulary, context = cfg.int("vocab_size"), cfg.int("max_position_embeddings")
    names = ("query_net", "key_net", "value_net", "out_projection")
    own, cross = Attention(heads, heads, size, size), crossing(heads, hidden, head_dim=size)

    def hear(_: str) -> list[Part]:
        return conformer_layer(
            encoder,
            h,
            attention=("linear_q", "linear_k", "linear_v", "linear_out"),
            relative=("linear_pos", "pos_bias_u", "pos_bias_v"),
            batch="conv.batch_norm",
        )

    def decode(_: str) -> list[Part]:
        return [
            projected_attention(own, hidden, name="first_sub_layer", names=names),
            projected_attention(cross, hidden, name="second_sub_layer", names=names),
            plain_mlp(hidden, ffn, name="third_sub_layer", names=("dense_in", "dense_out"), activation="relu"),
            *(norm(f"layer_norm_{number}", hidden, bias=True) for number in (1, 2, 3)),
        ]

    before = subsampling(encoder, h.hidden, name="pre_encode.conv", out="pre_encode.out")
    words, inner = "model.transf_decoder._embedding", "model.transf_decoder._decoder"
    embedding = (
        *table(f"{words}.token_embedding", vocabulary, hidden, "tokens"),
        *weight(f"{words}.position_embedding.pos_enc", (context, hidden), "embedding", "positions"),
        *norm_tensors(f"{words}.layer_norm", hidden, bias=True),
    )
    between = linear("model.encoder_decoder_proj", hidden, h.hidden, "projector", "up", bias=True)
    layers = cfg.int("num_hidden_layers", max=MAX_LAYERS)
    blocks = (
        *listen("model.encoder", h.layers, hear, before=before),
        *tower("projector", (block("projector", between),)),
        block("embedding", embedding),
        *stack_of(f"{inner}.layers", [""] * layers, decode, stack="decoder", label=_decoder_label),
        block("decoder frame", norm(f"{inner}.final_layer_norm", hidden, bias=True), stack="decoder"),
        block("output", head("log_softmax.mlp.layer0", vocabulary, hidden, bias=True)),
    )
    return Anatomy(blocks, hidden, vocabulary, context)


def parakeet_ctc(cfg: Config) -> Anatomy:
    """A fast conformer with a head over characters."""
    encoder = cfg.sub("encoder_config")
    hidden, vocabulary = encoder.int("hidden_size"), cfg.int("vocab_size")
    output: Tensors = conv("ctc_head", vocabulary, hidden, 1, role="head", part="head")
    return Anatomy((*parakeet_tower(encoder, "encoder"), block("output", output)), hidden, vocabulary)
