"""DeepSeek-V2 and V3: latent attention, leading dense layers, then mixtures with shared experts."""

from __future__ import annotations

from sizeup.models.anatomy.family import Anatomy, Sizes, sizes, text_frame
from sizeup.models.anatomy.parts import Part, gated_mlp, latent_attention, mixture, norm, stack_of
from sizeup.models.config import MAX_EXPERTS, Config
from sizeup.models.mixers import LatentAttention


def latent_mixer(cfg: Config, s: Sizes) -> LatentAttention:
    """The ranks and head sizes of latent attention; an absent or null `q_lora_rank` means full queries."""
    return LatentAttention(
        heads=s.heads,
        kv_rank=cfg.int("kv_lora_rank"),
        rope_dim=cfg.int("qk_rope_head_dim"),
        nope_dim=cfg.int("qk_nope_head_dim"),
        value_dim=cfg.int("v_head_dim"),
        q_rank=cfg.optional_int("q_lora_rank"),
    )


def deepseek_v2(cfg: Config, prefix: str = "model", *, correction: str | None = None) -> Anatomy:
    """Latent attention everywhere; the first `first_k_dense_replace` layers are dense, the others mixtures."""
    s = sizes(cfg)
    mixer = latent_mixer(cfg, s)
    expert_width = cfg.int("moe_intermediate_size")
    experts = cfg.int("n_routed_experts", max=MAX_EXPERTS)
    shared = cfg.int("n_shared_experts", min=0, max=MAX_EXPERTS, default=0)
    dense = cfg.int("first_k_dense_replace", min=0, default=0)
    every = cfg.int("moe_layer_freq", default=1)

    def feed_forward(kind: str) -> Part:
        if kind == "dense":
            return gated_mlp(s.hidden, s.ffn)
        return mixture(
            s.hidden,
            expert_width,
            experts,
            cfg.int("num_experts_per_tok", max=experts),
            correction=correction,
            shared=gated_mlp(s.hidden, shared * expert_width, name="mlp.shared_experts", role="shared_expert")
            if shared
            else None,
        )

    def layer(kind: str) -> list[Part]:
        return [
            latent_attention(mixer, s.hidden, bias=cfg.bool("attention_bias", default=False)),
            feed_forward(kind),
            norm("input_layernorm", s.hidden),
            norm("post_attention_layernorm", s.hidden),
        ]

    kinds = ["mixture" if number >= dense and number % every == 0 else "dense" for number in range(s.layers)]
    layers = stack_of(f"{prefix}.layers", kinds, layer)
    return text_frame(cfg, s, layers, prefix=prefix)


def deepseek_v3(cfg: Config, prefix: str = "model") -> Anatomy:
    """V2 with a correction bias on the router."""
    return deepseek_v2(cfg, prefix, correction="mlp.gate.e_score_correction_bias")
