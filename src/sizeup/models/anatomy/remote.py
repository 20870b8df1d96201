"""Decoders whose classes are published with the weights instead of in transformers, from their known layouts.

Their totals are held to the published ones (tests/anatomy/test_published.py); there is no class to compare names with.
"""

from __future__ import annotations

from sizeup.models.anatomy.dense import llama, llama_like, qwen2
from sizeup.models.anatomy.family import (
    PRE_NORMS,
    Anatomy,
    Sizes,
    decoder,
    full_attention,
    sizes,
    sparse_halves,
    text_frame,
)
from sizeup.models.anatomy.moe import (
    deepseek_mixture,
    dense_or,
    expert_count,
    experts_per_token,
    shared_count,
    shared_mlp,
)
from sizeup.models.anatomy.mtp import mtp_count, with_mtp
from sizeup.models.anatomy.parts import (
    Part,
    attention,
    fused_attention,
    gated_mlp,
    linear,
    mixture,
    norm,
    norm_tensors,
    plain_mlp,
    stack_of,
    weight,
)
from sizeup.models.config import MAX_LAYERS, Config
from sizeup.models.mixers import Attention


def minicpm(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with scaled residuals; its head is tied unless the configuration says otherwise."""
    return llama_like(cfg, prefix, tied=True)


def internlm(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with biases on all projections of the attention."""
    bias = cfg.bool("bias", default=True)
    return llama_like(cfg, prefix, qkv_bias=bias, output_bias=bias)


def internlm2(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with queries, keys and values in one matrix, under names of its own."""
    s = sizes(cfg)
    bias = cfg.bool("bias", default=False)
    mix = fused_attention(
        full_attention(s), s.hidden, qkv="attention.wqkv", output="attention.wo", bias=bias, output_bias=bias
    )
    half = gated_mlp(s.hidden, s.ffn, name="feed_forward", names=("w1", "w3", "w2"))
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: mix,
        feed_forward=lambda _: half,
        norms=("attention_norm", "ffn_norm"),
        embedding="tok_embeddings",
        head_name="output",
    )


def baichuan(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with queries, keys and values in one matrix (`W_pack`)."""
    s = sizes(cfg)
    mix = fused_attention(full_attention(s), s.hidden, qkv="self_attn.W_pack")
    half = gated_mlp(s.hidden, s.ffn)
    return decoder(cfg, prefix, s=s, mix=lambda _: mix, feed_forward=lambda _: half)


def orion(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama with layer norms that have biases."""
    bias = cfg.bool("attention_bias", default=False)
    return llama_like(cfg, prefix, qkv_bias=bias, output_bias=bias, norm_bias=True)


def dream(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen2 that writes by diffusion: it sees tokens on both sides and keeps no cache by itself."""
    return qwen2(cfg, prefix)


def qwen(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """The first Qwen: fused queries, keys and values with a bias; gate and up are half of `intermediate_size` each."""
    s = sizes(cfg)
    width = cfg.int("kv_channels", default=s.head_dim)
    mixer = Attention(s.heads, s.heads, width, width)
    plain = not cfg.bool("no_bias", default=True)
    mix = fused_attention(mixer, s.hidden, qkv="attn.c_attn", output="attn.c_proj", bias=True, output_bias=plain)
    half = gated_mlp(s.hidden, s.ffn // 2, names=("w2", "w1", "c_proj"), bias=plain)
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: mix,
        feed_forward=lambda _: half,
        norms=("ln_1", "ln_2"),
        layers_name="h",
        embedding="wte",
        final_norm="ln_f",
    )


def exaone(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """Llama under GPT-2's names (EXAONE 3)."""
    s = sizes(cfg)
    mix = attention(
        full_attention(s), s.hidden, name="attn.attention", names=("q_proj", "k_proj", "v_proj", "out_proj")
    )
    half = gated_mlp(s.hidden, s.ffn, names=("c_fc_0", "c_fc_1", "c_proj"))
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: mix,
        feed_forward=lambda _: half,
        norms=("ln_1", "ln_2"),
        layers_name="h",
        embedding="wte",
        final_norm="ln_f",
        tied=True,
    )


def llada(cfg: Config, prefix: str = "model.transformer") -> Anatomy:
    """Llama under OLMo's first names, trained to write by diffusion: it sees tokens on both sides."""
    hidden, heads = cfg.int("d_model"), cfg.int("n_heads")
    s = Sizes(
        hidden=hidden,
        layers=cfg.int("n_layers", max=MAX_LAYERS),
        heads=heads,
        kv_heads=cfg.int("n_kv_heads", default=heads),
        head_dim=max(1, hidden // heads),
        ffn=cfg.int("mlp_hidden_size", default=4 * hidden),
        vocabulary=cfg.int("embedding_size", "vocab_size"),
        context=cfg.optional_int("max_sequence_length"),
    )
    mixer = full_attention(s, causal=False)
    bias = cfg.bool("include_qkv_bias", default=False)
    projections = (
        *linear("q_proj", s.heads * s.head_dim, hidden, "attention", "q", bias=bias),
        *linear("k_proj", s.kv_heads * s.head_dim, hidden, "attention", "k", bias=bias),
        *linear("v_proj", s.kv_heads * s.head_dim, hidden, "attention", "v", bias=bias),
        *linear("attn_out", hidden, s.heads * s.head_dim, "attention", "o"),
    )
    forward = Part(
        (
            *linear("ff_proj", s.ffn, hidden, "mlp", "gate"),
            *linear("up_proj", s.ffn, hidden, "mlp", "up"),
            *linear("ff_out", hidden, s.ffn, "mlp", "down"),
        ),
        feed_forward=gated_mlp(hidden, s.ffn).feed_forward,
    )
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: Part(projections, (mixer,)),
        feed_forward=lambda _: forward,
        norms=("attn_norm", "ff_norm"),
        layers_name="blocks",
        embedding="wte",
        final_norm="ln_f",
        head_name=f"{prefix}.ff_out",
        tied=cfg.bool("weight_tying", default=False),
    )


def chatglm(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """ChatGLM2, 3 and GLM-4: two key heads for all, fused gate and up, rotary frequencies stored as a buffer."""
    hidden, heads = cfg.int("hidden_size"), cfg.int("num_attention_heads")
    head_dim = cfg.int("kv_channels", default=max(1, hidden // heads))
    grouped = cfg.bool("multi_query_attention", default=False)
    s = Sizes(
        hidden=hidden,
        layers=cfg.int("num_layers", "num_hidden_layers", max=MAX_LAYERS),
        heads=heads,
        kv_heads=cfg.int("multi_query_group_num", default=1) if grouped else heads,
        head_dim=head_dim,
        ffn=cfg.int("ffn_hidden_size", "intermediate_size"),
        vocabulary=cfg.int("padded_vocab_size", "vocab_size"),
        context=cfg.optional_int("seq_length"),
    )
    bias = cfg.bool("add_bias_linear", default=False)
    mix = fused_attention(
        full_attention(s),
        hidden,
        qkv="self_attention.query_key_value",
        output="self_attention.dense",
        bias=bias or cfg.bool("add_qkv_bias", default=False),
        output_bias=bias,
    )
    half = gated_mlp(hidden, s.ffn, names=("", "", "dense_4h_to_h"), fused="dense_h_to_4h", bias=bias)
    last = cfg.bool("post_layer_norm", default=True)
    frequencies = weight(f"{prefix}.rotary_pos_emb.inv_freq", (max(1, head_dim // 4),), "buffer", "positions")
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: mix,
        feed_forward=lambda _: half,
        layers_name="encoder.layers",
        embedding="embedding.word_embeddings",
        positions=frequencies,
        final_norm="encoder.final_layernorm" if last else "",
        head_name=f"{prefix}.output_layer",
    )


def phi_msft(cfg: Config, prefix: str = "transformer") -> Anatomy:
    """Phi under its first names, with the final norm inside the head."""
    s = sizes(cfg)
    kv_heads = cfg.int("n_head_kv", default=s.heads)
    mixer = Attention(s.heads, kv_heads, s.head_dim, s.head_dim)
    mix = fused_attention(mixer, s.hidden, qkv="mixer.Wqkv", output="mixer.out_proj", bias=True, output_bias=True)
    half = plain_mlp(s.hidden, s.ffn, activation="gelu_tanh")
    return decoder(
        cfg,
        prefix,
        s=s,
        mix=lambda _: mix,
        feed_forward=lambda _: half,
        norms=("ln",),
        norm_bias=True,
        layers_name="h",
        embedding="embd.wte",
        final_norm="",
        before=norm_tensors("lm_head.ln", s.hidden, bias=True),
        head_name="lm_head.linear",
        head_bias=True,
    )


def deepseek(cfg: Config, prefix: str = "model") -> Anatomy:
    """The first DeepSeek mixture: llama's attention, one dense layer, shared and routed experts."""
    s = sizes(cfg)
    bias = cfg.bool("attention_bias", default=False)
    every = cfg.int("moe_layer_freq", default=1)
    halves = sparse_halves(cfg, s.layers, cfg.int("first_k_dense_replace", min=0, default=0))
    if every > 1:
        halves = [half if layer % every == 0 else "dense" for layer, half in enumerate(halves)]
    if not cfg.has("n_routed_experts"):
        return llama(cfg, prefix)
    return llama_like(
        cfg,
        prefix,
        halves=halves,
        feed_forward=dense_or(s, lambda: deepseek_mixture(cfg, s, correction=None)),
        qkv_bias=bias,
        output_bias=bias,
    )


def bailing_moe(cfg: Config, prefix: str = "model") -> Anatomy:
    """Ling and Ring: fused queries, keys and values; DeepSeek's mixture (with a correction bias from V2 on)."""
    s = sizes(cfg)
    bias, qkv_bias = cfg.bool("use_bias", default=False), cfg.bool("use_qkv_bias", default=False)
    normed = cfg.bool("use_qk_norm", default=False)
    extra = (
        *norm_tensors("attention.query_layernorm", s.head_dim, part="q_norm"),
        *norm_tensors("attention.key_layernorm", s.head_dim, part="k_norm"),
    )
    mix = fused_attention(
        full_attention(s),
        s.hidden,
        qkv="attention.query_key_value",
        output="attention.dense",
        bias=bias or qkv_bias,
        output_bias=bias,
        extra=extra if normed else (),
    )
    count, width = expert_count(cfg, "num_experts"), cfg.int("moe_intermediate_size")
    corrected = cfg.bool("moe_router_enable_expert_bias", default=False)

    def sparse() -> Part:
        return mixture(
            s.hidden,
            width,
            count,
            experts_per_token(cfg, count),
            correction="mlp.gate.expert_bias" if corrected else None,
            shared=shared_mlp(s, shared_count(cfg, "num_shared_experts") * width),
        )

    return decoder(
        cfg,
        prefix,
        s=s,
        halves=sparse_halves(cfg, s.layers, cfg.int("first_k_dense_replace", min=0, default=0)),
        mix=lambda _: mix,
        feed_forward=dense_or(s, sparse),
        embedding="word_embeddings",
    )


def mimo(cfg: Config, prefix: str = "model") -> Anatomy:
    """Qwen2 with prediction layers beside the others."""
    s = sizes(cfg)
    around = (
        *linear("input_proj", s.hidden, 2 * s.hidden, "mtp", "eh_proj"),
        *norm_tensors("token_layernorm", s.hidden),
        *norm_tensors("hidden_layernorm", s.hidden),
        *norm_tensors("final_layernorm", s.hidden),
    )
    return with_mtp(qwen2(cfg, prefix), mtp_count(cfg), around, f"{prefix}.mtp_layers", first=0)


def nemotron_nas(cfg: Config, prefix: str = "model") -> Anatomy:
    """Llama after a search: each layer has its own key heads and feed-forward width, or leaves a half out.

    A width is 2/3 · ffn_mult · hidden, rounded up to a multiple of 256; a half may also be a single matrix.
    """
    hidden, heads = cfg.int("hidden_size"), cfg.int("num_attention_heads")
    layers = cfg.int("num_hidden_layers", max=MAX_LAYERS)
    head_dim = cfg.int("head_dim", default=max(1, hidden // heads))
    s = Sizes(hidden, layers, heads, heads, head_dim, hidden, cfg.int("vocab_size"), cfg.optional_int(CONTEXT))
    listed = cfg.list("block_configs")
    if len(listed) != layers or not all(isinstance(item, dict) for item in listed):
        raise cfg.bad("block_configs", f"a list of {len(listed)}", f"a list with an object for each of {layers} layers")
    blocks = [Config(item, cfg.origin, f"block_configs[{number}]") for number, item in enumerate(listed)]
    kinds = [_nas_kind(block.sub("attention"), block.sub("ffn"), s) for block in blocks]
    stack = stack_of(f"{prefix}.layers", kinds, lambda kind: _nas_layer(cfg, s, *kind), label=_nas_label)
    return text_frame(cfg, s, stack, prefix=prefix)


CONTEXT = "max_position_embeddings"
NO_OP = 0
ONE_MATRIX = -1


def _nas_kind(heads: Config, forward: Config, s: Sizes) -> tuple[int, int]:
    """Key heads and width of a layer; 0 for a half left out, -1 for one that is a single matrix."""
    kv_heads = s.heads // heads.int("n_heads_in_group", max=s.heads, default=1)
    width = int(2 * forward.float("ffn_mult", min=0, max=1e6, default=0.0) * s.hidden / 3)
    return _nas_half(heads, max(1, kv_heads)), _nas_half(forward, -(-width // 256) * 256)


def _nas_half(half: Config, size: int) -> int:
    if half.bool("no_op", default=False):
        return NO_OP
    return ONE_MATRIX if half.bool("replace_with_linear", default=False) else size


def _nas_layer(cfg: Config, s: Sizes, kv_heads: int, width: int) -> list[Part]:
    bias = cfg.bool("attention_bias", default=False)
    parts: list[Part] = []
    if kv_heads == ONE_MATRIX:
        parts.append(Part(linear("self_attn.linear_attn", s.hidden, s.hidden, "attention", "o")))
    elif kv_heads:
        mixer = Attention(s.heads, kv_heads, s.head_dim, s.head_dim)
        parts.append(attention(mixer, s.hidden, qkv_bias=bias, output_bias=bias))
    if kv_heads:
        parts.append(norm(PRE_NORMS[0], s.hidden))
    if width == ONE_MATRIX:
        parts.append(Part(linear("mlp.linear_mlp", s.hidden, s.hidden, "mlp", "down")))
    elif width:
        parts.append(gated_mlp(s.hidden, width, bias=cfg.bool("mlp_bias", default=False)))
    if width:
        parts.append(norm(PRE_NORMS[1], s.hidden))
    return parts


def _nas_label(kind: tuple[int, int]) -> str:
    left_out = [name for name, size in zip(("attention", "feed-forward"), kind, strict=True) if size == NO_OP]
    return f"layer without {' and '.join(left_out)}" if left_out else "layer"
