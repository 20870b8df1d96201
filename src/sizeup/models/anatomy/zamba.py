"""Zamba: Mamba layers, and a transformer layer whose weights several places share.

At a hybrid layer the shared transformer sees the hidden state beside the embedding (2·hidden), and its output goes
through a projection of that place into the layer's Mamba. The weights are stored where they first stand; the others
are tied to them, but each place keeps a cache of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.models.anatomy.family import LINEAR, Anatomy, Sizes, layer_kinds, sizes, text_frame
from sizeup.models.anatomy.mamba import STATE, convolution, mamba2, state_space1, state_space2, time_rank
from sizeup.models.anatomy.parts import Part, Tensors, attention, gated_mlp, linear, norm_tensors, stack_of, weight
from sizeup.models.config import Config
from sizeup.models.mixers import Attention
from sizeup.models.tensors import Tensor

HYBRID = "hybrid"


def zamba(cfg: Config, prefix: str = "model") -> Anatomy:
    """Mamba 1 whose scan runs in `n_mamba_heads` heads; one shared transformer."""
    s = sizes(cfg)
    period = cfg.int("attn_layer_period", default=6)
    offset = cfg.int("attn_layer_offset", min=0, default=4)
    later = [HYBRID if layer % period == offset else LINEAR for layer in range(max(0, s.layers - 3))]
    kinds = layer_kinds(cfg, s.layers, [LINEAR, LINEAR, HYBRID, *later][: s.layers], "layers_block_type")
    mamba = _headed_mamba(cfg, s)
    wide = cfg.int("attention_hidden_size", default=2 * s.hidden)
    head_dim = cfg.int("attention_head_dim", default=max(1, 2 * s.hidden // s.heads))
    mixer = Attention(s.heads, s.kv_heads, head_dim, head_dim)
    shared = (
        *_shared_attention(mixer, wide, s.hidden),
        *gated_mlp(s.hidden, s.ffn, name="feed_forward", activation="gelu").tensors,
        *norm_tensors("input_layernorm", wide),
        *norm_tensors("pre_ff_layernorm", s.hidden),
    )
    places = [layer for layer, kind in enumerate(kinds) if kind == HYBRID]
    return _zamba_frame(cfg, s, prefix, kinds, mamba, mixer, "shared_transf", dict.fromkeys(places, shared), 1)


def _headed_mamba(cfg: Config, s: Sizes) -> Part:
    heads = cfg.int("n_mamba_heads", default=2)
    inner = cfg.int("mamba_expand", default=2) * s.hidden
    each = max(1, inner // heads)
    state, kernel = cfg.int("mamba_d_state", default=16), cfg.int("mamba_d_conv", default=4)
    rank = time_rank(cfg, "mamba_dt_rank", s.hidden)
    bias = cfg.bool("mamba_proj_bias", default=False)
    tensors = (
        *linear("mamba.in_proj", 2 * inner, s.hidden, STATE, "in", bias=bias),
        *convolution("mamba.conv1d", inner, kernel, bias=cfg.bool("mamba_conv_bias", default=True)),
        *weight("mamba.x_proj_weight", (heads, rank + 2 * state, each), STATE, "x"),
        *weight("mamba.dt_proj_weight", (heads, each, rank), STATE, "dt"),
        *weight("mamba.dt_proj_bias", (heads, each), STATE, "dt"),
        *weight("mamba.A_log", (heads, each, state), STATE, "a"),
        *weight("mamba.D", (heads, each), STATE, "d"),
        *linear("mamba.out_proj", s.hidden, inner, STATE, "out", bias=bias),
    )
    return Part(tensors, (state_space1(inner, state, kernel),))


def _shared_attention(mixer: Attention, wide: int, hidden: int) -> Tensors:
    part = attention(mixer, wide)
    output = linear("self_attn.o_proj", hidden, mixer.heads * mixer.head_dim, "attention", "o")
    return (*(tensor for tensor in part.tensors if tensor.part != "o"), *output)


def zamba2(cfg: Config, prefix: str = "model") -> Anatomy:
    """Mamba 2; `num_mem_blocks` shared transformers take turns, and each place adapts them with low rank."""
    s = sizes(cfg)
    head = [LINEAR, *([LINEAR] * 5 + [HYBRID]) * 7, *[LINEAR] * 4, HYBRID, *[LINEAR] * 3, HYBRID, LINEAR, LINEAR]
    kinds = layer_kinds(cfg, s.layers, (head * (s.layers // len(head) + 1))[: s.layers], "layers_block_type")
    heads = cfg.int("n_mamba_heads", default=8)
    mamba = mamba2(
        state_space2(
            cfg.int("mamba_expand", default=2) * s.hidden,
            cfg.int("mamba_d_state", default=64),
            cfg.int("mamba_d_conv", default=4),
            cfg.int("mamba_ngroups", default=1),
            heads,
        ),
        s.hidden,
        name="mamba",
        bias=cfg.bool("add_bias_linear", default=False),
        conv_bias=cfg.bool("use_conv_bias", default=True),
    )
    head_dim = max(1, 2 * s.hidden // s.heads)
    mixer = Attention(s.heads, s.kv_heads, head_dim, head_dim)
    turns = cfg.int("num_mem_blocks", default=1)
    places = [layer for layer, kind in enumerate(kinds) if kind == HYBRID]
    shared = {
        place: _zamba2_shared(cfg, s, mixer, [n for n in range(len(places)) if n % turns == turn % turns])
        for turn, place in enumerate(places)
    }
    return _zamba_frame(cfg, s, prefix, kinds, mamba, mixer, "shared_transformer", shared, turns)


def _zamba2_shared(cfg: Config, s: Sizes, mixer: Attention, uses: Sequence[int]) -> Tensors:
    """A shared transformer, with an adapter for each of the places that use it."""
    wide, rank = 2 * s.hidden, cfg.int("adapter_rank", default=128)
    bias = cfg.bool("add_bias_linear", default=False)
    adapted = {"feed_forward.gate_up_proj": (2 * s.ffn, s.hidden, "mlp")}
    if cfg.bool("use_shared_attention_adapter", default=False):
        adapted |= {f"self_attn.linear_{side}": (wide, wide, "attention") for side in "qkv"}
    adapters = tuple(
        tensor
        for name, (outputs, inputs, role) in adapted.items()
        for use in uses
        for tensor in (
            *linear(f"{name}_adapter_list.{use}.0", rank, inputs, role, "adapter"),
            *linear(f"{name}_adapter_list.{use}.1", outputs, rank, role, "adapter"),
        )
    )
    return (
        *_shared_attention(mixer, wide, s.hidden),
        *gated_mlp(s.hidden, s.ffn, name="feed_forward", fused="gate_up_proj", bias=bias, activation="gelu").tensors,
        *adapters,
        *norm_tensors("input_layernorm", wide),
        *norm_tensors("pre_ff_layernorm", s.hidden),
    )


def _zamba_frame(
    cfg: Config,
    s: Sizes,
    prefix: str,
    kinds: Sequence[str],
    mamba: Part,
    mixer: Attention,
    name: str,
    shared: dict[int, Tensors],
    turns: int,
) -> Anatomy:
    """The layers: plain ones, and hybrids whose shared transformer is stored at one of the first `turns` of them."""
    places = list(shared)

    def layer(kind: str) -> list[Part]:
        if kind == LINEAR:
            return [mamba, Part(norm_tensors("input_layernorm", s.hidden))]
        place = int(kind)
        inner = tuple(msgspec.structs.replace(t, name=f"mamba_decoder.{t.name}") for t in mamba.tensors)
        first = places[places.index(place) % turns]
        own = tuple(
            _shared_tensor(tensor, name, "" if place == first else f"{prefix}.layers.{first}")
            for tensor in shared[place]
        )
        forward = gated_mlp(s.hidden, s.ffn, activation="gelu").feed_forward
        return [
            Part(own, (mixer,), forward),
            Part(linear("linear", s.hidden, s.hidden, "mlp", "linear")),
            Part((*inner, *norm_tensors("mamba_decoder.input_layernorm", s.hidden)), mamba.mixers),
        ]

    named = [LINEAR if kind != HYBRID else str(layer) for layer, kind in enumerate(kinds)]
    stack = stack_of(
        f"{prefix}.layers", named, layer, label=lambda kind: "state-space layer" if kind == LINEAR else "hybrid layer"
    )
    return text_frame(cfg, s, stack, prefix=prefix, final_norm="final_layernorm", tied=True)


def _shared_tensor(tensor: Tensor, name: str, stored: str) -> Tensor:
    inner = f"{name}.{tensor.name}"
    return msgspec.structs.replace(tensor, name=inner, tied_to=f"{stored}.{inner}" if stored else "")
