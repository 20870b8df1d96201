"""Gemma 3n and 4: later layers read the caches of earlier ones, and every layer has an embedding of its own."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sizeup.models.anatomy.dense import sliding_pattern
from sizeup.models.anatomy.family import FULL, SLIDING, Anatomy, Sizes, decoder, layer_kinds, sizes
from sizeup.models.anatomy.gemma import SANDWICH_NORMS
from sizeup.models.anatomy.parts import Part, Tensors, attention, fused_experts, gated_mlp, linear, norm_tensors, weight
from sizeup.models.config import MAX_EXPERTS, Config
from sizeup.models.mixers import Attention
from sizeup.models.model import FeedForward
from sizeup.models.tensors import Tensor

SHARED = "/shared"
#: The part of tensors that a checkpoint stores and transformers drops on loading.
UNUSED = "unused"


def shared_kinds(cfg: Config, kinds: Sequence[str]) -> list[str]:
    """The kinds with `/shared` after those of the last `num_kv_shared_layers`, which have no keys and values."""
    shared = cfg.int("num_kv_shared_layers", min=0, default=0)
    first = len(kinds) - shared if shared else len(kinds)
    return [kind if layer < first else f"{kind}{SHARED}" for layer, kind in enumerate(kinds)]


def per_layer_tables(cfg: Config, prefix: str, s: Sizes) -> Tensors:
    """The embedding of every layer, in one table, and the projection that it is added to."""
    width = cfg.int("hidden_size_per_layer_input", min=0, default=0)
    if not width:
        return ()
    rows = cfg.int("vocab_size_per_layer_input", default=s.vocabulary)
    table = f"{prefix}.embed_tokens_per_layer.weight"
    return (
        *weight(table, (rows, s.layers * width), "embedding", "per_layer"),
        *linear(f"{prefix}.per_layer_model_projection", s.layers * width, s.hidden, "embedding", "per_layer"),
        *norm_tensors(f"{prefix}.per_layer_projection_norm", width),
    )


def per_layer_gate(cfg: Config, s: Sizes) -> Tensors:
    """What a layer does with its own embedding: a gate, a projection back and a norm."""
    width = cfg.int("hidden_size_per_layer_input", min=0, default=0)
    if not width:
        return ()
    return (
        *linear("per_layer_input_gate", width, s.hidden, "mlp", "per_layer_gate"),
        *linear("per_layer_projection", s.hidden, width, "mlp", "per_layer_up"),
        *norm_tensors("post_per_layer_input_norm", s.hidden),
    )


def unused_keys(mixer: Attention, hidden: int, *, bias: bool, values: bool = True) -> Tensors:
    """What layers with a shared cache store all the same, and no class builds: keys and values of their own."""
    if not mixer.shares_cache:
        return ()
    width = mixer.kv_heads * mixer.head_dim
    return (
        *linear("self_attn.k_proj", width, hidden, "buffer", UNUSED, bias=bias),
        *(linear("self_attn.v_proj", width, hidden, "buffer", UNUSED, bias=bias) if values else ()),
        *weight("self_attn.k_norm.weight", (mixer.head_dim,), "buffer", UNUSED),
    )


def gemma3n_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Gemma 3 with four residual streams (AltUp), a low-rank path beside the attention (Laurel) and shared caches."""
    widths = _widths(cfg)
    s = sizes(Config(cfg.data | {"intermediate_size": widths[0]}, cfg.origin, cfg.path))
    if len(widths) not in {1, s.layers}:
        raise cfg.bad(
            "intermediate_size", f"a list of {len(widths)}", f"one width, or one for each of {s.layers} layers"
        )
    bias = cfg.bool("attention_bias", default=False)
    streams = cfg.int("altup_num_inputs", default=4)
    rank = cfg.int("laurel_rank", default=64)
    around = (
        *weight("altup.correct_output_scale", (s.hidden,), "norm", "altup"),
        *linear("altup.correction_coefs", streams, streams, "mlp", "altup"),
        *linear("altup.prediction_coefs", streams**2, streams, "mlp", "altup"),
        *linear("altup.modality_router", streams, s.hidden, "mlp", "altup"),
        *norm_tensors("altup.router_norm", s.hidden),
        *linear("laurel.linear_left", rank, s.hidden, "mlp", "laurel"),
        *linear("laurel.linear_right", s.hidden, rank, "mlp", "laurel"),
        *norm_tensors("laurel.post_laurel_norm", s.hidden),
        *per_layer_gate(cfg, s),
    )

    def mix(kind: str) -> Part:
        mixer = _mixer(cfg, s, kind, s.kv_heads, s.head_dim)
        part = attention(mixer, s.hidden, qkv_bias=bias, output_bias=bias, qk_norm="head", extra=around)
        return Part((*part.tensors, *unused_keys(mixer, s.hidden, bias=bias)), part.mixers)

    projections = tuple(
        Tensor(f"{prefix}.{name}.{{copy}}.weight", (s.hidden, s.hidden), "mlp", "altup", streams - 1)
        for name in ("altup_projections", "altup_unembed_projections")
        if streams > 1
    )
    kinds = layer_kinds(cfg, s.layers, [SLIDING] * 4 + [FULL])
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=shared_kinds(cfg, kinds),
        halves=[str(width) for width in (widths if len(widths) == s.layers else widths * s.layers)],
        mix=mix,
        feed_forward=lambda width: gated_mlp(s.hidden, int(width), activation="gelu_tanh"),
        norms=SANDWICH_NORMS,
        positions=(*per_layer_tables(cfg, prefix, s), *projections),
        tied=True,
    )


def _widths(cfg: Config) -> list[int]:
    if isinstance(cfg.get("intermediate_size"), list):
        return list(cfg.ints("intermediate_size") or [1])
    return [cfg.int("intermediate_size")]


def _mixer(cfg: Config, s: Sizes, kind: str, kv_heads: int, head_dim: int) -> Attention:
    return Attention(
        s.heads,
        kv_heads,
        head_dim,
        head_dim,
        window=cfg.optional_int("sliding_window") if kind.startswith(SLIDING) else None,
        shares_cache=kind.endswith(SHARED),
        causal=cfg.get("use_bidirectional_attention") != "all",
    )


def gemma4_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Gemma 3 with wider and fewer heads in the full layers, whose values may be their keys; experts perhaps.

    Layers that share a cache may have a feed-forward twice as wide.
    """
    s = sizes(cfg)
    kinds = layer_kinds(cfg, s.layers, sliding_pattern(cfg, 6))
    kinds[-1] = FULL
    kv_heads, head_dim = global_heads(cfg, s, kinds)
    bias = cfg.bool("attention_bias", default=False)
    same = cfg.bool("attention_k_eq_v", default=False)
    double = cfg.bool("use_double_wide_mlp", default=False)

    def mix(kind: str) -> Part:
        full = kind.startswith(FULL)
        mixer = _mixer(cfg, s, kind, kv_heads if full else s.kv_heads, head_dim if full else s.head_dim)
        part = attention(mixer, s.hidden, qkv_bias=bias, output_bias=bias, qk_norm="head")
        tensors = tuple(tensor for tensor in part.tensors if tensor.part != "v") if same and full else part.tensors
        scalar = weight("layer_scalar", (1,), "buffer", "scale")
        unused = unused_keys(mixer, s.hidden, bias=bias, values=not (same and full))
        return Part((*tensors, *unused, *scalar, *per_layer_gate(cfg, s)), part.mixers)

    def half(kind: str) -> Part:
        part = gated_mlp(s.hidden, s.ffn * 2 if kind == "double" else s.ffn, activation="gelu_tanh")
        return _with_experts(cfg, s, part) if cfg.bool("enable_moe_block", default=False) else part

    marked = shared_kinds(cfg, kinds)
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=marked,
        halves=["double" if double and kind.endswith(SHARED) else "single" for kind in marked],
        mix=mix,
        feed_forward=half,
        norms=SANDWICH_NORMS,
        positions=per_layer_tables(cfg, prefix, s),
        tied=True,
    )


def global_heads(cfg: Config, s: Sizes, kinds: Sequence[str]) -> tuple[int, int]:
    """Key heads and head size of full layers: `per_layer_config`, or the names with `global`."""
    listed = cfg.optional_sub("per_layer_config")
    if listed and FULL in kinds:
        number = kinds.index(FULL)
        own = listed.optional_sub(str(number), f"{number:02}")
        if own:
            return own.int("num_key_value_heads", default=s.kv_heads), own.int("head_dim", default=s.head_dim)
    kv_heads = s.kv_heads
    if cfg.bool("attention_k_eq_v", default=False):
        kv_heads = cfg.int("num_global_key_value_heads", default=s.kv_heads)
    return kv_heads, cfg.int("global_head_dim", default=512)


def _with_experts(cfg: Config, s: Sizes, dense: Part) -> Part:
    """Gemma 4's mixture stands beside the dense feed-forward; both have norms of their own."""
    count = cfg.int("num_experts", max=MAX_EXPERTS)
    used = cfg.int("top_k_experts", max=count)
    width = cfg.int("moe_intermediate_size", "expert_intermediate_size")
    tensors = (
        *dense.tensors,
        *linear("router.proj", count, s.hidden, "router", "router"),
        *weight("router.scale", (s.hidden,), "router", "scale"),
        *weight("router.per_expert_scale", (count,), "router", "scale"),
        *fused_experts(s.hidden, width, count, used, gate_up="experts.gate_up_proj", down="experts.down_proj"),
        *norm_tensors("post_feedforward_layernorm_1", s.hidden),
        *norm_tensors("post_feedforward_layernorm_2", s.hidden),
        *norm_tensors("pre_feedforward_layernorm_2", s.hidden),
    )
    forward = dense.feed_forward or FeedForward()
    return Part(
        tensors,
        feed_forward=msgspec.structs.replace(forward, experts=count, experts_per_token=used, expert_width=width),
    )
