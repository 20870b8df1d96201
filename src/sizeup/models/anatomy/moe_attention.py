"""Mixtures of experts with an attention of their own: heads or key heads by layer, an indexer, convolutions."""

from __future__ import annotations

from sizeup.models.anatomy.family import (
    DENSE,
    FULL,
    SLIDING,
    SPARSE,
    Anatomy,
    Sizes,
    decoder,
    full_attention,
    layer_kinds,
    sizes,
    sparse_halves,
    windowed,
)
from sizeup.models.anatomy.moe import expert_count, experts_per_token, shared_mlp
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    attention,
    fused_experts,
    gated_mlp,
    linear,
    mixture,
    norm_tensors,
    weight,
)
from sizeup.models.config import Config
from sizeup.models.mixers import Attention, Indexer


def laguna(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen3's mixture with a gate on the attention's output and a number of heads for every layer."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    heads = cfg.ints("num_attention_heads_per_layer") or (s.heads,) * s.layers
    kinds = layer_kinds(cfg, s.layers)
    if len(heads) != s.layers:
        raise cfg.bad("num_attention_heads_per_layer", f"a list of {len(heads)}", f"a list of {s.layers}")
    gating = cfg.get("gating")
    per_head = gating is True or gating == "per-head"

    def mix(kind: str) -> Part:
        name, _, count = kind.partition("/")
        mixer = Attention(
            int(count),
            s.kv_heads,
            s.head_dim,
            s.head_dim,
            window=cfg.optional_int("sliding_window") if name == SLIDING else None,
        )
        gate = linear("self_attn.g_proj", mixer.heads * (1 if per_head else s.head_dim), s.hidden, "attention", "gate")
        return attention(mixer, s.hidden, qkv_bias=bias, output_bias=bias, qk_norm="head", extra=gate)

    def half(kind: str) -> Part:
        if kind == DENSE:
            return gated_mlp(s.hidden, s.ffn)
        count = expert_count(cfg, "num_experts", "num_local_experts")
        shared = cfg.int("shared_expert_intermediate_size", min=0, default=0)
        return mixture(
            s.hidden,
            cfg.int("moe_intermediate_size"),
            count,
            experts_per_token(cfg, count),
            correction="mlp.experts.e_score_correction_bias",
            correction_role="router",
            shared=shared_mlp(s, shared, "mlp.shared_expert"),
        )

    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=[f"{kind}/{count}" for kind, count in zip(kinds, heads, strict=True)],
        halves=sparse_halves(cfg, s.layers, 1),
        mix=mix,
        feed_forward=half,
    )


def mimo_v2_flash(cfg: Config, prefix: str = "model") -> Anatomy:
    """Narrower values than keys; windowed layers have twice the key heads and a sink per query head."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    value_dim = cfg.int("v_head_dim", default=s.head_dim)
    window = cfg.optional_int("sliding_window", "sliding_window_size")
    pattern = cfg.ints("hybrid_layer_pattern", min=0, max=1)
    kinds = [FULL if layer == 0 or (layer + 1) % 6 == 0 else SLIDING for layer in range(s.layers)]
    if pattern:
        kinds = [SLIDING if on else FULL for on in pattern]

    def mix(kind: str) -> Part:
        if kind == FULL:
            return attention(Attention(s.heads, s.kv_heads, s.head_dim, value_dim), s.hidden, qkv_bias=bias)
        kv_heads = cfg.int("swa_num_key_value_heads", default=2 * s.kv_heads)
        mixer = Attention(s.heads, kv_heads, s.head_dim, value_dim, window=window, sinks=True)
        sinks = weight("self_attn.attention_sink_bias", (s.heads,), "attention", "sinks")
        return attention(mixer, s.hidden, qkv_bias=bias, extra=sinks)

    def half(kind: str) -> Part:
        if kind == DENSE:
            return gated_mlp(s.hidden, s.ffn)
        count = expert_count(cfg, "n_routed_experts", "num_experts")
        width = cfg.int("moe_intermediate_size")
        correction = "mlp.gate.e_score_correction_bias"
        return mixture(s.hidden, width, count, experts_per_token(cfg, count), correction=correction)

    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=layer_kinds(cfg, s.layers, kinds),
        halves=freq_halves(cfg, s.layers, 1),
        mix=mix,
        feed_forward=half,
    )


def freq_halves(cfg: Config, layers: int, dense: int) -> list[str]:
    """Mixtures where `moe_layer_freq`, a list of 0 and 1, has 1; otherwise as `sparse_halves`."""
    if isinstance(cfg.get("moe_layer_freq"), list) and not cfg.has("mlp_layer_types"):
        listed = cfg.ints("moe_layer_freq", min=0, max=1) or ()
        if len(listed) != layers:
            raise cfg.bad("moe_layer_freq", f"a list of {len(listed)}", f"a list of {layers}")
        return [SPARSE if on else DENSE for on in listed]
    return sparse_halves(cfg, layers, dense)


def minimax_m3(cfg: Config, prefix: str = "model", *, hub_names: bool = True) -> Anatomy:
    """Grouped queries of which an indexer picks blocks of tokens in most layers; a shared expert beside the others.

    hub_names: experts and indexer under the names of the published checkpoint, instead of transformers' own.
    """
    s = sizes(cfg)
    sparse = cfg.optional_sub("sparse_attention_config")
    chosen = sparse.ints("sparse_attention_freq", min=0, max=1) if sparse else None
    kinds = ["minimax_m3_sparse" if on else FULL for on in chosen] if chosen else FULL

    def index(name: str, legacy: str, default: int) -> int:
        return (sparse.optional_int(legacy) if sparse else None) or cfg.int(name, default=default)

    indexer = Indexer(
        heads=index("index_n_heads", "sparse_num_index_heads", 4),
        head_dim=index("index_head_dim", "sparse_index_dim", 128),
        top_k=index("index_topk_blocks", "sparse_topk_blocks", 16)
        * index("index_block_size", "sparse_block_size", 128),
    )

    def mix(kind: str) -> Part:
        if kind == FULL:
            return attention(full_attention(s), s.hidden, qk_norm="head")
        inner = "self_attn.index_" if hub_names else "self_attn.indexer."
        extra = (
            *linear(f"{inner}q_proj", indexer.heads * indexer.head_dim, s.hidden, "attention", "index_q"),
            *linear(f"{inner}k_proj", indexer.head_dim, s.hidden, "attention", "index_k"),
            *norm_tensors(f"{inner}q_norm", indexer.head_dim, part="index_q_norm"),
            *norm_tensors(f"{inner}k_norm", indexer.head_dim, part="index_k_norm"),
        )
        return attention(full_attention(s, indexer=indexer), s.hidden, qk_norm="head", extra=extra)

    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=layer_kinds(cfg, s.layers, kinds),
        halves=freq_halves(cfg, s.layers, 0),
        mix=mix,
        feed_forward=lambda kind: _minimax_m3_half(cfg, s, kind, hub_names=hub_names),
    )


def _minimax_m3_half(cfg: Config, s: Sizes, kind: str, *, hub_names: bool) -> Part:
    fused = "" if hub_names else "gate_up_proj"
    if kind == DENSE:
        return gated_mlp(s.hidden, cfg.int("dense_intermediate_size", default=s.ffn), fused=fused)
    inner = "block_sparse_moe" if hub_names else "mlp"
    count = expert_count(cfg, "num_local_experts", "num_experts")
    used = experts_per_token(cfg, count)
    width = cfg.int("shared_intermediate_size", min=0, default=0)
    name = f"{inner}.shared_experts"
    return mixture(
        s.hidden,
        s.ffn,
        count,
        used,
        router=f"{inner}.gate",
        correction=f"{inner}.e_score_correction_bias" if hub_names else f"{inner}.gate.e_score_correction_bias",
        shared=gated_mlp(s.hidden, width, name=name, fused=fused, role="shared_expert") if width else None,
        name=f"{inner}.experts.{{copy}}",
        names=("w1", "w3", "w2"),
        routed=() if hub_names else fused_experts(s.hidden, s.ffn, count, used),
        activation="swiglu_oai",
    )


def minimax_m3_vl_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """MiniMax-M3 with transformers' own names."""
    return minimax_m3(cfg, prefix, hub_names=False)


def zaya(cfg: Config, prefix: str = "model") -> Anatomy:
    """Convolutions over queries and keys, values half delayed; a router that is a small network."""
    s = sizes(cfg)
    width = cfg.int("moe_intermediate_size")
    count = expert_count(cfg, "num_experts", "num_local_experts")
    used = experts_per_token(cfg, count)
    mixing = _zaya_mixing(cfg, s)
    ends = ("hidden_states_scale", "hidden_states_bias", "residual_scale", "residual_bias")

    def half(kind: str) -> Part:
        part = mixture(s.hidden, width, count, used, routed=fused_experts(s.hidden, width, count, used))
        routed = tuple(tensor for tensor in part.tensors if tensor.role == "routed_expert")
        residuals = (
            *_residuals(s, "post_attention_residual_scale.", *ends),
            *_residuals(s, "post_mlp_residual_scale.", *ends),
        )
        router = _zaya_router(cfg, s, count, first=kind == "first")
        return Part((*router, *routed, *residuals), feed_forward=part.feed_forward)

    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=[SLIDING if kind == "hybrid_sliding" else FULL for kind in layer_kinds(cfg, s.layers, "hybrid")],
        halves=["first"] + [SPARSE] * (s.layers - 1),
        mix=lambda kind: Part(mixing, (windowed(cfg, s, kind),)),
        feed_forward=half,
        positions=_residuals(s, f"{prefix}.input_", "hidden_states_scale", "hidden_states_bias"),
        tied=True,
    )


def _residuals(s: Sizes, prefix: str, *names: str) -> Tensors:
    return tuple(t for name in names for t in weight(f"{prefix}{name}", (s.hidden,), "norm", "residual"))


def _zaya_mixing(cfg: Config, s: Sizes) -> Tensors:
    queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
    channels, groups = queries + keys, s.heads + s.kv_heads
    first, second = cfg.int("cca_time0", default=2), cfg.int("cca_time1", default=2)
    name, conv = "self_attn.qkv_proj", "self_attn.qkv_proj.conv_qk"
    return (
        *linear(f"{name}.q_proj", queries, s.hidden, "attention", "q"),
        *linear(f"{name}.k_proj", keys, s.hidden, "attention", "k"),
        *linear(f"{name}.v_proj_current", keys // 2, s.hidden, "attention", "v"),
        *linear(f"{name}.v_proj_delayed", keys // 2, s.hidden, "attention", "v"),
        *weight(f"{conv}_depthwise.weight", (channels, 1, first), "attention", "conv"),
        *weight(f"{conv}_depthwise.bias", (channels,), "attention", "conv"),
        *weight(f"{conv}_grouped.weight", (channels, channels // groups, second), "attention", "conv"),
        *weight(f"{conv}_grouped.bias", (channels,), "attention", "conv"),
        *weight("self_attn.qk_norm.temp", (s.kv_heads,), "norm", "temperature"),
        *linear("self_attn.o_proj", s.hidden, queries, "attention", "o"),
    )


def _zaya_router(cfg: Config, s: Sizes, count: int, *, first: bool) -> Tensors:
    """A small network over the hidden state and, but for the first layer, over the router's own state before."""
    inner, gate = cfg.int("router_hidden_size"), "mlp.gate"
    carried = () if first else weight(f"{gate}.router_states_scale", (inner,), "router", "router")
    return (
        *linear(f"{gate}.down_proj", inner, s.hidden, "router", "router", bias=True),
        *norm_tensors(f"{gate}.router_mlp.norm", inner),
        *linear(f"{gate}.router_mlp.fc1", inner, inner, "router", "router", bias=True),
        *linear(f"{gate}.router_mlp.fc2", inner, inner, "router", "router", bias=True),
        *linear(f"{gate}.router_mlp.out_proj", count + 1, inner, "router", "router"),
        *weight(f"{gate}.balancing_biases", (count + 1,), "buffer", "router_correction"),
        *carried,
    )
