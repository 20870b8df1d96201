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
        residual_dropout=cfg.float("resid_pdrop", default=0.1), embedding_dropout=cfg.float("embd_pdrop", default=0.1),
        attention_dropout=cfg.float("attn_pdrop", default=0.1), position_table=positions,
        tied=cfg.bool("tie_word_embeddings", default=True), buffers=(positions * positions,), names=GPT2_NAMES,
    )  # fmt: skip


def gptj(cfg: Config) -> DecoderShape:
    """Halves side by side under one layer norm; part of each head turned in pairs; scores in fp32 (eager only)."""
    hidden, heads = cfg.int("n_embd", "hidden_size"), cfg.int("n_head", "num_attention_heads")
    p = cfg.float("resid_pdrop", default=0.0)
    turned = cfg.int("rotary_dim", default=hidden // heads)
    return base(
        cfg, ffn=cfg.int("n_inner", default=4 * hidden), mlp_bias=True, norm="layer", order="parallel_sum",
        mlp="plain", activation=cfg.str("activation_function", default="gelu_new"), rotary=turned / (hidden // heads),
        interleaved=True, eager_only=True, way=Way(wide=True), residual_dropout=p, head_bias=True,
        embedding_dropout=cfg.float("embd_pdrop", default=0.0), attention_dropout=cfg.float("attn_pdrop", default=0.0),
        names=GPTJ_NAMES,
    )  # fmt: skip


def gpt_neo(cfg: Config) -> DecoderShape:
    """Learned positions, scores in fp32 chosen by a kept triangle, and not scaled."""
    hidden, positions = cfg.int("hidden_size"), cfg.int("max_position_embeddings")
    heads, layers = cfg.int("num_heads", "num_attention_heads"), cfg.int("num_layers", "num_hidden_layers")
    return base(
        cfg, head_count=heads, kv_heads=heads, layers=layers, ffn=cfg.int("intermediate_size", default=4 * hidden),
        output_bias=True, mlp_bias=True, norm="layer", mlp="plain", rotary=0.0, position_table=positions,
        activation=cfg.str("activation_function", default="gelu_new"), eager_only=True,
        way=Way(wide=True, scaled=False, chosen=True), residual_dropout=cfg.float("resid_dropout", default=0.0),
        embedding_dropout=cfg.float("embed_dropout", default=0.0),
        attention_dropout=cfg.float("attention_dropout", default=0.0),
        tied=cfg.bool("tie_word_embeddings", default=True), buffers=(positions * positions,) * layers,
        names=GPT_NEO_NAMES,
    )  # fmt: skip


def biogpt(cfg: Config) -> DecoderShape:
    """Learned positions, layer norms, biases, scaled embeddings, dropout on both halves."""
    return base(
        cfg, qkv_bias=True, output_bias=True, mlp_bias=True, norm="layer", mlp="plain", rotary=0.0,
        activation=cfg.str("hidden_act", default="gelu"), embedding_scale="module",
        residual_dropout=cfg.float("hidden_dropout_prob", default=0.1),
        embedding_dropout=cfg.float("hidden_dropout_prob", default=0.1),
        attention_dropout=cfg.float("attention_probs_dropout_prob", default=0.1),
        inner_dropout=cfg.float("activation_dropout", default=0.0), positions_apart=True,
        position_table=cfg.int("max_position_embeddings") + 2, tied=cfg.bool("tie_word_embeddings", default=True),
        names=FAIRSEQ_NAMES,
    )  # fmt: skip


def persimmon(cfg: Config) -> DecoderShape:
    """One matrix of all heads' queries, keys and values, layer norms on queries and keys, half of each head turned."""
    return base(
        cfg, qkv="selected", qkv_bias=True, output_bias=True, mlp_bias=True, norm="layer", mlp="plain",
        qk_norm="head" if cfg.bool("qk_layernorm", default=True) else "", rotary=partial(cfg), rotary_joined=True,
        activation=cfg.str("hidden_act", default="relu2"), attention_dropout=cfg.float("attention_dropout", default=0.0),
        residual_dropout=cfg.float("hidden_dropout", default=0.0), names=PERSIMMON_NAMES,
    )  # fmt: skip
