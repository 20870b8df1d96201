"""DeepSeek-V4 and Hunyuan 4: sparse attention on latents, and residual streams that mix (hyper-connections)."""

from __future__ import annotations

from sizeup.models.anatomy.deepseek import indexer_kinds, latent_mixer, sparse_latent
from sizeup.models.anatomy.family import DENSE, PRE_NORMS, Anatomy, Sizes, decoder, sizes, sparse_halves, text_frame
from sizeup.models.anatomy.moe import MIXTRAL_EXPERT, expert_count, experts_per_token, shared_count
from sizeup.models.anatomy.mtp import mtp_count, with_layers
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    fused_experts,
    gated_mlp,
    linear,
    mixture,
    norm,
    norm_tensors,
    stack_of,
    weight,
)
from sizeup.models.config import MAX_LAYERS, Config
from sizeup.models.mixers import Indexer, LatentAttention

SLIDING_ONLY = "sliding_attention"
COMPRESSED = "compressed_sparse_attention"
HEAVY = "heavily_compressed_attention"
HASH = "hash_moe"
LEGACY_RATIOS = {0: SLIDING_ONLY, 4: COMPRESSED, 128: HEAVY}


def streams(name: str, rows: int, columns: int, scales: int) -> Tensors:
    """A hyper-connection: how `hc_mult` residual streams mix, from all of them side by side."""
    return (
        *weight(f"{name}_fn", (rows, columns), "norm", "hyper_connection"),
        *weight(f"{name}_base", (rows,), "norm", "hyper_connection"),
        *weight(f"{name}_scale", (scales,), "norm", "hyper_connection"),
    )


def deepseek_v4(cfg: Config, prefix: str = "model") -> Anatomy:
    """One key-value head for all, kept for a window and, beyond it, once for every 4 or 128 tokens.

    The 4s have an indexer over the compressed entries. Outputs are projected in groups. The first layers route by a
    table from token to experts. Residuals are `hc_mult` streams that mix before each half.
    """
    s = _sizes(cfg)
    kinds = _kinds(cfg, s)
    hashed = cfg.int("num_hash_layers", min=0, max=MAX_LAYERS, default=3)
    halves = list(cfg.strs("mlp_layer_types") or [HASH if i < hashed else "moe" for i in range(s.layers)])
    if len(halves) < s.layers:
        raise cfg.bad("mlp_layer_types", f"a list of {len(halves)}", f"a list of {s.layers}")
    mult = cfg.int("hc_mult", default=4)
    wide = mult * s.hidden

    def layer(kind: tuple[str, str]) -> list[Part]:
        residual = mult * (2 + mult)
        around = (*streams("hc_attn", residual, wide, 3), *streams("hc_ffn", residual, wide, 3))
        return [
            _attention(cfg, s, kind[0]),
            _mixture(cfg, s, kind[1]),
            norm("attn_norm", s.hidden),
            norm("ffn_norm", s.hidden),
            Part(around),
        ]

    stack = stack_of(
        f"{prefix}.layers",
        list(zip(kinds, halves[: s.layers], strict=True)),
        layer,
        label=lambda kind: f"{LABELS.get(kind[0], kind[0])}{', hashed' if kind[1] == HASH else ''} mixture layer",
    )
    head = streams(f"{prefix}.hc_head.hc", mult, wide, 1)
    anatomy = text_frame(cfg, s, stack, prefix=prefix, before=head, head_name="head", may_tie=False)
    predicting = (
        *norm_tensors("enorm", s.hidden),
        *norm_tensors("hnorm", s.hidden),
        *norm_tensors("norm", s.hidden),
        *linear("e_proj", s.hidden, s.hidden, "mtp"),
        *linear("h_proj", s.hidden, s.hidden, "mtp"),
        *streams("hc_head", mult, wide, 1),
    )
    parts = [*layer((SLIDING_ONLY, "moe")), Part(predicting)]
    return with_layers(anatomy, parts, mtp_count(cfg), "mtp")


LABELS = {SLIDING_ONLY: "sliding-window", COMPRESSED: "compressed sparse", HEAVY: "heavily compressed"}


def _sizes(cfg: Config) -> Sizes:
    width = cfg.int("moe_intermediate_size")
    heads = cfg.int("num_attention_heads")
    return Sizes(
        hidden=cfg.int("hidden_size"),
        layers=cfg.int("num_hidden_layers", max=MAX_LAYERS),
        heads=heads,
        kv_heads=1,
        head_dim=cfg.int("head_dim"),
        ffn=width,
        vocabulary=cfg.int("vocab_size"),
        context=cfg.optional_int("max_position_embeddings"),
    )


def _kinds(cfg: Config, s: Sizes) -> list[str]:
    listed = cfg.strs("layer_types")
    ratios = cfg.ints("compress_ratios", min=0)
    if listed:
        kinds = list(listed)
    elif ratios:
        for ratio in ratios:
            if ratio not in LEGACY_RATIOS:
                raise cfg.bad("compress_ratios", ratio, "a list of 0, 4 and 128")
        kinds = [LEGACY_RATIOS[ratio] for ratio in ratios]
    else:
        kinds = [HEAVY if layer < 2 or layer % 2 == 0 else COMPRESSED for layer in range(s.layers)]
    if len(kinds) < s.layers:
        raise cfg.bad("layer_types", f"a list of {len(kinds)}", f"a list of {s.layers}")
    return [kind if kind in LABELS else SLIDING_ONLY for kind in kinds[: s.layers]]


def _rate(cfg: Config, kind: str) -> int:
    rates = cfg.optional_sub("compress_rates")
    default = 4 if kind == COMPRESSED else 128
    legacy = "compress_rate_csa" if kind == COMPRESSED else "compress_rate_hca"
    return (rates.optional_int(kind) if rates else None) or cfg.int(legacy, default=default)


def _compressor(name: str, rate: int, size: int, hidden: int, *, overlap: bool) -> Tensors:
    """Turns `rate` tokens into one entry of `size`; overlapping windows need two entries' worth of projections."""
    rows = 2 * size if overlap else size
    return (
        *weight(f"{name}.ape", (rate, rows), "attention", "compress_positions"),
        *norm_tensors(f"{name}.norm", size, part="compress_norm"),
        *linear(f"{name}.wgate", rows, hidden, "attention", "compress_gate"),
        *linear(f"{name}.wkv", rows, hidden, "attention", "compress_kv"),
    )


def _attention(cfg: Config, s: Sizes, kind: str) -> Part:
    rank, groups, out = cfg.int("q_lora_rank"), cfg.int("o_groups"), cfg.int("o_lora_rank")
    rope = cfg.int("qk_rope_head_dim", default=max(1, s.head_dim // 8))
    rope = min(rope, s.head_dim - 1) or 1
    window = cfg.optional_int("sliding_window")
    queries = s.heads * s.head_dim
    tensors = [
        *linear("attn.wq_a", rank, s.hidden, "attention", "q_a"),
        *norm_tensors("attn.q_norm", rank, part="q_a_norm"),
        *linear("attn.wq_b", queries, rank, "attention", "q_b"),
        *linear("attn.wkv", s.head_dim, s.hidden, "attention", "kv_a"),
        *norm_tensors("attn.norm", s.head_dim, part="kv_a_norm"),
        *linear("attn.wo_a", groups * out, queries // groups, "attention", "o_a"),
        *linear("attn.wo_b", s.hidden, groups * out, "attention", "o_b"),
        *weight("attn.attn_sink", (s.heads,), "attention", "sinks"),
    ]

    def mixer(**twists: object) -> LatentAttention:
        latent = s.head_dim - rope
        return LatentAttention(s.heads, latent, rope, latent, s.head_dim, rank, **twists)  # type: ignore[arg-type]

    mixers = [mixer(window=window)]
    if kind in {COMPRESSED, HEAVY}:
        rate = _rate(cfg, kind)
        indexer = None
        tensors += _compressor("attn.compressor", rate, s.head_dim, s.hidden, overlap=kind == COMPRESSED)
        if kind == COMPRESSED:
            indexer = Indexer(cfg.int("index_n_heads"), cfg.int("index_head_dim"), cfg.int("index_topk"))
            name = "attn.indexer"
            tensors += linear(f"{name}.wq_b", indexer.heads * indexer.head_dim, rank, "attention", "index_q")
            tensors += linear(f"{name}.weights_proj", indexer.heads, s.hidden, "attention", "index_weights")
            tensors += _compressor(f"{name}.compressor", rate, indexer.head_dim, s.hidden, overlap=True)
        mixers.append(mixer(compress=rate, indexer=indexer))
    return Part(tuple(tensors), tuple(mixers))


def _mixture(cfg: Config, s: Sizes, kind: str) -> Part:
    count = expert_count(cfg, "n_routed_experts")
    used = experts_per_token(cfg, count)
    shared = shared_count(cfg, "n_shared_experts") * s.ffn
    part = mixture(
        s.hidden,
        s.ffn,
        count,
        used,
        router="ffn.gate",
        correction=None if kind == HASH else "ffn.gate.bias",
        shared=gated_mlp(s.hidden, shared, name="ffn.shared_experts", names=MIXTRAL_EXPERT, role="shared_expert")
        if shared
        else None,
        name="ffn.experts.{copy}",
        names=MIXTRAL_EXPERT,
    )
    table = weight("ffn.gate.tid2eid", (s.vocabulary, used), "buffer", "router_table") if kind == HASH else ()
    return Part((*part.tensors, *table), feed_forward=part.feed_forward)


def hy_v4(cfg: Config, prefix: str = "model") -> Anatomy:
    """V3.2's sparse latents with a gate and sinks, stacked experts, and hyper-connections."""
    s = sizes(cfg)
    mult = cfg.int("hc_mult", default=4)
    wide = mult * s.hidden
    plain = ("linear_gate", "up_proj", "down_proj")
    default = ["full" if layer == 0 or (layer - 1) % 4 == 0 else "shared" for layer in range(s.layers)]
    kinds = indexer_kinds(cfg, s.layers, default)

    def mix(kind: str) -> Part:
        part = sparse_latent(cfg, s, kind)
        mixer = latent_mixer(cfg, s)
        extra = (
            *linear("self_attn.linear_gate", s.heads * mixer.value_dim, s.hidden, "attention", "gate"),
            *weight("self_attn.learnable_sink_param", (s.heads,), "attention", "sinks"),
            *streams("hc_pre.hc_attn_layer.hc", 2 * mult, wide, 2),
        )
        return Part((*part.tensors, *extra), part.mixers)

    def half(kind: str) -> Part:
        part = gated_mlp(s.hidden, s.ffn, names=plain) if kind == DENSE else sparse()
        extra = streams("hc_pre.hc_mlp_layer.hc", 2 * mult, wide, 2)
        return Part((*part.tensors, *extra), feed_forward=part.feed_forward)

    def sparse() -> Part:
        count, width = expert_count(cfg, "n_routed_experts"), cfg.int("moe_intermediate_size")
        used = experts_per_token(cfg, count)
        shared = shared_count(cfg, "n_shared_experts") * width
        return mixture(
            s.hidden,
            width,
            count,
            used,
            correction="mlp.gate.e_score_correction_bias",
            routed=fused_experts(s.hidden, width, count, used),
            shared=gated_mlp(s.hidden, shared, name="mlp.shared_experts", names=plain, role="shared_expert")
            if shared
            else None,
        )

    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=kinds,
        halves=sparse_halves(cfg, s.layers, 1),
        mix=mix,
        feed_forward=half,
        norms=PRE_NORMS,
        before=streams(f"{prefix}.hc_pre.hc_head.hc_head", mult, wide, 1),
    )
