"""The older decoders around GPT-2: learned or relative positions, layer norms with biases, fused projections."""

from __future__ import annotations

from typing import Any

from sizeup.models.anatomy.family import FULL, SLIDING, Anatomy, Sizes, decoder, full_attention, sizes
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    attention,
    fused_attention,
    linear,
    norm_tensors,
    plain_mlp,
    weight,
)
from sizeup.models.config import Config
from sizeup.models.mixers import Attention

TWO_NORMS = ("ln_1", "ln_2")
FALCON_MLP = ("dense_h_to_4h", "dense_4h_to_h")


def gpt_like(cfg: Config, prefix: str, s: Sizes, mix: Part, forward: Part, **twists: Any) -> Anatomy:
    """Layers `h` of one kind, with biases on all norms, and GPT-2's names around them."""
    names: dict[str, Any] = {
        "layers_name": "h",
        "embedding": "wte",
        "final_norm": "ln_f",
        "norms": TWO_NORMS,
        "norm_bias": True,
    }
    return decoder(cfg, prefix, s=s, mix=lambda _: mix, feed_forward=lambda _: forward, **names | twists)


def positions(prefix: str, s: Sizes, name: str = "wpe") -> Tensors:
    """A table of learned positions."""
    return weight(f"{prefix}.{name}.weight", (s.context or 1024, s.hidden), "embedding", "positions")


def gpt2(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """Learned positions; queries, keys and values in one matrix; all matrices stored (in, out)."""
    s = sizes(cfg)
    mix = fused_attention(
        full_attention(s),
        s.hidden,
        qkv="attn.c_attn",
        output="attn.c_proj",
        bias=True,
        output_bias=True,
        transposed=True,
    )
    forward = plain_mlp(s.hidden, s.ffn, names=("c_fc", "c_proj"), activation="gelu_tanh", transposed=True)
    notes = ("checkpoints of this family may also store the causal mask of every layer (`attn.bias`)",)
    return gpt_like(cfg, prefix, s, mix, forward, positions=positions(prefix, s), tied=True, notes=notes)


def openai_gpt(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """GPT: as GPT-2, with other names around the layers and no final norm."""
    s = sizes(cfg)
    mix = fused_attention(
        full_attention(s),
        s.hidden,
        qkv="attn.c_attn",
        output="attn.c_proj",
        bias=True,
        output_bias=True,
        transposed=True,
    )
    forward = plain_mlp(s.hidden, 4 * s.hidden, names=("c_fc", "c_proj"), transposed=True)
    table = positions(prefix, s, "positions_embed")
    around: dict[str, Any] = {"embedding": "tokens_embed", "final_norm": "", "positions": table, "tied": True}
    return gpt_like(cfg, prefix, s, mix, forward, **around)


def gpt_bigcode(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """GPT-2 with one key and value head for all queries (`multi_query`)."""
    s = sizes(cfg)
    heads = 1 if cfg.bool("multi_query", default=True) else s.heads
    mixer = Attention(s.heads, heads, s.head_dim, s.head_dim)
    mix = fused_attention(mixer, s.hidden, qkv="attn.c_attn", output="attn.c_proj", bias=True, output_bias=True)
    forward = plain_mlp(s.hidden, s.ffn, names=("c_fc", "c_proj"), activation="gelu_tanh")
    return gpt_like(cfg, prefix, s, mix, forward, positions=positions(prefix, s), tied=True)


def gpt_neo(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """GPT-2 with separate projections, and windows in every other layer."""
    s = sizes(cfg)
    kinds = _neo_kinds(cfg, s)
    window = cfg.int("window_size", default=256)
    forward = plain_mlp(s.hidden, s.ffn, names=("c_fc", "c_proj"), activation="gelu_tanh")

    def mix(kind: str) -> Part:
        return attention(
            full_attention(s, window=window if kind == SLIDING else None),
            s.hidden,
            name="attn.attention",
            names=("q_proj", "k_proj", "v_proj", "out_proj"),
            output_bias=True,
        )

    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=kinds,
        mix=mix,
        feed_forward=lambda _: forward,
        norms=TWO_NORMS,
        norm_bias=True,
        layers_name="h",
        embedding="wte",
        final_norm="ln_f",
        positions=positions(prefix, s),
        tied=True,
    )


def _neo_kinds(cfg: Config, s: Sizes) -> list[str]:
    """`attention_types` is a list of [pattern, times], of `global` and `local` layers; they alternate without it."""
    if not cfg.has("attention_layers", "attention_types"):
        return [SLIDING if layer % 2 else FULL for layer in range(s.layers)]
    listed = cfg.strs("attention_layers")
    kinds = list(listed) if listed else []
    for item in [] if listed else cfg.list("attention_types"):
        if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], list) and isinstance(item[1], int)):
            raise cfg.bad("attention_types", item, "a list of [pattern, times]")
        kinds += (item[0] * min(max(0, item[1]), s.layers))[: s.layers]
    if len(kinds) != s.layers:
        raise cfg.bad("attention_types", f"a list of {len(kinds)} layers", f"a list of {s.layers} layers")
    return [SLIDING if kind == "local" else FULL for kind in kinds]


def gptj(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """One norm before both halves, which run in parallel; biases only in the feed-forward and on the head."""
    s = sizes(cfg)
    mix = attention(full_attention(s), s.hidden, name="attn", names=("q_proj", "k_proj", "v_proj", "out_proj"))
    forward = plain_mlp(s.hidden, s.ffn, names=("fc_in", "fc_out"), activation="gelu_tanh")
    return gpt_like(cfg, prefix, s, mix, forward, norms=TWO_NORMS[:1], head_bias=True)


def codegen(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """GPT-J with queries, keys and values in one matrix."""
    s = sizes(cfg)
    mix = fused_attention(full_attention(s), s.hidden, qkv="attn.qkv_proj", output="attn.out_proj")
    forward = plain_mlp(s.hidden, s.ffn, names=("fc_in", "fc_out"), activation="gelu_tanh")
    return gpt_like(cfg, prefix, s, mix, forward, norms=TWO_NORMS[:1], head_bias=True)


def gpt_neox(cfg: Config, prefix: str = "gpt_neox") -> Anatomy:
    """Rotary positions; queries, keys and values in one matrix; the head is called `embed_out`."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=True)
    mix = fused_attention(
        full_attention(s),
        s.hidden,
        qkv="attention.query_key_value",
        output="attention.dense",
        bias=bias,
        output_bias=bias,
    )
    stored = "checkpoints of this family may also store the causal mask and rotary frequencies of every layer"
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: mix,
        feed_forward=lambda _: plain_mlp(s.hidden, s.ffn, names=FALCON_MLP),
        norm_bias=True,
        embedding="embed_in",
        final_norm="final_layer_norm",
        head_name="embed_out",
        notes=(f"{stored} (`attention.bias`, `attention.rotary_emb.inv_freq`)",),
    )


def gpt_neox_japanese(cfg: Config, prefix: str = "gpt_neox_japanese") -> Anatomy:
    """NeoX without biases on projections, but one after the last layer's attention; the head is tied."""
    s = sizes(cfg)
    ffn = s.hidden * cfg.int("intermediate_multiple_size", default=4)
    last = weight("attention.dense_bias", (s.hidden,), "attention", "o")

    def mix(kind: str) -> Part:
        return fused_attention(
            full_attention(s),
            s.hidden,
            qkv="attention.query_key_value",
            output="attention.dense",
            extra=last if kind == "last" else (),
        )

    return decoder(
        cfg,
        prefix,
        s=s,
        kinds=[FULL] * (s.layers - 1) + ["last"],
        mix=mix,
        feed_forward=lambda _: plain_mlp(s.hidden, ffn, names=FALCON_MLP, bias=False),
        norm_bias=True,
        embedding="embed_in",
        final_norm="final_layer_norm",
        head_name="embed_out",
        tied=True,
    )


def bloom(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """ALiBi positions, a norm over embeddings, queries, keys and values in one matrix, biases everywhere."""
    hidden = cfg.int("hidden_size", "n_embed", "n_embd")
    heads = cfg.int("n_head", "num_attention_heads")
    s = Sizes(
        hidden=hidden,
        layers=cfg.int("n_layer", "num_hidden_layers", max=10_000),
        heads=heads,
        kv_heads=heads,
        head_dim=max(1, hidden // heads),
        ffn=4 * hidden,
        vocabulary=cfg.int("vocab_size"),
        context=cfg.optional_int("seq_length"),
    )
    mix = fused_attention(
        full_attention(s),
        hidden,
        qkv="self_attention.query_key_value",
        output="self_attention.dense",
        bias=True,
        output_bias=True,
    )
    forward = plain_mlp(hidden, s.ffn, names=FALCON_MLP, activation="gelu_tanh")
    return gpt_like(
        cfg,
        prefix,
        s,
        mix,
        forward,
        norms=("input_layernorm", "post_attention_layernorm"),
        embedding="word_embeddings",
        positions=norm_tensors(f"{prefix}.word_embeddings_layernorm", hidden, bias=True),
        tied=True,
    )


def falcon(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """Three generations: ALiBi with a head each (RW), one key head for all (7B), grouped with two norms (40B, 180B)."""
    hidden, heads = cfg.int("hidden_size", "n_embed"), cfg.int("num_attention_heads", "n_head")
    grouped = cfg.bool("new_decoder_architecture", default=False)
    single = cfg.bool("multi_query", default=True) and not grouped
    kv_heads = cfg.int("num_kv_heads", "n_head_kv", default=heads) if grouped else 1 if single else heads
    s = Sizes(
        hidden=hidden,
        layers=cfg.int("num_hidden_layers", "n_layer", max=10_000),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=max(1, hidden // heads),
        ffn=cfg.int("ffn_hidden_size", default=4 * hidden),
        vocabulary=cfg.int("vocab_size"),
        context=cfg.optional_int("max_position_embeddings"),
    )
    bias = cfg.bool("bias", default=False)
    mix = fused_attention(
        full_attention(s),
        hidden,
        qkv="self_attention.query_key_value",
        output="self_attention.dense",
        bias=bias,
        output_bias=bias,
    )
    if grouped:
        two = cfg.int("num_ln_in_parallel_attn", default=2) == 2
        norms = ("ln_attn", "ln_mlp") if two else ("input_layernorm",)
    elif cfg.bool("parallel_attn", default=True):
        norms = ("input_layernorm",)
    else:
        norms = ("input_layernorm", "post_attention_layernorm")
    forward = plain_mlp(hidden, s.ffn, names=FALCON_MLP, bias=bias)
    return gpt_like(cfg, prefix, s, mix, forward, norms=norms, embedding="word_embeddings", tied=True)


def mpt(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """ALiBi positions, no biases at all, queries, keys and values in one matrix, a tied head."""
    hidden, heads = cfg.int("d_model", "hidden_size"), cfg.int("n_heads", "num_attention_heads")
    inner = cfg.optional_sub("attn_config")
    kv_heads = inner.int("kv_n_heads", default=heads) if inner else heads
    s = Sizes(
        hidden=hidden,
        layers=cfg.int("n_layers", "num_hidden_layers", max=10_000),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=max(1, hidden // heads),
        ffn=hidden * cfg.int("expansion_ratio", default=4),
        vocabulary=cfg.int("vocab_size"),
        context=cfg.optional_int("max_seq_len"),
    )
    mix = fused_attention(full_attention(s), hidden, qkv="attn.Wqkv", output="attn.out_proj")
    forward = plain_mlp(hidden, s.ffn, name="ffn", names=("up_proj", "down_proj"), bias=False)
    return gpt_like(
        cfg,
        prefix,
        s,
        mix,
        forward,
        layers_name="blocks",
        norms=("norm_1", "norm_2"),
        norm_bias=False,
        final_norm="norm_f",
        tied=True,
    )


def ctrl(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """Computed positions, separate projections with biases, ReLU; a tied head with a bias."""
    s = sizes(cfg)
    names = ("Wq", "Wk", "Wv", "dense")
    mix = attention(
        full_attention(s), s.hidden, name="multi_head_attention", names=names, qkv_bias=True, output_bias=True
    )
    forward = plain_mlp(s.hidden, cfg.int("dff"), name="ffn", names=("0", "2"), activation="relu")
    around: dict[str, Any] = {"embedding": "w", "final_norm": "layernorm", "norms": ("layernorm1", "layernorm2")}
    return gpt_like(cfg, prefix, s, mix, forward, head_bias=True, tied=True, **around)


def cpmant(cfg: Config, prefix: str = "cpmant") -> Anatomy:
    """Relative position buckets, a gated GELU, prompts and segments beside the words."""
    hidden, heads = cfg.int("hidden_size"), cfg.int("num_attention_heads")
    head_dim = cfg.int("dim_head", default=max(1, hidden // heads))
    s = Sizes(
        hidden=hidden,
        layers=cfg.int("num_hidden_layers", max=10_000),
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        ffn=cfg.int("dim_ff"),
        vocabulary=cfg.int("vocab_size"),
        context=None,
    )
    prompts = cfg.int("prompt_types", min=0, default=0) * cfg.int("prompt_length", min=0, default=0)
    segments = cfg.int("segment_types", default=1)
    buckets = segments**2 + cfg.int("position_bias_num_buckets")
    mix = attention(
        full_attention(s),
        hidden,
        name="self_att.self_attention",
        names=("project_q", "project_k", "project_v", "attention_out"),
    )
    inner = "ffn.ffn"
    forward = Part(
        (
            *linear(f"{inner}.w_in.w_0", s.ffn, hidden, "mlp", "gate"),
            *linear(f"{inner}.w_in.w_1", s.ffn, hidden, "mlp", "up"),
            *linear(f"{inner}.w_out", hidden, s.ffn, "mlp", "down"),
        ),
        feed_forward=plain_mlp(hidden, s.ffn).feed_forward,
    )
    tables = (
        *weight(f"{prefix}.segment_embedding.weight", (segments, hidden), "embedding", "segments"),
        *weight(f"{prefix}.position_bias.relative_attention_bias", (buckets, heads), "attention", "positions"),
    )
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: mix,
        feed_forward=lambda _: forward,
        norms=("self_att.layernorm_before_attention", "ffn.layernorm_before_ffn"),
        layers_name="encoder.layers",
        embedding="input_embedding",
        extra_rows=prompts,
        final_norm="encoder.output_layernorm",
        positions=tables,
        may_tie=False,
    )
