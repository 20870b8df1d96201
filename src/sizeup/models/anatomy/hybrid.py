"""Hybrids of attention and state spaces: some layers of each, or both side by side in every layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sizeup.models.anatomy.family import (
    DENSE,
    FULL,
    LINEAR,
    PRE_NORMS,
    SPARSE,
    Anatomy,
    Sizes,
    decoder,
    every,
    full_attention,
    layer_kinds,
    sizes,
    text_frame,
)
from sizeup.models.anatomy.mamba import mamba1, mamba2, state_space1, state_space2, time_rank
from sizeup.models.anatomy.moe import expert_count, experts_per_token
from sizeup.models.anatomy.moe_fused import granite_mixture, granite_shared
from sizeup.models.anatomy.mtp import mtp_count, with_layers
from sizeup.models.anatomy.parts import (
    Part,
    attention,
    experts,
    gated_mlp,
    linear,
    mixture,
    norm,
    norm_tensors,
    plain_mlp,
    stack_of,
)
from sizeup.models.config import MAX_EXPERTS, MAX_LAYERS, Config
from sizeup.models.mixers import StateSpace

FF_NORMS = ("input_layernorm", "pre_ff_layernorm")


def state_space_kinds(kinds: Sequence[str]) -> list[str]:
    """The kinds with `mamba` for what configurations call `linear_attention`, since here it is a state space."""
    return ["mamba" if kind == LINEAR else kind for kind in kinds]


def jamba(cfg: Config, prefix: str = "model") -> Anatomy:
    """Mamba with attention in one layer of eight, and mixtures in every other layer."""
    s = sizes(cfg)
    inner = cfg.int("mamba_expand", default=2) * s.hidden
    mixer = state_space1(inner, cfg.int("mamba_d_state", default=16), cfg.int("mamba_d_conv", default=4))
    count = cfg.int("num_experts", "num_local_experts", max=MAX_EXPERTS, default=1)

    def mix(kind: str) -> Part:
        if kind == FULL:
            return attention(full_attention(s), s.hidden)
        return mamba1(
            mixer,
            s.hidden,
            time_rank(cfg, "mamba_dt_rank", s.hidden),
            name="mamba",
            bias=cfg.bool("mamba_proj_bias", default=False),
            conv_bias=cfg.bool("mamba_conv_bias", default=True),
            inner_norms=True,
        )

    def half(kind: str) -> Part:
        if kind == DENSE:
            return gated_mlp(s.hidden, s.ffn, name="feed_forward")
        used = experts_per_token(cfg, count)
        name = "feed_forward.experts.{copy}"
        return mixture(s.hidden, s.ffn, count, used, router="feed_forward.router", name=name)

    kinds = every(
        s.layers,
        cfg.int("attn_layer_period", default=8),
        FULL,
        LINEAR,
        cfg.int("attn_layer_offset", min=0, default=4),
    )
    sparse = every(
        s.layers,
        cfg.int("expert_layer_period", default=2),
        SPARSE if count > 1 else DENSE,
        DENSE,
        cfg.int("expert_layer_offset", min=0, default=1),
    )
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=state_space_kinds(layer_kinds(cfg, s.layers, kinds, "layers_block_type", "layer_types")),
        halves=sparse,
        mix=mix,
        feed_forward=half,
        norms=FF_NORMS,
        final_norm="final_layernorm",
    )


def mamba2_of(cfg: Config, hidden: int, inner: int | None = None) -> StateSpace:
    """The state space of a hybrid, from the names that begin with `mamba_`."""
    inner = inner or cfg.int("mamba_expand", default=2) * hidden
    return state_space2(
        inner,
        cfg.int("mamba_d_state", default=256),
        cfg.int("mamba_d_conv", default=4),
        cfg.int("mamba_n_groups", default=1),
        cfg.int("mamba_n_heads", default=128),
    )


def mamba2_part(cfg: Config, mixer: StateSpace, hidden: int) -> Part:
    """Mamba 2 under the name `mamba`."""
    return mamba2(
        mixer,
        hidden,
        name="mamba",
        bias=cfg.bool("mamba_proj_bias", default=False),
        conv_bias=cfg.bool("mamba_conv_bias", default=True),
    )


def bamba(cfg: Config, prefix: str = "model") -> Anatomy:
    """Mamba 2 with attention in the layers that `attn_layer_indices` lists."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    full = set(cfg.ints("attn_layer_indices", min=0) or ())
    mixer = mamba2_of(cfg, s.hidden)

    def mix(kind: str) -> Part:
        if kind == FULL:
            return attention(full_attention(s), s.hidden, qkv_bias=bias, output_bias=bias)
        return mamba2_part(cfg, mixer, s.hidden)

    half = gated_mlp(s.hidden, s.ffn, name="feed_forward", bias=cfg.bool("mlp_bias", default=False))
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=[FULL if layer in full else "mamba" for layer in range(s.layers)],
        mix=mix,
        feed_forward=lambda _: half,
        norms=FF_NORMS,
        final_norm="final_layernorm",
    )


def falcon_h1(cfg: Config, prefix: str = "model") -> Anatomy:
    """Attention and Mamba 2 side by side in every layer."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    mixer = mamba2_of(cfg, s.hidden, cfg.optional_int("mamba_d_ssm"))
    state = mamba2(
        mixer,
        s.hidden,
        name="mamba",
        bias=cfg.bool("mamba_proj_bias", default=False),
        out_bias=cfg.bool("projectors_bias", default=False),
        conv_bias=cfg.bool("mamba_conv_bias", default=True),
        gated_norm=cfg.bool("mamba_rms_norm", default=False),
    )
    heads = attention(full_attention(s), s.hidden, qkv_bias=bias, output_bias=bias)
    half = gated_mlp(s.hidden, s.ffn, name="feed_forward", bias=cfg.bool("mlp_bias", default=False))
    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=["hybrid"] * s.layers,
        mix=lambda _: Part((*heads.tensors, *state.tensors), (*heads.mixers, *state.mixers)),
        feed_forward=lambda _: half,
        norms=FF_NORMS,
        final_norm="final_layernorm",
    )


def granitemoehybrid(cfg: Config, prefix: str = "model") -> Anatomy:
    """Granite 4: Mamba 2 and attention as `layer_types` says; experts (perhaps none) beside a shared feed-forward."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    mixer = mamba2_of(cfg, s.hidden)

    def mix(kind: str) -> Part:
        if kind == FULL:
            return attention(full_attention(s), s.hidden, qkv_bias=bias, output_bias=bias)
        return mamba2_part(cfg, mixer, s.hidden)

    def half(_: str) -> Part:
        if cfg.int("num_local_experts", min=0, max=MAX_EXPERTS, default=0):
            return granite_mixture(cfg, s)
        return granite_shared(cfg, s) or Part(())

    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=state_space_kinds(layer_kinds(cfg, s.layers, LINEAR, "layer_types", "layers_block_type")),
        mix=mix,
        feed_forward=half,
        norms=PRE_NORMS,
    )


NEMOTRON_LETTERS = {"M": LINEAR, "E": "moe", "*": FULL, "-": "mlp"}


def nemotron_h(cfg: Config, prefix: str = "backbone") -> Anatomy:
    """Layers of one half each: Mamba 2, attention, a squared-ReLU feed-forward or a mixture, in a given order."""
    kinds = _nemotron_kinds(cfg)
    heads = cfg.int("num_attention_heads")
    hidden = cfg.int("hidden_size")
    s = Sizes(
        hidden=hidden,
        layers=len(kinds),
        heads=heads,
        kv_heads=cfg.int("num_key_value_heads", default=heads),
        head_dim=cfg.int("head_dim", "attention_head_dim", default=max(1, hidden // heads)),
        ffn=cfg.int("intermediate_size", default=4 * hidden),
        vocabulary=cfg.int("vocab_size"),
        context=cfg.optional_int("max_position_embeddings"),
    )
    build = _nemotron_layer(cfg, s)
    stack = stack_of(f"{prefix}.layers", kinds, build, label=lambda kind: NEMOTRON_LABELS.get(kind, "layer"))
    anatomy = text_frame(cfg, s, stack, prefix=prefix, embedding="embeddings", final_norm="norm_f")
    return with_layers(anatomy, _nemotron_mtp(cfg, s, build), mtp_count(cfg), "mtp.layers")


NEMOTRON_LABELS = {
    LINEAR: "state-space layer",
    "moe": "mixture layer",
    FULL: "attention layer",
    "mlp": "feed-forward layer",
}


def _nemotron_kinds(cfg: Config) -> list[str]:
    pattern = cfg.optional_str("hybrid_override_pattern")
    listed = cfg.strs("layers_block_type", "layer_types")
    if listed:
        kinds = [{"mamba": LINEAR, "attention": FULL}.get(kind, kind) for kind in listed]
    elif pattern:
        kinds = [NEMOTRON_LETTERS.get(letter, letter) for letter in pattern]
    else:
        kinds = list(NEMOTRON_LETTERS.values())
    if len(kinds) > MAX_LAYERS:
        raise cfg.bad("hybrid_override_pattern", f"{len(kinds)} layers", f"at most {MAX_LAYERS:,} layers")
    for kind in kinds:
        if kind not in NEMOTRON_LABELS:
            raise cfg.bad("hybrid_override_pattern", kind, f"a pattern of {''.join(NEMOTRON_LETTERS)}")
    return kinds


def _nemotron_layer(cfg: Config, s: Sizes) -> Callable[[str], list[Part]]:
    bias = cfg.bool("mlp_bias", default=False)
    projections = cfg.bool("attention_bias", default=False)
    heads = cfg.int("mamba_num_heads", default=128)
    mixer = state_space2(
        heads * cfg.int("mamba_head_dim", default=64),
        cfg.int("ssm_state_size", default=128),
        cfg.int("conv_kernel", "mamba_d_conv", default=4),
        cfg.int("n_groups", "mamba_n_groups", default=8),
        heads,
    )

    def mix(kind: str) -> Part:
        if kind == LINEAR:
            conv_bias = cfg.bool("use_conv_bias", "mamba_conv_bias", default=True)
            return mamba2(mixer, s.hidden, bias=cfg.bool("mamba_proj_bias", default=False), conv_bias=conv_bias)
        if kind == FULL:
            return attention(full_attention(s), s.hidden, name="mixer", qkv_bias=projections, output_bias=projections)
        if kind == "mlp":
            return plain_mlp(
                s.hidden, s.ffn, name="mixer", names=("up_proj", "down_proj"), bias=bias, activation="relu2"
            )
        return _nemotron_mixture(cfg, s, bias=bias)

    return lambda kind: [mix(kind), norm("norm", s.hidden)]


def _nemotron_mixture(cfg: Config, s: Sizes, *, bias: bool) -> Part:
    """Plain experts, perhaps between projections into a narrower space; shared experts stay outside of it."""
    count = expert_count(cfg, "n_routed_experts")
    used, width = experts_per_token(cfg, count), cfg.int("moe_intermediate_size")
    latent = cfg.optional_int("moe_latent_size")
    names = ("up_proj", "down_proj")
    shared = cfg.int("moe_shared_expert_intermediate_size", min=0, default=0)
    part = mixture(
        s.hidden,
        width,
        count,
        used,
        router="mixer.gate",
        correction="mixer.gate.e_score_correction_bias",
        gated=False,
        activation="relu2",
        routed=experts(latent or s.hidden, width, count, used, name="mixer.experts.{copy}", names=names, gated=False),
        shared=plain_mlp(s.hidden, shared, name="mixer.shared_experts", names=names, bias=bias, role="shared_expert")
        if shared
        else None,
    )
    if not latent:
        return part
    around = (
        *linear("mixer.fc1_latent_proj", latent, s.hidden, "mlp", "latent_down", bias=bias),
        *linear("mixer.fc2_latent_proj", s.hidden, latent, "mlp", "latent_up", bias=bias),
    )
    return Part((*part.tensors, *around), feed_forward=part.feed_forward)


def _nemotron_mtp(cfg: Config, s: Sizes, build: Callable[[str], list[Part]]) -> list[Part]:
    """One attention and one mixture, with two norms and a projection of 2·hidden before and a norm after them."""
    if not mtp_count(cfg):
        return []
    around = (
        *norm_tensors("enorm", s.hidden),
        *norm_tensors("hnorm", s.hidden),
        *linear("eh_proj", s.hidden, 2 * s.hidden, "mtp", "eh_proj"),
        *norm_tensors("final_layernorm", s.hidden),
    )
    return [*(_under(part, kind) for kind in (FULL, "moe") for part in build(kind)), Part(around)]


def _under(part: Part, name: str) -> Part:
    from msgspec.structs import replace

    tensors = tuple(replace(tensor, name=f"{name}.{tensor.name}") for tensor in part.tensors)
    return Part(tensors, part.mixers, part.feed_forward)
