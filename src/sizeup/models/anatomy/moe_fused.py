"""Mixtures of experts whose experts lie stacked in one tensor, and those with further twists in the attention."""

from __future__ import annotations

from sizeup.models.anatomy.dense import biased, llama_like
from sizeup.models.anatomy.family import (
    CHUNKED,
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
from sizeup.models.anatomy.moe import expert_count, experts_per_token, shared_count, shared_mlp
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    attention,
    fused_attention,
    fused_experts,
    gated_mlp,
    linear,
    mixture,
    norm_tensors,
    weight,
)
from sizeup.models.config import Config
from sizeup.models.mixers import Attention, Indexer
from sizeup.models.tensors import Tensor


def gpt_oss(cfg: Config, prefix: str = "model") -> Anatomy:
    """Windows in every other layer, a sink per head, biases everywhere; experts stacked and stored (in, out).

    The published checkpoints hold the experts in MXFP4 (`gate_up_proj_blocks`, `gate_up_proj_scales`).
    """
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=True)
    count = expert_count(cfg, "num_local_experts", "num_experts")
    used = experts_per_token(cfg, count, "num_experts_per_tok", "experts_per_token")
    half = mixture(
        s.hidden,
        s.ffn,
        count,
        used,
        router="mlp.router",
        router_bias=True,
        routed=fused_experts(s.hidden, s.ffn, count, used, transposed=True, bias=True),
        activation="swiglu_oai",
    )
    return llama_like(
        cfg,
        prefix,
        kinds=layer_kinds(cfg, s.layers, [SLIDING, FULL]),
        halves=[SPARSE] * s.layers,
        feed_forward=half,
        qkv_bias=bias,
        output_bias=bias,
        sinks=True,
        extra=weight("self_attn.sinks", (s.heads,), "attention", "sinks"),
    )


def granite_mixture(cfg: Config, s: Sizes, *, plain_names: bool = False) -> Part:
    """Granite's experts: gate and up stacked in `input_linear`; a shared feed-forward beside them perhaps."""
    count = expert_count(cfg, "num_local_experts")
    used = experts_per_token(cfg, count)
    inner = "block_sparse_moe"
    gate_up, down = ("experts.gate_up_proj", "experts.down_proj") if plain_names else GRANITE_STACKS
    routed = fused_experts(s.hidden, s.ffn, count, used, gate_up=f"{inner}.{gate_up}", down=f"{inner}.{down}")
    router = f"{inner}.router" if plain_names else f"{inner}.router.layer"
    return mixture(s.hidden, s.ffn, count, used, router=router, routed=routed, shared=granite_shared(cfg, s))


GRANITE_STACKS = ("input_linear.weight", "output_linear.weight")


def granite_shared(cfg: Config, s: Sizes) -> Part | None:
    """Granite's shared feed-forward, gate and up in one matrix; None for width 0."""
    width = cfg.int("shared_intermediate_size", min=0, default=0)
    names = ("", "", "output_linear")
    return (
        gated_mlp(s.hidden, width, name="shared_mlp", names=names, fused="input_linear", role="shared_expert")
        if width
        else None
    )


def granitemoe(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with experts in every layer; a shared feed-forward perhaps (`granitemoeshared`)."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    halves = [SPARSE] * s.layers
    return llama_like(cfg, prefix, halves=halves, feed_forward=granite_mixture(cfg, s), qkv_bias=bias, output_bias=bias)


def granitemoe_swa(cfg: Config, prefix: str = "model") -> Anatomy:
    """Granite's mixture with windows in three layers of four and a sink per head."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    return llama_like(
        cfg,
        prefix,
        kinds=layer_kinds(cfg, s.layers, [FULL, SLIDING, SLIDING, SLIDING]),
        halves=[SPARSE] * s.layers,
        feed_forward=granite_mixture(cfg, s, plain_names=True),
        qkv_bias=bias,
        output_bias=bias,
        sinks=True,
        extra=weight("self_attn.sinks", (s.heads,), "attention", "sinks"),
    )


def llama4_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Attention in chunks but for every fourth layer; experts stacked (in, out) beside one shared, in some layers."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    chunk = cfg.optional_int("attention_chunk_size")
    step = cfg.int("interleave_moe_layer_step", default=1)
    listed = cfg.ints("moe_layers", min=0)
    sparse = set(range(step - 1, s.layers, step) if listed is None else listed)
    period = cfg.int("no_rope_layer_interval", max=10_000, default=4)
    rotary = cfg.ints("no_rope_layers", min=0, max=1) or [int((i + 1) % period != 0) for i in range(s.layers)]

    def mix(kind: str) -> Part:
        mixer = full_attention(s, chunk=chunk if kind == CHUNKED else None)
        return attention(mixer, s.hidden, qkv_bias=bias, output_bias=bias)

    def half(kind: str) -> Part:
        if kind == DENSE:
            return gated_mlp(s.hidden, cfg.int("intermediate_size_mlp", default=s.ffn), name="feed_forward")
        count = expert_count(cfg, "num_local_experts", "num_experts")
        used = experts_per_token(cfg, count)
        stacks = ("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj")
        return mixture(
            s.hidden,
            s.ffn,
            count,
            used,
            router="feed_forward.router",
            routed=fused_experts(s.hidden, s.ffn, count, used, gate_up=stacks[0], down=stacks[1], transposed=True),
            shared=shared_mlp(s, s.ffn, "feed_forward.shared_expert"),
        )

    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=layer_kinds(cfg, s.layers, [CHUNKED if on else FULL for on in rotary]),
        halves=[SPARSE if layer in sparse else DENSE for layer in range(s.layers)],
        mix=mix,
        feed_forward=half,
    )


def dbrx(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """Fused queries, keys and values; the experts' matrices joined row by row; norms without biases."""
    inner, forward = cfg.sub("attn_config"), cfg.sub("ffn_config")
    base = sizes(cfg)
    width = forward.int("ffn_hidden_size")
    count = expert_count(forward, "moe_num_experts")
    used = experts_per_token(forward, count, "moe_top_k")
    kv_heads = inner.int("kv_n_heads", default=base.heads)
    mixer = Attention(base.heads, kv_heads, base.head_dim, base.head_dim)
    routed = tuple(
        Tensor(f"ffn.experts.mlp.{name}", (width, base.hidden), "routed_expert", part, count, used, fused="rows")
        for name, part in (("w1", "gate"), ("v1", "up"), ("w2", "down"))
    )
    norm_attn = "norm_attn_norm"
    return decoder(
        cfg,
        prefix,
        s=base,
        mix=lambda _: fused_attention(
            mixer, base.hidden, qkv=f"{norm_attn}.attn.Wqkv", output=f"{norm_attn}.attn.out_proj"
        ),
        feed_forward=lambda _: mixture(base.hidden, width, count, used, router="ffn.router.layer", routed=routed),
        halves=[SPARSE] * base.layers,
        norms=(f"{norm_attn}.norm_1", f"{norm_attn}.norm_2"),
        layers_name="blocks",
        embedding="wte",
        final_norm="norm_f",
    )


def jetmoe(cfg: Config, prefix: str = "model") -> Anatomy:
    """A mixture of attention heads as well: each expert has its own queries and output, keys and values are shared."""
    base = sizes(cfg)
    count = expert_count(cfg, "num_local_experts")
    used = experts_per_token(cfg, count)
    kv_heads, head_dim = cfg.int("num_key_value_heads"), cfg.int("kv_channels")
    mixer = Attention(kv_heads * used, kv_heads, head_dim, head_dim)
    width = kv_heads * head_dim
    inner = "self_attention.experts"
    heads = (
        *linear("self_attention.kv_proj", 2 * width, base.hidden, "attention", "kv"),
        *weight(f"{inner}.bias", (base.hidden,), "attention", "o"),
        *linear(f"{inner}.router.layer", count, base.hidden, "router", "router"),
        Tensor(f"{inner}.input_linear.weight", (width, base.hidden), "attention", "q", count, used, fused="stacked"),
        Tensor(f"{inner}.output_linear.weight", (base.hidden, width), "attention", "o", count, used, fused="stacked"),
    )
    routed = fused_experts(
        base.hidden, base.ffn, count, used, gate_up="mlp.input_linear.weight", down="mlp.output_linear.weight"
    )
    half = mixture(base.hidden, base.ffn, count, used, router="mlp.router.layer", routed=routed)
    bias = weight("mlp.bias", (base.hidden,), "mlp", "down")
    return decoder(
        cfg,
        prefix,
        s=base,
        mix=lambda _: Part(heads, (mixer,)),
        feed_forward=lambda _: Part((*half.tensors, *bias), feed_forward=half.feed_forward),
        halves=[SPARSE] * base.layers,
        tied=True,
    )


def aria_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with experts stacked (in, out) in every layer, beside shared ones."""
    s = sizes(cfg)
    count = expert_count(cfg, "moe_num_experts")
    used = experts_per_token(cfg, count, "moe_topk")
    stacks = ("mlp.experts.fc1.weight", "mlp.experts.fc2.weight")
    half = mixture(
        s.hidden,
        s.ffn,
        count,
        used,
        router="mlp.router",
        routed=fused_experts(s.hidden, s.ffn, count, used, gate_up=stacks[0], down=stacks[1], transposed=True),
        shared=shared_mlp(s, shared_count(cfg, "moe_num_shared_experts") * s.ffn),
    )
    return llama_like(cfg, prefix, halves=[SPARSE] * s.layers, feed_forward=half, **biased(cfg))


def laguna(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen3's mixture with a gate on the attention's output and a number of heads for every layer."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    heads = cfg.ints("num_attention_heads_per_layer") or (s.heads,) * s.layers
    kinds = layer_kinds(cfg, s.layers)
    if len(heads) != s.layers:
        raise cfg.bad("num_attention_heads_per_layer", f"a list of {len(heads)}", f"a list of {s.layers}")
    per_head = cfg.get("gating") in {True, "per-head"}

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


def doge(cfg: Config, prefix: str = "model") -> Anatomy:
    """Learned decay of past tokens, weighted residuals; as a mixture, experts of one row, found by product keys."""
    s = sizes(cfg)
    twists = biased(cfg)
    bias = twists["qkv_bias"]
    decay = (
        *weight("self_attn.A", (s.kv_heads,), "attention", "decay"),
        *linear("self_attn.dt_proj", s.kv_heads, s.kv_heads * s.head_dim, "attention", "decay", bias=bias),
        *weight("input_residual", (s.hidden,), "norm", "residual"),
        *weight("post_attention_residual", (s.hidden,), "norm", "residual"),
    )
    half = gated_mlp(s.hidden, s.ffn, bias=twists["mlp_bias"])
    if cfg.bool("is_moe", default=False):
        half = _doge_experts(cfg, s, half)
    return llama_like(cfg, prefix, qk_norm="head", feed_forward=half, extra=decay, **twists)


def _doge_experts(cfg: Config, s: Sizes, shared: Part) -> Part:
    count = expert_count(cfg, "num_experts", "num_local_experts")
    used = experts_per_token(cfg, count)
    keys = int(count**0.5)
    rows: Tensors = tuple(
        Tensor(f"mlp.{name}.weight", (1, s.hidden), "routed_expert", part, count, used, fused="rows")
        for name, part in (("down_embed", "up"), ("up_embed", "down"))
    )
    router = linear("mlp.router_gate", 2 * keys, s.hidden, "router", "router")
    return Part((*shared.tensors, *router, *rows), feed_forward=shared.feed_forward)


def zaya(cfg: Config, prefix: str = "model") -> Anatomy:
    """Convolutions over queries and keys, values half delayed; a router that is a small network."""
    s = sizes(cfg)
    latent_q, latent_k = s.heads * s.head_dim, s.kv_heads * s.head_dim
    width = cfg.int("moe_intermediate_size")
    count = expert_count(cfg, "num_experts", "num_local_experts")
    used = experts_per_token(cfg, count)
    inner = cfg.int("router_hidden_size")
    channels = latent_q + latent_k
    groups = s.heads + s.kv_heads
    name, conv, gate = "self_attn.qkv_proj", "self_attn.qkv_proj.conv_qk", "mlp.gate"

    def scales(prefix: str, *parts: str) -> Tensors:
        return tuple(t for part in parts for t in weight(f"{prefix}{part}", (s.hidden,), "norm", "residual"))

    mixing = (
        *linear(f"{name}.q_proj", latent_q, s.hidden, "attention", "q"),
        *linear(f"{name}.k_proj", latent_k, s.hidden, "attention", "k"),
        *linear(f"{name}.v_proj_current", latent_k // 2, s.hidden, "attention", "v"),
        *linear(f"{name}.v_proj_delayed", latent_k // 2, s.hidden, "attention", "v"),
        *weight(f"{conv}_depthwise.weight", (channels, 1, cfg.int("cca_time0", default=2)), "attention", "conv"),
        *weight(f"{conv}_depthwise.bias", (channels,), "attention", "conv"),
        *weight(
            f"{conv}_grouped.weight",
            (channels, channels // groups, cfg.int("cca_time1", default=2)),
            "attention",
            "conv",
        ),
        *weight(f"{conv}_grouped.bias", (channels,), "attention", "conv"),
        *weight("self_attn.qk_norm.temp", (s.kv_heads,), "norm", "temperature"),
        *linear("self_attn.o_proj", s.hidden, latent_q, "attention", "o"),
    )
    ends = ("hidden_states_scale", "hidden_states_bias", "residual_scale", "residual_bias")

    def router(kind: str) -> Tensors:
        carried = weight(f"{gate}.router_states_scale", (inner,), "router", "router") if kind != "first" else ()
        return (
            *linear(f"{gate}.down_proj", inner, s.hidden, "router", "router", bias=True),
            *norm_tensors(f"{gate}.router_mlp.norm", inner),
            *linear(f"{gate}.router_mlp.fc1", inner, inner, "router", "router", bias=True),
            *linear(f"{gate}.router_mlp.fc2", inner, inner, "router", "router", bias=True),
            *linear(f"{gate}.router_mlp.out_proj", count + 1, inner, "router", "router"),
            *weight(f"{gate}.balancing_biases", (count + 1,), "buffer", "router_correction"),
            *carried,
        )

    def half(kind: str) -> Part:
        part = mixture(s.hidden, width, count, used, routed=fused_experts(s.hidden, width, count, used))
        routed = tuple(tensor for tensor in part.tensors if tensor.role == "routed_expert")
        residuals = (*scales("post_attention_residual_scale.", *ends), *scales("post_mlp_residual_scale.", *ends))
        return Part((*router(kind), *routed, *residuals), feed_forward=part.feed_forward)

    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=[SLIDING if kind == "hybrid_sliding" else FULL for kind in layer_kinds(cfg, s.layers, "hybrid")],
        halves=["first"] + [SPARSE] * (s.layers - 1),
        mix=lambda kind: Part(mixing, (windowed(cfg, s, kind),)),
        feed_forward=half,
        positions=scales(f"{prefix}.input_", "hidden_states_scale", "hidden_states_bias"),
        tied=True,
    )
