"""Hybrids of attention and linear attention: gated delta nets, lightning attention, short convolutions, recurrences.

Source: transformers 5.23, `models/<model type>/modeling_*.py`, where no kernel package is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sizeup.errors import BadConfig
from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.architectures.experts import Mixture
from sizeup.estimate.training.architectures.gated_attention import GatedAttention
from sizeup.estimate.training.architectures.gated_delta import GatedDelta
from sizeup.estimate.training.architectures.gated_recurrence import GatedRecurrence, OwnTables
from sizeup.estimate.training.architectures.kimi_delta import KimiDelta
from sizeup.estimate.training.architectures.latent import Latent
from sizeup.estimate.training.architectures.lightning import Lightning
from sizeup.estimate.training.architectures.rwkv import TimeMix
from sizeup.estimate.training.architectures.short_convolution import ShortConvolution
from sizeup.estimate.training.architectures.still_latent import StillLatent
from sizeup.estimate.training.families.common import base, bias
from sizeup.models.anatomy.family import FULL, LINEAR, SLIDING, layer_kinds, sizes
from sizeup.models.anatomy.lfm import lfm2_width
from sizeup.models.config import MAX_LAYERS, Config

CONVOLUTION = "conv"
#: LFM2's names of what other models call otherwise.
LFM = {
    "self_attn.o_proj": "self_attn.out_proj", "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}  # fmt: skip


def qwen3_5_text(cfg: Config) -> DecoderShape:
    """Gated delta nets, with gated attention in every fourth layer; positions of three axes."""
    return _gated_delta(cfg, projections="four", axes=True)


def qwen3_5_moe_text(cfg: Config) -> DecoderShape:
    """Qwen3.5 with mixtures in every layer."""
    layers = sizes(cfg).layers
    return msgspec.structs.replace(qwen3_5_text(cfg), mixture=_mixture(cfg), sparse=(True,) * layers)


def qwen3_next(cfg: Config) -> DecoderShape:
    """Gated delta nets of two projections, gated attention in every fourth layer, mixtures."""
    layers = sizes(cfg).layers
    step, dense = cfg.int("decoder_sparse_step", default=1), cfg.ints("mlp_only_layers", min=0) or ()
    sparse = tuple(number not in dense and (number + 1) % step == 0 for number in range(layers))
    mixture = msgspec.structs.replace(_mixture(cfg), adapted=True)
    return msgspec.structs.replace(_gated_delta(cfg, projections="two"), mixture=mixture, sparse=sparse)


def _whole_groups(keys: int, values: int) -> None:
    """Raises BadConfig unless every key head has as many value heads."""
    if values % keys:
        raise BadConfig(
            f"linear_num_value_heads is {values}, which {keys} key heads don't share evenly",
            hint="make it a multiple of linear_num_key_heads",
        )


def olmo_hybrid(cfg: Config) -> DecoderShape:
    """Gated delta nets with norms before the halves; OLMo 2's attention, without positions, in every fourth layer."""
    s = sizes(cfg)
    heads = cfg.int("linear_num_value_heads", default=s.heads)
    key_heads = cfg.int("linear_num_key_heads", default=s.heads)
    key_dim = cfg.int("linear_key_head_dim", default=max(1, 3 * s.hidden // (4 * key_heads)))
    delta = GatedDelta(
        key_heads=key_heads, value_heads=heads, key_dim=key_dim,
        value_dim=cfg.int("linear_value_head_dim", default=2 * key_dim),
        kernel=cfg.int("linear_conv_kernel_dim", default=4), projections="six",
        doubled=cfg.bool("linear_allow_neg_eigval", default=True),
    )  # fmt: skip
    _whole_groups(key_heads, heads)
    default = [FULL if number % 4 == 3 else LINEAR for number in range(s.layers)]
    if FULL not in default:
        default[-1] = FULL
    kinds = layer_kinds(cfg, s.layers, default)
    rope = cfg.optional_sub("rope_parameters")
    turns = rope is None or "rope_theta" not in rope.data or rope.has("rope_theta")
    varied: tuple[dict[str, Any], ...] = tuple(
        {"order": "post"} if kind == FULL else {"mixer": delta} for kind in kinds
    )
    b = bias(cfg)
    return base(
        cfg, norm="rms_fp32", qk_norm="whole", qkv_bias=b, output_bias=b, rotary=1.0 if turns else 0.0,
        still=tuple(kind != FULL for kind in kinds), rotary_wide=True, rotary_back=True, varied=varied,
    )  # fmt: skip


def kimi_linear(cfg: Config) -> DecoderShape:
    """Kimi's delta attention, with latent attention without positions in some layers, and mixtures."""
    s = sizes(cfg)
    inner = cfg.optional_sub("linear_attn_config") or cfg
    delta = KimiDelta(
        heads=inner.int("linear_num_heads", "num_heads", default=32),
        head_dim=inner.int("linear_head_dim", "head_dim", default=128),
        kernel=inner.int("linear_conv_kernel_dim", "short_conv_kernel_size", default=4),
    )  # fmt: skip
    latent = Latent(
        cfg.optional_int("q_lora_rank", min=0) or 0, cfg.int("kv_lora_rank"), cfg.int("qk_nope_head_dim"),
        cfg.int("qk_rope_head_dim"), cfg.int("v_head_dim"),
    )  # fmt: skip
    full = StillLatent(latent, bias(cfg))
    varied: tuple[dict[str, Any], ...] = tuple(
        {"mixer": full if kind == FULL else delta} for kind in _kimi_kinds(cfg, s.layers)
    )
    width = cfg.int("moe_intermediate_size")
    mixture = Mixture(
        experts=cfg.int("num_experts", "num_local_experts"),
        chosen=cfg.int("num_experts_per_token", "num_experts_per_tok"), width=width,
        shared=width * cfg.int("num_shared_experts", "n_shared_experts", min=0, default=1), scoring="sigmoid",
        normalised=cfg.bool("moe_renormalize", "norm_topk_prob", default=True),
    )  # fmt: skip
    dense = cfg.int("first_k_dense_replace", min=0, default=1)
    mlps = cfg.strs("mlp_layer_types")
    sparse = tuple(kind == "sparse" for kind in mlps) if mlps else tuple(n >= dense for n in range(s.layers))
    return base(cfg, rotary=0.0, head_dim=latent.rope_dim, mixture=mixture, sparse=sparse, varied=varied)


def bailing_hybrid(cfg: Config) -> DecoderShape:
    """Kimi's delta attention with whole projections; gated latent attention in every sixth layer; mixtures."""
    s = sizes(cfg)
    size = cfg.int("linear_head_dim", "head_dim", default=128)
    delta = KimiDelta(
        heads=cfg.int("linear_num_heads", default=s.heads), head_dim=size,
        kernel=cfg.int("linear_conv_kernel_dim", "short_conv_kernel_size", default=4), whole=True,
        safe=cfg.bool("kda_safe_gate", default=True),
    )  # fmt: skip
    latent = Latent(
        0, cfg.int("kv_lora_rank"), cfg.int("qk_nope_head_dim"), cfg.int("qk_rope_head_dim"), cfg.int("v_head_dim")
    )
    full = StillLatent(latent, bias(cfg), turns=True)
    period = cfg.int("layer_group_size", max=10_000, default=6)
    kinds = layer_kinds(cfg, s.layers, [LINEAR] * (period - 1) + [FULL])
    varied: tuple[dict[str, Any], ...] = tuple({"mixer": full if kind == FULL else delta} for kind in kinds)
    width = cfg.int("moe_intermediate_size")
    mixture = Mixture(
        experts=cfg.int("num_experts", "num_local_experts"),
        chosen=cfg.int("num_experts_per_token", "num_experts_per_tok"), width=width,
        shared=width * cfg.int("num_shared_experts", "n_shared_experts", min=0, default=1), scoring="sigmoid",
        normalised=cfg.bool("moe_renormalize", "norm_topk_prob", default=True),
    )  # fmt: skip
    dense, mlps = cfg.int("first_k_dense_replace", min=0, default=2), cfg.strs("mlp_layer_types")
    sparse = tuple(kind == "sparse" for kind in mlps) if mlps else tuple(n >= dense for n in range(s.layers))
    return base(cfg, head_dim=latent.rope_dim, mixture=mixture, sparse=sparse, varied=varied)


def _kimi_kinds(cfg: Config, layers: int) -> Sequence[str]:
    """`layer_types`, or the numbers (from 1) that `linear_attn_config` gives the full layers."""
    inner = cfg.optional_sub("linear_attn_config")
    full = inner.ints("full_attn_layers") if inner else None
    if full is not None and not cfg.strs("layer_types"):
        return [FULL if number + 1 in full else LINEAR for number in range(layers)]
    return layer_kinds(cfg, layers, [FULL if number and number % 4 == 0 else LINEAR for number in range(layers)])


def lfm2(cfg: Config) -> DecoderShape:
    """Short convolutions, with attention in some layers."""
    return msgspec.structs.replace(_short_convolutions(cfg), ffn=lfm2_width(cfg))


def lfm2_moe(cfg: Config) -> DecoderShape:
    """LFM2 with mixtures after the first layers."""
    dense = cfg.int("num_dense_layers", min=0, default=2)
    mixture = Mixture(
        experts=cfg.int("num_experts", "num_local_experts"), chosen=cfg.int("num_experts_per_tok"),
        width=cfg.int("moe_intermediate_size"), scoring="low sigmoid",
        normalised=cfg.bool("norm_topk_prob", default=True),
    )  # fmt: skip
    shape = _short_convolutions(cfg)
    sparse = tuple(number >= dense for number in range(shape.layers))
    return msgspec.structs.replace(shape, mixture=mixture, sparse=sparse)


def lfm3(cfg: Config) -> DecoderShape:
    """LFM2 with windows, norms after the halves, and a gate for each head."""
    s, b = sizes(cfg), bias(cfg)
    default = [FULL if n % 4 == 2 else SLIDING if n % 4 == 0 and n else CONVOLUTION for n in range(s.layers)]
    kinds = layer_kinds(cfg, s.layers, default)
    window = cfg.optional_int("sliding_window", min=0) or None
    sandwich = cfg.bool("use_sandwich_norm", default=True)
    return msgspec.structs.replace(
        _short_convolutions(cfg, kinds), qkv_bias=b, output_bias=b, rotary_wide=True, rotary_back=True,
        windows=tuple(window if kind == SLIDING else None for kind in kinds), rotary_tables=2,
        still=tuple(kind == CONVOLUTION for kind in kinds), order="sandwich" if sandwich else "pre",
        output_gate="sigmoid of heads" if cfg.bool("use_attention_gate", default=True) else "",
        names=LFM | {"self_attn.gate_proj": "self_attn.g_proj", "self_attn.o_proj": "self_attn.o_proj"},
        attention_dropout=cfg.float("attention_dropout", default=0.0),
    )  # fmt: skip


def minimax(cfg: Config) -> DecoderShape:
    """Mixtral with lightning attention in every other layer, and a stream that goes on from the norms."""
    s = sizes(cfg)
    lightning = Lightning(
        heads=s.heads, head_dim=s.head_dim, block=cfg.int("block_size", default=256),
        activation=cfg.str("hidden_act", default="silu"),
    )  # fmt: skip
    default = [LINEAR if number % 2 else FULL for number in range(s.layers)]
    varied: tuple[dict[str, Any], ...] = tuple(
        {} if kind == FULL else {"mixer": lightning} for kind in layer_kinds(cfg, s.layers, default)
    )
    mixture = Mixture(
        experts=cfg.int("num_local_experts", "num_experts"), chosen=cfg.int("num_experts_per_tok"), width=s.ffn,
        scoring="softmax kept", adapted=True,
    )  # fmt: skip
    window = cfg.optional_int("sliding_window", min=0) or None
    return base(
        cfg, order="scaled", mixture=mixture, sparse=(True,) * s.layers, varied=varied,
        windows=(window,) * s.layers if window else (),
    )  # fmt: skip


def recurrent_gemma(cfg: Config) -> DecoderShape:
    """Gated recurrences behind a convolution; windowed attention in every third layer."""
    s = sizes(cfg)
    activation = cfg.str("hidden_activation", "hidden_act", default="gelu_pytorch_tanh")
    block = GatedRecurrence(
        width=cfg.optional_int("lru_width") or s.hidden, blocks=s.heads, kernel=cfg.int("conv1d_width", default=4),
        activation=activation,
    )  # fmt: skip
    if block.width % block.blocks:
        raise BadConfig(
            f"lru_width is {block.width}, which {block.blocks} heads don't share evenly",
            hint="make it a multiple of num_attention_heads",
        )
    full = OwnTables(share=_turned_share(cfg, 0.5), bias=bias(cfg))
    pattern = cfg.strs("block_types", "_block_types") or ("recurrent", "recurrent", "attention")
    kinds = [pattern[number % len(pattern)] for number in range(s.layers)]
    varied: tuple[dict[str, Any], ...] = tuple({"mixer": full if kind == "attention" else block} for kind in kinds)
    window = cfg.int("attention_window_size", "sliding_window", default=2048)
    return base(
        cfg, norm="rms_offset", embedding_scale="model", rotary=0.0, mlp_bias=True, ffn=max(1, s.ffn // 2),
        tied=cfg.bool("tie_word_embeddings", default=True), activation=activation, logit_softcap=True, varied=varied,
        windows=(window,) * s.layers, order="normed",
    )  # fmt: skip


def rwkv(cfg: Config) -> DecoderShape:
    """RWKV-4: two halves that mix each token with the one before, and no attention."""
    hidden, layers = cfg.int("hidden_size"), cfg.int("num_hidden_layers", max=MAX_LAYERS)
    return DecoderShape(
        hidden=hidden, layers=layers, head_count=1, kv_heads=1, head_dim=hidden, vocabulary=cfg.int("vocab_size"),
        ffn=cfg.optional_int("intermediate_size") or 4 * hidden, norm="layer", embedding_norm=True, rotary=0.0,
        order="named", mixer=TimeMix(cfg.optional_int("attention_hidden_size") or hidden), mlp="channel mix",
        tied=cfg.bool("tie_word_embeddings", default=False),
    )  # fmt: skip


def _short_convolutions(cfg: Config, kinds: Sequence[str] | None = None) -> DecoderShape:
    s = sizes(cfg)
    chosen = cfg.ints("full_attn_idxs", min=0)
    default = [FULL if chosen is None or number in chosen else CONVOLUTION for number in range(s.layers)]
    operator = ShortConvolution(kernel=cfg.int("conv_L_cache", default=3), bias=cfg.bool("conv_bias", default=False))
    varied: tuple[dict[str, Any], ...] = tuple(
        {"mixer": operator} if kind == CONVOLUTION else {} for kind in kinds or layer_kinds(cfg, s.layers, default)
    )
    tied = cfg.bool("tie_word_embeddings", "tie_embedding", default=True)
    return base(cfg, qk_norm="head", tied=tied, activation="silu", names=LFM, varied=varied)


def _gated_delta(cfg: Config, *, projections: str, axes: bool = False) -> DecoderShape:
    delta = GatedDelta(
        key_heads=cfg.int("linear_num_key_heads"), value_heads=cfg.int("linear_num_value_heads"),
        key_dim=cfg.int("linear_key_head_dim"), value_dim=cfg.int("linear_value_head_dim"),
        kernel=cfg.int("linear_conv_kernel_dim", default=4), projections=projections,
    )  # fmt: skip
    _whole_groups(delta.key_heads, delta.value_heads)
    period = cfg.int("full_attention_interval", max=10_000, default=4)
    kinds = layer_kinds(cfg, sizes(cfg).layers, [LINEAR] * (period - 1) + [FULL])
    full = GatedAttention(bias=bias(cfg))
    varied: tuple[dict[str, Any], ...] = tuple({"mixer": full if kind == FULL else delta} for kind in kinds)
    return base(cfg, norm="rms_offset", rotary=_turned_share(cfg), rotary_joined=True, axes=axes, varied=varied)


def _turned_share(cfg: Config, default: float = 0.25) -> float:
    """Share of a head that turns."""
    nested = cfg.optional_sub("rope_parameters")
    value = cfg.optional_float("partial_rotary_factor")
    if value is None and nested is not None:
        value = nested.optional_float("partial_rotary_factor")
    return default if value is None else value


def _mixture(cfg: Config) -> Mixture:
    return Mixture(
        experts=cfg.int("num_experts"), chosen=cfg.int("num_experts_per_tok"), width=cfg.int("moe_intermediate_size"),
        shared=cfg.int("shared_expert_intermediate_size"), shared_gate=True, shared_first=True,
        normalised=cfg.bool("norm_topk_prob", default=True),
    )  # fmt: skip
