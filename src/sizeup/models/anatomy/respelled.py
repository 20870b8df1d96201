"""Published decoders that a known family describes once their fields are read by their older or remote names."""

from __future__ import annotations

from typing import Any

import msgspec

from sizeup.models.anatomy.defaults import filled
from sizeup.models.anatomy.dense import llama_like, stablelm
from sizeup.models.anatomy.family import Anatomy, Sizes, decoder, full_attention, sizes, text_frame
from sizeup.models.anatomy.gpt import falcon
from sizeup.models.anatomy.linear import minimax
from sizeup.models.anatomy.parts import (
    Part,
    attention,
    fused_attention,
    gated_mlp,
    linear,
    norm,
    norm_tensors,
    stack_of,
)
from sizeup.models.config import MAX_LAYERS, Config
from sizeup.models.mixers import Attention


def read_as(cfg: Config, model_type: str, **fields: Any) -> Config:
    """The configuration with the defaults of another model type, and further fields where it has none of its own."""
    own = {name: value for name, value in cfg.data.items() if value is not None}
    return filled(Config(fields | own | {"model_type": model_type}, cfg.origin, cfg.path), model_type)


def stablelm_epoch(cfg: Config, prefix: str = "model") -> Anatomy:
    """StableLM before it came to transformers."""
    return stablelm(read_as(cfg, "stablelm", num_attention_heads=cfg.get("num_attention_heads", "num_heads")), prefix)


def yi(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama whose norms had other names, as the first files of Yi have it."""
    return llama_like(cfg, prefix, norms=("ln1", "ln2"))


def refined_web(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """Falcon before it came to transformers: `n_head_kv` tells the generation of the 40B."""
    grouped = cfg.has("n_head_kv")
    return falcon(read_as(cfg, "falcon", new_decoder_architecture=grouped, multi_query=not grouped), prefix)


def refined_web_model(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """Falcon 7B and the RefinedWeb models before they came to transformers."""
    return falcon(read_as(cfg, "falcon", multi_query=False, parallel_attn=False), prefix)


def minimax_text_01(cfg: Config, prefix: str = "model") -> Anatomy:
    """MiniMax-Text-01 and M1 as published: no stored decays."""
    whole = minimax(read_as(cfg, "minimax"), prefix)
    blocks = (
        msgspec.structs.replace(block, tensors=tuple(t for t in block.tensors if t.role != "buffer"))
        for block in whole.blocks
    )
    return msgspec.structs.replace(whole, blocks=tuple(blocks))


def hf_olmo(cfg: Config, prefix: str = "model.transformer") -> Anatomy:
    """OLMo under its first names: norms without weights, queries, keys and values fused, gate and up fused.

    The width in the configuration is that of gate and up together.
    """
    hidden, heads = cfg.int("d_model"), cfg.int("n_heads")
    both = cfg.int("mlp_hidden_size", default=cfg.int("mlp_ratio", default=4) * hidden)
    gated = cfg.str("activation_type", default="swiglu") == "swiglu"
    single = cfg.bool("multi_query_attention", default=False)
    s = Sizes(
        hidden=hidden,
        layers=cfg.int("n_layers", max=MAX_LAYERS),
        heads=heads,
        kv_heads=1 if single else cfg.int("n_kv_heads", default=heads),
        head_dim=max(1, hidden // heads),
        ffn=both // 2 if gated else both,
        vocabulary=cfg.int("embedding_size", "vocab_size"),
        context=cfg.optional_int("max_sequence_length"),
    )
    bias = cfg.bool("include_bias", default=False)
    forward = Part(
        (
            *linear("ff_proj", both, hidden, "mlp", "gate_up" if gated else "up", bias=bias),
            *linear("ff_out", hidden, s.ffn, "mlp", "down", bias=bias),
        ),
        feed_forward=gated_mlp(hidden, s.ffn).feed_forward,
    )
    mix = fused_attention(full_attention(s), hidden, qkv="att_proj", output="attn_out", bias=bias, output_bias=bias)
    scaled = cfg.bool("layer_norm_with_affine", default=True)
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: mix,
        feed_forward=lambda _: forward,
        norms=("attn_norm", "ff_norm") if scaled else (),
        norm_bias=cfg.bool("bias_for_layer_norm", default=bias),
        layers_name="blocks",
        embedding="wte",
        final_norm="ln_f" if scaled else "",
        head_name=f"{prefix}.ff_out",
        tied=cfg.bool("weight_tying", default=True),
    )


def phi3small(cfg: Config, prefix: str = "model") -> Anatomy:
    """Biases and layer norms everywhere, fused projections, a tied head; block-sparse layers keep their whole cache."""
    s = sizes(read_as(cfg, "phi3small", intermediate_size=cfg.get("ff_intermediate_size")))
    mix = fused_attention(
        full_attention(s),
        s.hidden,
        qkv="self_attn.query_key_value",
        output="self_attn.dense",
        bias=True,
        output_bias=True,
    )
    half = gated_mlp(s.hidden, s.ffn, fused="up_proj", bias=True, activation="gegelu")
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: mix,
        feed_forward=lambda _: half,
        norm_bias=True,
        final_norm="final_layernorm",
        tied=True,
    )


def deci(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama whose layers have their own number of key heads."""
    s = sizes(cfg)
    listed = cfg.ints("num_key_value_heads_per_layer")
    if listed is None:
        raise cfg.bad("num_key_value_heads_per_layer", None, f"a list of {s.layers}")
    if len(listed) != s.layers:
        raise cfg.bad("num_key_value_heads_per_layer", f"a list of {len(listed)}", f"a list of {s.layers}")
    half = gated_mlp(s.hidden, s.ffn)

    def mix(kind: str) -> Part:
        return attention(Attention(s.heads, int(kind), s.head_dim, s.head_dim), s.hidden)

    kinds = [str(count) for count in listed]
    return decoder(cfg, prefix, s=s, kinds=kinds, mix=mix, feed_forward=lambda _: half)


def openelm(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """Llama that grows with depth: each layer has its own heads and width; norms on query and key heads."""
    hidden, size = cfg.int("model_dim"), cfg.int("head_dim")
    layers = cfg.int("num_transformer_layers", max=MAX_LAYERS)
    heads, kv_heads = _by_layer(cfg, "num_query_heads", layers), _by_layer(cfg, "num_kv_heads", layers)
    divisor, factors = cfg.int("ffn_dim_divisor", default=256), cfg.list("ffn_multipliers")
    if len(factors) != layers:
        raise cfg.bad("ffn_multipliers", f"a list of {len(factors)}", f"a list of {layers}")
    each = (Config({"ffn_multipliers": factor}, cfg.origin, cfg.path) for factor in factors)
    widths = [_rounded(part.float("ffn_multipliers", min=0.001, max=1000) * hidden, divisor) for part in each]
    s = Sizes(
        hidden,
        layers,
        heads[0],
        kv_heads[0],
        size,
        widths[0],
        cfg.int("vocab_size"),
        cfg.optional_int("max_context_length"),
    )
    normed = cfg.bool("normalize_qk_projections", default=True)
    over = (*norm_tensors("attn.q_norm", size, part="q_norm"), *norm_tensors("attn.k_norm", size, part="k_norm"))

    def layer(kind: tuple[int, int, int]) -> list[Part]:
        count, kv_count, width = kind
        return [
            fused_attention(
                Attention(count, kv_count, size, size),
                hidden,
                qkv="attn.qkv_proj",
                output="attn.out_proj",
                extra=over if normed else (),
            ),
            gated_mlp(hidden, width, name="ffn", fused="proj_1", names=("proj_2",)),
            norm("attn_norm", hidden),
            norm("ffn_norm", hidden),
        ]

    kinds = list(zip(heads, kv_heads, widths, strict=True))
    stack = stack_of(f"{prefix}.layers", kinds, layer, label=lambda kind: f"layer of {kind[0]} heads, width {kind[2]}")
    tied = cfg.bool("share_input_output_layers", default=True)
    shared = Config(cfg.data | {"tie_word_embeddings": tied}, cfg.origin, cfg.path)
    return text_frame(shared, s, stack, prefix=prefix, embedding="token_embeddings")


def _by_layer(cfg: Config, name: str, layers: int) -> tuple[int, ...]:
    found = cfg.ints(name) or ()
    if len(found) != layers:
        raise cfg.bad(name, f"a list of {len(found)}", f"a list of {layers}")
    return found


def _rounded(width: float, divisor: int) -> int:
    """To the nearest multiple of `divisor`, but never more than a tenth below."""
    nearest = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * width else nearest
