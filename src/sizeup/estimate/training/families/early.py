"""Decoders from before Llama: learned or linear positions, layer norms, attention written out in Python.

Each function says what differs from Llama. Source: transformers 5.23, `models/<model type>/modeling_*.py`.
"""

from __future__ import annotations

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families.common import base, partial
from sizeup.models.config import Config

GPT2_NAMES = {
    "self_attn.qkv_proj": "attn.c_attn", "self_attn.o_proj": "attn.c_proj", "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}  # fmt: skip
GPTJ_NAMES = {
    "self_attn.q_proj": "attn.q_proj", "self_attn.k_proj": "attn.k_proj", "self_attn.v_proj": "attn.v_proj",
    "self_attn.qkv_proj": "attn.qkv_proj", "self_attn.o_proj": "attn.out_proj", "mlp.up_proj": "mlp.fc_in",
    "mlp.down_proj": "mlp.fc_out",
}  # fmt: skip
GPT_NEO_NAMES = {name: own.replace("attn.", "attn.attention.") for name, own in GPTJ_NAMES.items()} | {
    "mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj",
}  # fmt: skip
BLOOM_NAMES = {
    "self_attn.qkv_proj": "self_attention.query_key_value", "self_attn.o_proj": "self_attention.dense",
    "mlp.up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h",
}  # fmt: skip
MPT_NAMES = {
    "self_attn.qkv_proj": "attn.Wqkv", "self_attn.o_proj": "attn.out_proj", "mlp.up_proj": "ffn.up_proj",
    "mlp.down_proj": "ffn.down_proj",
}  # fmt: skip
FAIRSEQ_NAMES = {"self_attn.o_proj": "self_attn.out_proj", "mlp.up_proj": "fc1", "mlp.down_proj": "fc2"}
PERSIMMON_NAMES = {
    "self_attn.qkv_proj": "self_attn.query_key_value", "self_attn.o_proj": "self_attn.dense",
    "mlp.up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h",
}  # fmt: skip


def gpt_bigcode(cfg: Config) -> DecoderShape:
    """GPT-2 with one head of keys for all queries, and a triangle of booleans kept as a buffer."""
    several = cfg.bool("multi_query", default=True)
    hidden, positions = cfg.int("n_embd", "hidden_size"), cfg.int("n_positions", "max_position_embeddings")
    heads = cfg.int("n_head", "num_attention_heads")
    return base(
        cfg, kv_heads=1 if several else heads, ffn=cfg.int("n_inner", default=4 * hidden),
        qkv="views", qkv_bias=True, output_bias=True, mlp_bias=True, norm="layer", mlp="plain",
        activation=cfg.str("activation_function", default="gelu_pytorch_tanh"), rotary=0.0,
        order="named", half_dropout=cfg.float("resid_pdrop", default=0.1),
        embedding_dropout=cfg.float("embd_pdrop", default=0.1),
        attention_dropout=cfg.float("attn_pdrop", default=0.1), position_table=positions,
        tied=cfg.bool("tie_word_embeddings", default=True), buffers=(positions * positions,), names=GPT2_NAMES,
    )  # fmt: skip


def gptj(cfg: Config) -> DecoderShape:
    """Halves side by side under one layer norm; part of each head turned in pairs; scores in fp32 (eager only)."""
    hidden, heads = cfg.int("n_embd", "hidden_size"), cfg.int("n_head", "num_attention_heads")
    p = cfg.float("resid_pdrop", default=0.0)
    turned = cfg.int("rotary_dim", default=hidden // heads)
    return base(
        cfg, buffers=_sines(cfg), ffn=cfg.int("n_inner", default=4 * hidden), mlp_bias=True, norm="layer",
        order="parallel_sum",
        mlp="plain", activation=cfg.str("activation_function", default="gelu_new"), rotary=turned / (hidden // heads),
        rotary_repeats="tensor", eager_only=True, way=Way(wide=True), half_dropout=p, head_bias=True,
        embedding_dropout=cfg.float("embd_pdrop", default=0.0), attention_dropout=cfg.float("attn_pdrop", default=0.0),
        names=GPTJ_NAMES,
    )  # fmt: skip


def _sines(cfg: Config) -> tuple[int, ...]:
    """Every layer keeps a table of sines and cosines of all positions, in fp32."""
    width = cfg.optional_int("rotary_dim") or cfg.int("n_embd", "hidden_size")
    return (4 * cfg.int("n_positions", "max_position_embeddings") * width,) * cfg.int("n_layer", "num_hidden_layers")


def gpt_neo(cfg: Config) -> DecoderShape:
    """Learned positions, scores in fp32 chosen by a kept triangle, and not scaled."""
    hidden, positions = cfg.int("hidden_size"), cfg.int("max_position_embeddings")
    heads, layers = cfg.int("num_heads", "num_attention_heads"), cfg.int("num_layers", "num_hidden_layers")
    return base(
        cfg, head_count=heads, kv_heads=heads, layers=layers, ffn=cfg.int("intermediate_size", default=4 * hidden),
        output_bias=True, mlp_bias=True, norm="layer", mlp="plain", rotary=0.0, position_table=positions,
        activation=cfg.str("activation_function", default="gelu_new"), eager_only=True,
        way=Way(wide=True, scaled=False, chosen=True), half_dropout=cfg.float("resid_dropout", default=0.0),
        order="named",
        embedding_dropout=cfg.float("embed_dropout", default=0.0),
        attention_dropout=cfg.float("attention_dropout", default=0.0),
        tied=cfg.bool("tie_word_embeddings", default=True), buffers=(positions * positions,) * layers,
        names=GPT_NEO_NAMES,
    )  # fmt: skip


def biogpt(cfg: Config) -> DecoderShape:
    """Learned positions, layer norms, biases, scaled embeddings, dropout on both halves."""
    return base(
        cfg, qkv_bias=True, output_bias=True, mlp_bias=True, norm="layer", mlp="plain", rotary=0.0,
        activation=cfg.str("hidden_act", default="gelu"), embedding_scale="module", way=Way(softmax_in_fp32=False),
        residual_dropout=cfg.float("hidden_dropout_prob", default=0.1),
        embedding_dropout=cfg.float("hidden_dropout_prob", default=0.1),
        attention_dropout=cfg.float("attention_probs_dropout_prob", default=0.1),
        inner_dropout=cfg.float("activation_dropout", default=0.0), order="inlined",
        position_table=cfg.int("max_position_embeddings") + 2, tied=cfg.bool("tie_word_embeddings", default=True),
        names=FAIRSEQ_NAMES,
    )  # fmt: skip


def xglm(cfg: Config) -> DecoderShape:
    """A frozen table of sines, queries scaled first, heads copied together, scores floored (eager only)."""
    p = cfg.float("dropout", default=0.1)
    return base(
        cfg, qkv_bias=True, output_bias=True, mlp_bias=True, norm="layer", mlp="plain", rotary=0.0,
        activation=cfg.str("activation_function", default="gelu"), embedding_scale="module", query_scale=True,
        eager_only=True, residual_dropout=p, embedding_dropout=p, order="inlined",
        way=Way(scaled=False, softmax_in_fp32=False, copied=True, floored=True, cast_late=True),
        attention_dropout=cfg.float("attention_dropout", default=0.1),
        inner_dropout=cfg.float("activation_dropout", default=0.0),
        sines=cfg.int("max_position_embeddings") + 2, tied=cfg.bool("tie_word_embeddings", default=True),
        names=FAIRSEQ_NAMES,
    )  # fmt: skip


def persimmon(cfg: Config) -> DecoderShape:
    """One matrix of all heads' queries, keys and values, layer norms on queries and keys, half of each head turned."""
    return base(
        cfg, qkv="selected", qkv_bias=True, output_bias=True, mlp_bias=True, norm="layer", mlp="plain",
        qk_norm="head" if cfg.bool("qk_layernorm", default=True) else "", rotary=partial(cfg), rotary_joined=True,
        activation=cfg.str("hidden_act", default="relu2"),
        attention_dropout=cfg.float("attention_dropout", default=0.0),
        residual_dropout=cfg.float("hidden_dropout", default=0.0), names=PERSIMMON_NAMES,
    )  # fmt: skip


def bloom(cfg: Config) -> DecoderShape:
    """A norm on the embeddings, scores that begin as linear biases, a GELU with a gradient of its own (eager only)."""
    hidden = cfg.int("n_embed", "hidden_size")
    return base(
        cfg, hidden=hidden, ffn=4 * hidden, qkv="selected", qkv_bias=True, output_bias=True, mlp_bias=True,
        norm="layer", order="bloom", mlp="plain", activation="bloom_gelu", rotary=0.0, alibi="cast",
        embedding_norm=True,
        eager_only=True, way=Way(added=True, lingers="all"), residual_dropout=cfg.float("hidden_dropout", default=0.0),
        attention_dropout=cfg.float("attention_dropout", default=0.0),
        tied=cfg.bool("tie_word_embeddings", default=True), names=BLOOM_NAMES,
    )  # fmt: skip


def mpt(cfg: Config) -> DecoderShape:
    """Norms without biases, linear biases in fp32 added to the scores, masked by filling (eager only)."""
    hidden = cfg.int("d_model", "hidden_size")
    inner = cfg.optional_sub("attn_config")
    p = inner.float("attn_pdrop", default=0.0) if inner is not None else 0.0
    return base(
        cfg, ffn=4 * hidden, qkv="views", norm="layer", norm_bias=False, mlp="plain", activation="gelu", rotary=0.0,
        alibi="wide", eager_only=True, way=Way(filled=True, lingers="weights"), order="mpt",
        alibi_positions=cfg.int("max_seq_len", default=2048), residual_dropout=p, attention_dropout=p,
        qkv_clipped=inner is not None and bool(inner.optional_float("clip_qkv")),
        tied=cfg.bool("tie_word_embeddings", default=True), names=MPT_NAMES,
    )  # fmt: skip


def codegen(cfg: Config) -> DecoderShape:
    """GPT-J with one matrix for query, value and key, cut for four devices and copied together again."""
    hidden, heads = cfg.int("n_embd", "hidden_size"), cfg.int("n_head", "num_attention_heads")
    p = cfg.float("resid_pdrop", default=0.0)
    turned = cfg.int("rotary_dim", default=hidden // heads)
    return base(
        cfg, buffers=_sines(cfg), ffn=cfg.int("n_inner", default=4 * hidden), qkv="copied", mlp_bias=True, norm="layer",
        order="parallel_sum", mlp="plain", activation=cfg.str("activation_function", default="gelu_new"),
        rotary=turned / (hidden // heads), rotary_wide=True, rotary_repeats="tensor",
        eager_only=True, way=Way(wide=True), half_dropout=p, head_bias=True,
        embedding_dropout=cfg.float("embd_pdrop", default=0.0), attention_dropout=cfg.float("attn_pdrop", default=0.0),
        names=GPTJ_NAMES,
    )  # fmt: skip


def falcon(cfg: Config) -> DecoderShape:
    """One matrix of all heads' queries, keys and values, halves side by side, a mask even where none is needed.

    With linear biases (falcon-rw) every head has a mask of its own, of numbers.
    """
    new, several = cfg.bool("new_decoder_architecture", default=False), cfg.bool("multi_query", default=True)
    heads = cfg.int("num_attention_heads", "n_head")
    groups = cfg.int("num_kv_heads", "n_head_kv", default=heads)
    beside = cfg.bool("parallel_attn", default=True) or new
    norms = cfg.optional_int("num_ln_in_parallel_attn") or (2 if new else 1)
    order = ("falcon2" if new and norms == 2 else "falcon") if beside else "pre"
    b, p = cfg.bool("bias", default=False), cfg.float("hidden_dropout", default=0.0)
    hidden, linear = cfg.int("hidden_size"), cfg.bool("alibi", default=False)
    return base(
        cfg, ffn=cfg.int("ffn_hidden_size", default=4 * hidden), kv_heads=groups if new else 1 if several else heads,
        qkv="grouped" if new else "indexed" if several else "selected", qkv_bias=b, output_bias=b, mlp_bias=b,
        product_bias=b, norm="layer", order=order, mlp="plain",
        activation=cfg.str("activation", default="gelu"), rotary=0.0 if linear else 1.0,
        always_masked=True, alibi="mask" if linear else "",
        way=Way(
            softmax_in_fp32=linear, scaled=linear, raised=linear, cast_late=linear, copied=True,
            broadcast=several and not new and heads > 1
        ), residual_dropout=p, attention_dropout=0.0,
        tied=cfg.bool("tie_word_embeddings", default=True), names=BLOOM_NAMES,
    )  # fmt: skip


CTRL_NAMES = {
    "self_attn.q_proj": "multi_head_attention.Wq", "self_attn.k_proj": "multi_head_attention.Wk",
    "self_attn.v_proj": "multi_head_attention.Wv", "self_attn.o_proj": "multi_head_attention.dense",
    "mlp.up_proj": "ffn.0", "mlp.down_proj": "ffn.2",
}  # fmt: skip


def openai_gpt(cfg: Config) -> DecoderShape:
    """Learned positions, norms of each half's sum with the stream; scores times a kept triangle plus the rest."""
    p = cfg.float("resid_pdrop", default=0.1)
    hidden, positions = cfg.int("n_embd", "hidden_size"), cfg.int("n_positions", "max_position_embeddings")
    return base(
        cfg, ffn=4 * hidden, qkv="split_views", qkv_bias=True, output_bias=True, mlp_bias=True, transposed=True,
        norm="layer", order="after", mlp="plain", activation=_old_gelu(cfg), rotary=0.0, position_table=positions,
        zero_added=True, half_dropout=p, eager_only=True, last_norm=False,
        way=Way(triangle=True, softmax_in_fp32=False, cast_late=True), triangle=positions,
        embedding_dropout=cfg.float("embd_pdrop", default=0.1), attention_dropout=cfg.float("attn_pdrop", default=0.1),
        tied=cfg.bool("tie_word_embeddings", default=True), names=GPT2_NAMES,
        buffers=(positions * 8,),
    )  # fmt: skip


def _old_gelu(cfg: Config) -> str:
    """The first GPT's GELU is written out in Python."""
    return {"gelu": "gelu_new", "swish": "silu"}.get(cfg.str("afn", default="gelu"), "relu")


def ctrl(cfg: Config) -> DecoderShape:
    """A frozen table of sines, embeddings scaled in place, layer norms, a plain ReLU, a bias on the head."""
    p = cfg.float("resid_pdrop", default=0.1)
    return base(
        cfg, ffn=cfg.int("dff", default=8192), qkv_bias=True, output_bias=True, mlp_bias=True, norm="layer",
        order="kept", mlp="plain", activation="relu", rotary=0.0, embedding_scale="in place", zero_added=True,
        sines=cfg.int("n_positions", "max_position_embeddings"), half_dropout=p, attention_dropout=0.0,
        embedding_dropout=cfg.float("embd_pdrop", default=0.1), head_bias=True, way=Way(softmax_in_fp32=False),
        tied=cfg.bool("tie_word_embeddings", default=True), names=CTRL_NAMES,
    )  # fmt: skip
