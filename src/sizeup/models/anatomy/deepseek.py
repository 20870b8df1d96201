"""DeepSeek and its descendants: latent attention, leading dense layers, then mixtures with shared experts.

V2 brought latent attention, V3 a correction bias on the router and a layer that predicts a further token, V3.2 an
indexer that picks the tokens to look at. V4, which compresses tokens instead, is in `deepseek_v4.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sizeup.models.anatomy.family import (
    DENSE,
    FULL,
    PRE_NORMS,
    SLIDING,
    SPARSE,
    Anatomy,
    Sizes,
    decoder,
    layer_kinds,
    sizes,
    sparse_halves,
)
from sizeup.models.anatomy.moe import CORRECTION, deepseek_mixture, dense_or, expert_count, experts_per_token
from sizeup.models.anatomy.mtp import deepseek_mtp
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    fused_experts,
    gated_mlp,
    latent_attention,
    linear,
    mixture,
    norm_tensors,
    weight,
)
from sizeup.models.config import Config
from sizeup.models.mixers import Indexer, LatentAttention
from sizeup.models.tensors import Tensor

INDEXED = "indexed_attention"
SHARED_CHOICE = "shared_choice"


def latent_mixer(cfg: Config, s: Sizes, **twists: Any) -> LatentAttention:
    """The ranks and head sizes of latent attention; a null `q_lora_rank` means full queries."""
    return LatentAttention(
        heads=s.heads,
        kv_rank=cfg.int("kv_lora_rank"),
        rope_dim=cfg.int("qk_rope_head_dim"),
        nope_dim=cfg.int("qk_nope_head_dim"),
        value_dim=cfg.int("v_head_dim", default=max(1, s.hidden // s.heads)),
        q_rank=cfg.optional_int("q_lora_rank"),
        **twists,
    )


def latent_like(
    cfg: Config,
    prefix: str,
    *,
    kinds: Sequence[str] = (),
    halves: Sequence[str] = (),
    mixture_part: Callable[[], Part] | None = None,
    mix: Callable[[str], Part] | None = None,
    norms: Sequence[str] = PRE_NORMS,
    **frame: Any,
) -> Anatomy:
    """Latent attention in every layer, dense or with mixtures."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    plain = latent_attention(latent_mixer(cfg, s), s.hidden, bias=bias)
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=kinds,
        halves=halves,
        mix=mix or (lambda _: plain),
        feed_forward=dense_or(s, mixture_part or (lambda: deepseek_mixture(cfg, s))),
        norms=norms,
        **frame,
    )


def leading_dense(cfg: Config, layers: int, default: int = 0) -> list[str]:
    """The first `first_k_dense_replace` layers are dense, and those that `moe_layer_freq` skips."""
    if cfg.has("mlp_layer_types"):
        return sparse_halves(cfg, layers)
    dense = cfg.int("first_k_dense_replace", min=0, default=default)
    every = cfg.int("moe_layer_freq", default=1)
    return [SPARSE if layer >= dense and layer % every == 0 else DENSE for layer in range(layers)]


def deepseek_v2(cfg: Config, prefix: str = "model") -> Anatomy:
    """Latent attention everywhere; the first layers are dense, the others mixtures without a correction bias."""
    s = sizes(cfg)
    halves = leading_dense(cfg, s.layers)
    return latent_like(cfg, prefix, halves=halves, mixture_part=lambda: deepseek_mixture(cfg, s, correction=None))


def deepseek_v3(cfg: Config, prefix: str = "model") -> Anatomy:
    """V2 with a correction bias on the router, and a multi-token prediction layer with tables of its own."""
    s = sizes(cfg)
    anatomy = latent_like(cfg, prefix, halves=leading_dense(cfg, s.layers, 3))
    return deepseek_mtp(cfg, s, anatomy, prefix)


def glm4_moe_lite(cfg: Config, prefix: str = "model") -> Anatomy:
    """DeepSeek-V3 with only the first layer dense."""
    s = sizes(cfg)
    anatomy = latent_like(cfg, prefix, halves=leading_dense(cfg, s.layers, 1))
    return deepseek_mtp(cfg, s, anatomy, prefix)


def mistral4(cfg: Config, prefix: str = "model") -> Anatomy:
    """DeepSeek-V3 without a correction bias, its experts stacked."""
    s = sizes(cfg)

    def sparse() -> Part:
        count = expert_count(cfg, "n_routed_experts", "num_experts")
        width = cfg.int("moe_intermediate_size")
        used = experts_per_token(cfg, count)
        shared = cfg.int("n_shared_experts", min=0, default=0) * width
        return mixture(
            s.hidden,
            width,
            count,
            used,
            routed=fused_experts(s.hidden, width, count, used),
            shared=gated_mlp(s.hidden, shared, name="mlp.shared_experts", role="shared_expert") if shared else None,
        )

    return latent_like(cfg, prefix, halves=leading_dense(cfg, s.layers), mixture_part=sparse)


def minicpm3(cfg: Config, prefix: str = "model") -> Anatomy:
    """Latent attention in a dense decoder."""
    s = sizes(cfg)
    bias = cfg.bool("mlp_bias", default=False)
    dense = gated_mlp(s.hidden, s.ffn, bias=bias)
    return latent_like(cfg, prefix, halves=[SPARSE] * s.layers, mixture_part=lambda: dense)


def youtu(cfg: Config, prefix: str = "model") -> Anatomy:
    """Latent attention in a dense decoder, with a tied head."""
    return latent_like(cfg, prefix, tied=True)


def axk1(cfg: Config, prefix: str = "model") -> Anatomy:
    """DeepSeek-V3 with a norm after every mixture."""
    s = sizes(cfg)
    after = norm_tensors("post_mlp_layernorm", s.hidden)

    def sparse() -> Part:
        part = deepseek_mixture(cfg, s)
        return Part((*part.tensors, *after), feed_forward=part.feed_forward)

    return latent_like(cfg, prefix, halves=leading_dense(cfg, s.layers, 1), mixture_part=sparse)


def indexer_of(cfg: Config, *, shares_choice: bool = False) -> Indexer:
    """The sizes of the lightning indexer."""
    return Indexer(
        cfg.int("index_n_heads"), cfg.int("index_head_dim"), cfg.int("index_topk"), shares_choice=shares_choice
    )


def indexer_tensors(cfg: Config, mixer: LatentAttention, hidden: int) -> Tensors:
    """Its queries from the compressed query, one key with a layer norm, and a weight for every head."""
    heads, size = cfg.int("index_n_heads"), cfg.int("index_head_dim")
    name = "self_attn.indexer"
    return (
        *linear(f"{name}.wq_b", heads * size, mixer.q_rank or hidden, "attention", "index_q"),
        *linear(f"{name}.wk", size, hidden, "attention", "index_k"),
        *norm_tensors(f"{name}.k_norm", size, bias=True, part="index_k_norm"),
        *linear(f"{name}.weights_proj", heads, hidden, "attention", "index_weights"),
    )


def sparse_latent(cfg: Config, s: Sizes, kind: str) -> Part:
    """Latent attention with an indexer, with a choice shared with an earlier layer, or over everything."""
    bias = cfg.bool("attention_bias", default=False)
    if kind == FULL:
        return latent_attention(latent_mixer(cfg, s), s.hidden, bias=bias)
    shares = kind == SHARED_CHOICE
    mixer = latent_mixer(cfg, s, indexer=indexer_of(cfg, shares_choice=shares))
    part = latent_attention(mixer, s.hidden, bias=bias)
    own = () if shares else indexer_tensors(cfg, mixer, s.hidden)
    return Part((*part.tensors, *own), part.mixers)


def deepseek_v32(cfg: Config, prefix: str = "model") -> Anatomy:
    """V3 with an indexer in every layer, which picks `index_topk` tokens to look at."""
    s = sizes(cfg)
    anatomy = latent_like(
        cfg,
        prefix,
        kinds=layer_kinds(cfg, s.layers, INDEXED),
        halves=leading_dense(cfg, s.layers, 3),
        mix=lambda kind: sparse_latent(cfg, s, kind),
    )
    return deepseek_mtp(cfg, s, anatomy, prefix)


def glm_moe_dsa(cfg: Config, prefix: str = "model") -> Anatomy:
    """V3.2 in which layers may share the choice of an earlier one.

    Prediction layers use the model's own tables, and have an indexer of their own.
    """
    s = sizes(cfg)
    kinds = indexer_kinds(cfg, s.layers)
    anatomy = latent_like(
        cfg,
        prefix,
        kinds=kinds,
        halves=leading_dense(cfg, s.layers, 3),
        mix=lambda kind: sparse_latent(cfg, s, kind),
    )
    missing = indexer_tensors(cfg, latent_mixer(cfg, s), s.hidden) if kinds[-1] == SHARED_CHOICE else ()
    return deepseek_mtp(cfg, s, anatomy, prefix, own_tables=False, extra=missing)


def indexer_kinds(cfg: Config, layers: int, default: Sequence[str] = ()) -> list[str]:
    """Which layers have an indexer: `indexer_types`, a pattern of F and S, or one layer in `index_topk_freq`.

    default: `full` or `shared` for every layer, of a family that has its own when the configuration doesn't say.
    """
    pattern = cfg.get("index_topk_pattern")
    if default or cfg.has("indexer_types"):
        kinds = layer_kinds(cfg, layers, default or "full", "indexer_types", known=("full", "shared"))
    elif isinstance(pattern, str) and pattern:
        kinds = ["full" if pattern[layer % len(pattern)] == "F" else "shared" for layer in range(layers)]
    else:
        every = cfg.int("index_topk_freq", default=1)
        skip = cfg.int("index_skip_topk_offset", min=0, default=2)
        kinds = ["full" if max(layer - skip + 1, 0) % every == 0 else "shared" for layer in range(layers)]
    return [INDEXED if kind == "full" else SHARED_CHOICE for kind in kinds]


def axk2(cfg: Config, prefix: str = "model") -> Anatomy:
    """V3.2 with queries and an output gate in one matrix, and norms that carry a small gate of their own."""
    s = sizes(cfg)
    rank = cfg.int("gated_norm_rank")

    def gated_norm(name: str) -> Tensors:
        return (
            *norm_tensors(f"{name}.norm", s.hidden),
            *linear(f"{name}.W_down", rank, s.hidden, "norm", "gate"),
            *linear(f"{name}.W_up", s.hidden, rank, "norm", "gate"),
        )

    def mix(kind: str) -> Part:
        part = sparse_latent(cfg, s, kind)
        mixer = part.mixers[0]
        if not isinstance(mixer, LatentAttention) or mixer.q_rank is None:
            raise cfg.bad("q_lora_rank", None, "a whole number")
        rows = mixer.heads * (mixer.head_dim + mixer.value_dim)
        name = "self_attn.q_b_proj.weight"
        fused = Tensor(name, (rows, 2 * mixer.q_rank), "attention", "q_b")
        tensors = tuple(fused if tensor.name == name else tensor for tensor in part.tensors)
        return Part((*tensors, *gated_norm("input_layernorm")), part.mixers)

    def half(kind: str) -> Part:
        part = gated_mlp(s.hidden, s.ffn) if kind == DENSE else deepseek_mixture(cfg, s)
        name = "post_attention_layernorm"
        after = norm_tensors(name, s.hidden) if kind == DENSE else gated_norm(name)
        return Part((*part.tensors, *after), feed_forward=part.feed_forward)

    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=layer_kinds(cfg, s.layers, INDEXED),
        halves=leading_dense(cfg, s.layers, 1),
        mix=mix,
        feed_forward=half,
        norms=(),
    )


def dots3_note_text(cfg: Config, prefix: str = "model") -> Anatomy:
    """V3.2 whose windowed layers are wider latents without an indexer; a gate per head on the output."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    default = [INDEXED if layer < 2 or layer % 4 == 1 else SLIDING for layer in range(s.layers)]
    kinds = layer_kinds(cfg, s.layers, default)
    wide = _windowed_part(cfg, kinds)

    def extra(heads: int, rope: int) -> Tensors:
        gate = linear("self_attn.g_proj", heads, s.hidden, "attention", "gate")
        return (*gate, *norm_tensors("self_attn.k_rope_only_layernorm", rope, part="k_rope_norm"))

    def mix(kind: str) -> Part:
        if kind != SLIDING:
            part = sparse_latent(cfg, s, kind)
            return Part((*part.tensors, *extra(s.heads, cfg.int("qk_rope_head_dim"))), part.mixers)
        mixer = LatentAttention(
            heads=wide("num_attention_heads", 64),
            kv_rank=wide("kv_lora_rank", 1024),
            rope_dim=wide("qk_rope_head_dim", 64),
            nope_dim=wide("qk_nope_head_dim", 192),
            value_dim=wide("v_head_dim", 128),
            q_rank=wide("q_lora_rank", 1024),
            window=cfg.int("sliding_window", "sliding_window_size", default=512),
        )
        part = latent_attention(mixer, s.hidden, bias=bias)
        return Part((*part.tensors, *extra(mixer.heads, mixer.rope_dim)), part.mixers)

    def sparse() -> Part:
        count = expert_count(cfg, "n_routed_experts", "num_experts")
        width = cfg.int("shared_experts_intermediate_size", "moe_shared_expert_intermediate_size", min=0, default=0)
        width *= cfg.int("n_shared_experts", min=0, default=1)
        return mixture(
            s.hidden,
            cfg.int("moe_intermediate_size"),
            count,
            experts_per_token(cfg, count),
            correction=CORRECTION,
            shared=gated_mlp(s.hidden, width, name="mlp.shared_experts", role="shared_expert") if width else None,
        )

    halves = leading_dense(cfg, s.layers, 1)
    return latent_like(cfg, prefix, kinds=kinds, halves=halves, mix=mix, mixture_part=sparse)


def _windowed_part(cfg: Config, kinds: Sequence[str]) -> Callable[[str, int], int]:
    """The sizes of windowed layers: `per_layer_config` of the first of them, or the names that begin with `swa_`."""
    listed = cfg.optional_sub("per_layer_config")
    number = str(kinds.index(SLIDING)) if SLIDING in kinds else ""
    own = listed.optional_sub(number) if listed and number else None

    def size(name: str, default: int) -> int:
        found = own.optional_int(name) if own else None
        return found or cfg.int(f"swa_{name}", default=default)

    return size


def longcat_flash(cfg: Config, prefix: str = "model") -> Anatomy:
    """Each layer is two of latent attention and dense feed-forward, with a mixture that skips from first to last.

    Some experts do nothing; their gates and ups are stored all the same.
    """
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    mixer = latent_mixer(cfg, s)
    width = cfg.int("expert_ffn_hidden_size")
    real = expert_count(cfg, "n_routed_experts")
    count = real + cfg.int("zero_expert_num", min=0, default=0)
    used = experts_per_token(cfg, real, "moe_topk", "num_experts_per_tok")

    def twice(_: str) -> Part:
        parts = [latent_attention(mixer, s.hidden, name=f"self_attn.{half}", bias=bias) for half in (0, 1)]
        return Part((*parts[0].tensors, *parts[1].tensors), (mixer, mixer))

    def halves(_: str) -> Part:
        ffn = cfg.int("ffn_hidden_size")
        dense = [gated_mlp(s.hidden, ffn, name=f"mlps.{half}") for half in (0, 1)]
        name = "mlp.experts.{copy}"
        routed = (
            Tensor(f"{name}.gate_proj.weight", (width, s.hidden), "routed_expert", "gate", count, used),
            Tensor(f"{name}.up_proj.weight", (width, s.hidden), "routed_expert", "up", count, used),
            Tensor(f"{name}.down_proj.weight", (s.hidden, width), "routed_expert", "down", real, used),
        )
        router = (
            *linear("mlp.router.classifier", count, s.hidden, "router", "router"),
            *weight("mlp.router.e_score_correction_bias", (count,), "buffer", "router_correction"),
        )
        part = mixture(s.hidden, width, real, used, routed=routed)
        return Part((*dense[0].tensors, *dense[1].tensors, *router, *routed), feed_forward=part.feed_forward)

    norms = [f"{name}.{half}" for name in PRE_NORMS for half in (0, 1)]
    return decoder(cfg, prefix, s=s, mix=twice, feed_forward=halves, norms=norms, halves=[SPARSE] * s.layers)
