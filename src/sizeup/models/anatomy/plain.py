"""Decoders with a plain feed-forward, down(activation(up(x))), and separate query, key and value projections."""

from __future__ import annotations

from typing import Any

from sizeup.models.anatomy.dense import biased, llama_like, window_kinds
from sizeup.models.anatomy.family import (
    FULL,
    PRE_NORMS,
    SLIDING,
    Anatomy,
    Sizes,
    decoder,
    full_attention,
    sizes,
    text_frame,
    windowed,
)
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    attention,
    fused_attention,
    linear,
    norm,
    norm_tensors,
    plain_mlp,
    stack_of,
    weight,
)
from sizeup.models.config import Config

UP_DOWN = ("up_proj", "down_proj")


def arcee(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with a plain feed-forward and a squared ReLU."""
    s = sizes(cfg)
    twists = biased(cfg)
    half = plain_mlp(s.hidden, s.ffn, names=UP_DOWN, bias=twists["mlp_bias"], activation="relu2")
    return llama_like(cfg, prefix, feed_forward=half, **twists)


def nemotron(cfg: Config, prefix: str = "model") -> Anatomy:
    """Arcee with layer norms that have biases."""
    s = sizes(cfg)
    twists = biased(cfg)
    half = plain_mlp(s.hidden, s.ffn, names=UP_DOWN, bias=twists["mlp_bias"], activation="relu2")
    return llama_like(cfg, prefix, feed_forward=half, norm_bias=True, **twists)


def jais2(cfg: Config, prefix: str = "model") -> Anatomy:
    """Nemotron with biases on all projections, when its configuration says so."""
    return nemotron(cfg, prefix)


def apertus(cfg: Config, prefix: str = "model") -> Anatomy:
    """Arcee with norms on query and key heads, other norm names, and xIELU: two learned numbers and two buffers."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    plain = plain_mlp(s.hidden, s.ffn, names=UP_DOWN, bias=cfg.bool("mlp_bias", default=False), activation="xielu")
    learned: Tensors = ()
    if cfg.str("hidden_act", default="xielu") == "xielu":
        learned = (
            *weight("mlp.act_fn.alpha_p", (1,), "mlp", "activation"),
            *weight("mlp.act_fn.alpha_n", (1,), "mlp", "activation"),
            *weight("mlp.act_fn.beta", (), "buffer", "activation"),
            *weight("mlp.act_fn.eps", (), "buffer", "activation"),
        )
    half = Part((*plain.tensors, *learned), feed_forward=plain.feed_forward)
    norms = ("attention_layernorm", "feedforward_layernorm")
    return llama_like(cfg, prefix, qkv_bias=bias, output_bias=bias, qk_norm="head", norms=norms, feed_forward=half)


def nanochat(cfg: Config, prefix: str = "model") -> Anatomy:
    """A squared ReLU, and norms without weights everywhere."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    half = plain_mlp(s.hidden, s.ffn, bias=False, activation="relu2")
    return llama_like(cfg, prefix, qkv_bias=bias, output_bias=bias, norms=(), final_norm="", feed_forward=half)


def starcoder2(cfg: Config, prefix: str = "model") -> Anatomy:
    """Layer norms with biases, biases everywhere, and perhaps a window in every layer."""
    s = sizes(cfg)
    bias = cfg.bool("use_bias", default=True)
    half = plain_mlp(s.hidden, s.ffn, names=("c_fc", "c_proj"), bias=bias, activation="gelu_tanh")
    return llama_like(
        cfg,
        prefix,
        kinds=window_kinds(cfg, s),
        qkv_bias=bias,
        output_bias=bias,
        norm_bias=True,
        feed_forward=half,
        tied=True,
    )


def phi(cfg: Config, prefix: str = "model") -> Anatomy:
    """One norm before both halves, which run in parallel; biases everywhere, also on the head."""
    s = sizes(cfg)
    norms: Tensors = ()
    if cfg.bool("qk_layernorm", default=False):
        norms = (
            *norm_tensors("self_attn.q_layernorm", s.head_dim, bias=True, part="q_norm"),
            *norm_tensors("self_attn.k_layernorm", s.head_dim, bias=True, part="k_norm"),
        )
    mix = attention(
        full_attention(s),
        s.hidden,
        names=("q_proj", "k_proj", "v_proj", "dense"),
        qkv_bias=True,
        output_bias=True,
        extra=norms,
    )
    half = plain_mlp(s.hidden, s.ffn)
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: mix,
        feed_forward=lambda _: half,
        norms=PRE_NORMS[:1],
        norm_bias=True,
        final_norm="final_layernorm",
        head_bias=True,
    )


def persimmon(cfg: Config, prefix: str = "model") -> Anatomy:
    """Queries, keys and values in one matrix, layer norms on both, a squared ReLU, biases everywhere."""
    s = sizes(cfg)
    norms: Tensors = ()
    if cfg.bool("qk_layernorm", default=True):
        norms = (
            *norm_tensors("self_attn.q_layernorm", s.head_dim, bias=True, part="q_norm"),
            *norm_tensors("self_attn.k_layernorm", s.head_dim, bias=True, part="k_norm"),
        )
    mix = fused_attention(
        full_attention(s),
        s.hidden,
        qkv="self_attn.query_key_value",
        output="self_attn.dense",
        bias=True,
        output_bias=True,
        extra=norms,
    )
    half = plain_mlp(s.hidden, s.ffn, names=("dense_h_to_4h", "dense_4h_to_h"), activation="relu2")
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: mix,
        feed_forward=lambda _: half,
        norm_bias=True,
        final_norm="final_layernorm",
    )


def opt(cfg: Config, prefix: str = "model") -> Anatomy:
    """Learned positions (two rows more), ReLU, biases; small embeddings are projected in and out (350M)."""
    s = sizes(cfg)
    bias = cfg.bool("enable_bias", default=True)
    affine = cfg.bool("layer_norm_elementwise_affine", default=True)
    width = cfg.int("word_embed_proj_dim", default=s.hidden)
    stack = f"{prefix}.decoder"

    def layer(_: str) -> list[Part]:
        norms = ("self_attn_layer_norm", "final_layer_norm") if affine else ()
        return [
            bart_attention(s, bias=bias),
            plain_mlp(s.hidden, s.ffn, name="", bias=bias, activation="relu"),
            *(norm(name, s.hidden, bias=True) for name in norms),
        ]

    around: Tensors = weight(
        f"{stack}.embed_positions.weight", (cfg.int("max_position_embeddings") + 2, s.hidden), "embedding", "positions"
    )
    if width != s.hidden:
        around += linear(f"{stack}.project_in", s.hidden, width, "embedding", "project_in")
        around += linear(f"{stack}.project_out", width, s.hidden, "head", "project_out")
    last = cfg.bool("do_layer_norm_before", default=True) and not cfg.bool("_remove_final_layer_norm", default=False)
    return text_frame(
        cfg,
        s,
        stack_of(f"{stack}.layers", [FULL] * s.layers, layer, label=lambda _: "layer"),
        prefix=stack,
        width=width,
        positions=around,
        final_norm="final_layer_norm" if last and affine else "",
        norm_bias=True,
        tied=True,
    )


def bart_attention(s: Sizes, *, bias: bool = True) -> Part:
    """Attention with BART's names, as decoders that descend from it use."""
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    return attention(full_attention(s), s.hidden, names=names, qkv_bias=bias, output_bias=bias)


def biogpt(cfg: Config, prefix: str = "biogpt", **frame: Any) -> Anatomy:
    """BART's layers without cross attention, learned positions (two rows more), and a tied `output_projection`."""
    s = sizes(cfg)
    table = weight(f"{prefix}.embed_positions.weight", (cfg.int("max_position_embeddings") + 2, s.hidden), "embedding")
    return bart_decoder(cfg, s, prefix, positions=table, head_name="output_projection", **frame)


def xglm(cfg: Config, prefix: str = "model") -> Anatomy:
    """BioGPT with computed positions."""
    return bart_decoder(cfg, sizes(cfg), prefix)


def bart_decoder(cfg: Config, s: Sizes, prefix: str, **frame: Any) -> Anatomy:
    """A decoder of BART's layers: layer norms with biases, biases everywhere, GELU, a tied head."""
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: bart_attention(s),
        feed_forward=lambda _: plain_mlp(s.hidden, s.ffn, name=""),
        norms=("self_attn_layer_norm", "final_layer_norm"),
        norm_bias=True,
        final_norm="layer_norm",
        tied=True,
        **frame,
    )


def moshi(cfg: Config, prefix: str = "model") -> Anatomy:
    """The temporal transformer of Moshi: llama with half of `ffn_dim` for gate and up, and a window everywhere."""
    s = sizes(cfg)
    half = cfg.int("ffn_dim") // 2
    names = ("q_proj.linear", "k_proj.linear", "v_proj.linear", "o_proj.linear")
    forward = Part(
        (
            *linear("mlp.fc1", 2 * half, s.hidden, "mlp", "gate_up"),
            *linear("mlp.fc2", s.hidden, half, "mlp", "down"),
        ),
        feed_forward=plain_mlp(s.hidden, half, activation="silu").feed_forward,
    )
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=[SLIDING] * s.layers,
        mix=lambda kind: attention(windowed(cfg, s, kind), s.hidden, names=names),
        feed_forward=lambda _: forward,
        extra_rows=1,
    )
