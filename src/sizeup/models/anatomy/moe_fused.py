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
    weight,
)
from sizeup.models.config import Config
from sizeup.models.mixers import Attention
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
    count = expert_count(cfg, "num_local_experts")
    used = experts_per_token(cfg, count)
    derived = {"num_attention_heads": cfg.int("num_key_value_heads") * used}
    base = sizes(Config(cfg.data | derived, cfg.origin, cfg.path))
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
