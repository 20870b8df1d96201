"""Recurrent decoders that are neither Mamba nor attention: RWKV 4, Griffin (RecurrentGemma) and xLSTM."""

from __future__ import annotations

import math

from sizeup.models.anatomy.family import FULL, Anatomy, decoder, full_attention, sizes, text_frame
from sizeup.models.anatomy.mamba import bare_sizes, convolution
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    attention,
    gated_mlp,
    linear,
    norm,
    norm_tensors,
    stack_of,
    weight,
)
from sizeup.models.config import Config
from sizeup.models.mixers import LinearAttention, StateSpace
from sizeup.models.model import FeedForward

ROLE = "linear_attention"


def rwkv(cfg: Config, prefix: str = "rwkv") -> Anatomy:
    """Time mixing with a decay per channel and channel mixing; both look at the token before through learned shares.

    Its state per channel is a numerator, a denominator and their exponent, and the last token of each half.
    """
    s = bare_sizes(cfg)
    width = cfg.int("attention_hidden_size", default=s.hidden)
    ffn = cfg.int("intermediate_size", default=4 * s.hidden)
    mixer = LinearAttention("rwkv", width, 1, 3, shift_elements=2 * s.hidden)

    def shares(name: str, *parts: str) -> Tensors:
        return tuple(
            t for part in parts for t in weight(f"{name}.time_mix_{part}", (1, 1, s.hidden), ROLE, "token_shift")
        )

    time = (
        *weight("attention.time_decay", (width,), ROLE, "decay"),
        *weight("attention.time_first", (width,), ROLE, "bonus"),
        *shares("attention", "key", "value", "receptance"),
        *linear("attention.key", width, s.hidden, ROLE, "k"),
        *linear("attention.value", width, s.hidden, ROLE, "v"),
        *linear("attention.receptance", width, s.hidden, ROLE, "receptance"),
        *linear("attention.output", s.hidden, width, ROLE, "out"),
    )
    channel = (
        *shares("feed_forward", "key", "receptance"),
        *linear("feed_forward.key", ffn, s.hidden, "mlp", "up"),
        *linear("feed_forward.receptance", s.hidden, s.hidden, "mlp", "gate"),
        *linear("feed_forward.value", s.hidden, ffn, "mlp", "down"),
    )

    def layer(kind: str) -> list[Part]:
        first = [norm("pre_ln", s.hidden, bias=True)] if kind == "first" else []
        forward = FeedForward(activation="relu2", gated=True, width=ffn)
        norms = [norm(name, s.hidden, bias=True) for name in ("ln1", "ln2")]
        return [Part(time, (mixer,)), Part(channel, feed_forward=forward), *norms, *first]

    kinds = ["first" if number == 0 else "rest" for number in range(s.layers)]
    stack = stack_of(f"{prefix}.blocks", kinds, layer, label=lambda _: "recurrent layer")
    return text_frame(
        cfg,
        s,
        stack,
        prefix=prefix,
        embedding="embeddings",
        final_norm="ln_out",
        norm_bias=True,
        head_name="head",
    )


def recurrent_gemma(cfg: Config, prefix: str = "model") -> Anatomy:
    """Griffin: gated linear recurrences behind a convolution, and windowed attention in one layer of three."""
    s = sizes(cfg)
    width = cfg.int("lru_width", default=s.hidden)
    kernel = cfg.int("conv1d_width", default=4)
    pattern = cfg.strs("block_types", "_block_types") or ("recurrent", "recurrent", "attention")
    bias = cfg.bool("attention_bias", default=False)
    block = max(1, width // s.heads)
    name, gates = "temporal_block", "temporal_block.rg_lru"
    recurrent = Part(
        (
            *linear(f"{name}.linear_x", width, s.hidden, "state_space", "x", bias=True),
            *linear(f"{name}.linear_y", width, s.hidden, "state_space", "gate", bias=True),
            *linear(f"{name}.linear_out", s.hidden, width, "state_space", "out", bias=True),
            *convolution(f"{name}.conv_1d", width, kernel, bias=True),
            *weight(f"{gates}.recurrent_param", (width,), "state_space", "a"),
            *weight(f"{gates}.input_gate_weight", (s.heads, block, block), "state_space", "input_gate"),
            *weight(f"{gates}.input_gate_bias", (s.heads, block), "state_space", "input_gate"),
            *weight(f"{gates}.recurrent_gate_weight", (s.heads, block, block), "state_space", "recurrent_gate"),
            *weight(f"{gates}.recurrent_gate_bias", (s.heads, block), "state_space", "recurrent_gate"),
        ),
        (StateSpace(1, width, 1, kernel, width),),
    )
    window = cfg.optional_int("attention_window_size")

    def mix(kind: str) -> Part:
        if kind != FULL:
            return recurrent
        return attention(full_attention(s, window=window), s.hidden, name=name, qkv_bias=bias, output_bias=True)

    half = gated_mlp(s.hidden, max(1, s.ffn // 2), name="mlp_block", bias=True, activation="gelu_tanh")
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=[FULL if pattern[layer % len(pattern)] == "attention" else "recurrent" for layer in range(s.layers)],
        mix=mix,
        feed_forward=lambda _: half,
        norms=("temporal_pre_norm", "channel_pre_norm"),
        final_norm="final_norm",
        tied=True,
    )


def xlstm(cfg: Config, prefix: str = "backbone") -> Anatomy:
    """Matrix memories of exponential gates (mLSTM) with a gated feed-forward."""
    heads = cfg.int("num_heads")
    s = bare_sizes(Config(cfg.data | {"num_hidden_layers": cfg.int("num_blocks", "num_hidden_layers")}, cfg.origin))
    bias = cfg.bool("use_bias", default=False)
    multiple = cfg.int("mlstm_round_up_to_multiple_of", default=64)
    keys = _rounded(s.hidden * cfg.float("qk_dim_factor", min=0, max=1e3, default=0.5), multiple)
    values = _rounded(s.hidden * cfg.float("v_dim_factor", min=0, max=1e3, default=1.0), multiple)
    ffn = _rounded(
        s.hidden * cfg.float("ffn_proj_factor", min=0, max=1e3, default=2.667),
        cfg.int("ffn_round_up_to_multiple_of", default=64),
    )
    name = "mlstm_layer"
    mixer = LinearAttention("mlstm", heads, max(1, keys // heads), max(1, values // heads))
    memory = Part(
        (
            *linear(f"{name}.q", keys, s.hidden, ROLE, "q", bias=bias),
            *linear(f"{name}.k", keys, s.hidden, ROLE, "k", bias=bias),
            *linear(f"{name}.v", values, s.hidden, ROLE, "v", bias=bias),
            *linear(f"{name}.ogate_preact", values, s.hidden, ROLE, "gate", bias=bias),
            *linear(f"{name}.igate_preact", heads, s.hidden, ROLE, "beta", bias=True),
            *linear(f"{name}.fgate_preact", heads, s.hidden, ROLE, "alpha", bias=True),
            *norm_tensors(f"{name}.multihead_norm", values, bias=bias),
            *linear(f"{name}.out_proj", s.hidden, values, ROLE, "out", bias=bias),
        ),
        (mixer,),
    )
    half = gated_mlp(s.hidden, ffn, name="ffn", names=("proj_up_gate", "proj_up", "proj_down"), bias=bias)
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=["recurrent"] * s.layers,
        mix=lambda _: memory,
        feed_forward=lambda _: half,
        norms=("norm_mlstm", "norm_ffn"),
        norm_bias=bias,
        layers_name="blocks",
        embedding="embeddings",
        final_norm="out_norm" if cfg.bool("add_out_norm", default=True) else "",
    )


def _rounded(width: float, multiple: int) -> int:
    return max(1, math.ceil(width / multiple)) * multiple
