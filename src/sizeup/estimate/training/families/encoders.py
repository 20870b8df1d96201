"""Encoders that fill in masked words. Each function says what differs from BERT."""

from __future__ import annotations

from typing import Any

from sizeup.estimate.training.architectures.biased_attention import Biased
from sizeup.estimate.training.architectures.disentangled import Disentangled
from sizeup.estimate.training.architectures.encoder import EncoderShape
from sizeup.estimate.training.architectures.modern_encoder import ModernShape
from sizeup.estimate.training.architectures.shape import DecoderShape
from sizeup.estimate.training.architectures.task_heads import TaskHead
from sizeup.estimate.training.attention import Way
from sizeup.estimate.training.families.common import base
from sizeup.models.anatomy.family import FULL, SLIDING
from sizeup.models.config import Config


def bert(cfg: Config, **twists: Any) -> EncoderShape:
    """Learned positions, two kinds of sentences, norms after the halves."""
    hidden, rows = cfg.int("hidden_size"), cfg.int("max_position_embeddings")
    activation = cfg.str("hidden_act", default="gelu")
    fields: dict[str, Any] = {
        "hidden": hidden, "layers": cfg.int("num_hidden_layers"), "head_count": cfg.int("num_attention_heads"),
        "ffn": cfg.int("intermediate_size"), "vocabulary": cfg.int("vocab_size"), "positions": rows,
        "kinds": cfg.int("type_vocab_size", min=0, default=2), "activation": activation, "head_activation": activation,
        "dropout": cfg.float("hidden_dropout_prob", default=0.1),
        "attention_dropout": cfg.float("attention_probs_dropout_prob", default=0.1), "narrow": hidden,
        "counted": False, "tied": cfg.bool("tie_word_embeddings", default=True), "buffers": (8 * rows, 8 * rows),
    }  # fmt: skip
    return EncoderShape(**(fields | twists))


def roberta(cfg: Config) -> EncoderShape:
    """Positions counted from the words; GELU in the head."""
    return bert(cfg, counted=True, head_activation="gelu", task=TaskHead(dense_in_head=True))


def roberta_prelayernorm(cfg: Config, **twists: Any) -> EncoderShape:
    """RoBERTa with norms before the halves and after the layers."""
    fields: dict[str, Any] = {"counted": True, "head_activation": "gelu", "pre_norm": True}
    return bert(cfg, **(fields | {"task": TaskHead(dense_in_head=True)} | twists))


def xlm_roberta_xl(cfg: Config) -> EncoderShape:
    """So, and embeddings aren't normed."""
    return roberta_prelayernorm(cfg, embedding_norm=False, drops_output=False, names_normed=True)


def esm(cfg: Config) -> EncoderShape:
    """ESM-2: so, and heads are turned instead of positions added; no kinds of sentences."""
    rows = cfg.int("max_position_embeddings")
    turned = cfg.str("position_embedding_type", default="absolute") == "rotary"
    return roberta_prelayernorm(
        cfg, embedding_norm=cfg.bool("emb_layer_norm_before", default=False), kinds=0, scaled_queries=True,
        rotary=turned, positions=0 if turned else rows, buffers=(8 * rows,), activation="erf_gelu",
        head_activation="erf_gelu",
        drops_embeddings=False, bias_apart=True, names_normed=True,
        drops_words=cfg.bool("token_dropout", default=False),
    )  # fmt: skip


def albert(cfg: Config) -> EncoderShape:
    """One layer that runs again and again; narrow embeddings, no dropout after the feed-forward."""
    return bert(
        cfg, narrow=cfg.int("embedding_size", default=128), shares=True, drops_output=False,
        dropout=cfg.float("hidden_dropout_prob", default=0.0), activation=cfg.str("hidden_act", default="gelu_new"),
        attention_dropout=cfg.float("attention_probs_dropout_prob", default=0.0),
        head_activation=cfg.str("hidden_act", default="gelu_new"),
        task=TaskHead(dropout=cfg.float("classifier_dropout_prob", default=0.1)),
    )  # fmt: skip


def mpnet(cfg: Config) -> EncoderShape:
    """RoBERTa without kinds of sentences, with a bias of the scores for every distance."""
    rows = cfg.int("max_position_embeddings")
    biased = Biased(cfg.int("relative_attention_num_buckets", default=32))
    return bert(
        cfg, kinds=0, counted=True, head_activation="gelu", biased=biased, buffers=(8 * rows,),
        task=TaskHead(dense_in_head=True),
    )  # fmt: skip


def deberta_v2(cfg: Config) -> EncoderShape:
    """Distances scored apart from words; positions aren't added to words (both unless the configuration says so)."""
    rows = cfg.int("max_position_embeddings")
    buckets, most = (cfg.int(name, min=-1, default=-1) for name in ("position_buckets", "max_relative_positions"))
    span = next(size for size in (buckets, most, rows) if size > 0)
    kinds = cfg.data.get("pos_att_type") or ()
    found = kinds.lower().split("|") if isinstance(kinds, str) else [str(kind) for kind in kinds]
    how = Disentangled(
        span, buckets > 0, "layer_norm" in cfg.str("norm_rel_ebd", default="none"),
        cfg.bool("share_att_key", default=False), "c2p" in found, "p2c" in found,
    )  # fmt: skip
    biased = cfg.bool("position_biased_input", default=True)
    return bert(
        cfg, positions=rows if biased else 0, kinds=cfg.int("type_vocab_size", min=0, default=0), buffers=(8 * rows,),
        disentangled=how, pooler=False, task=TaskHead(activation=cfg.str("pooler_hidden_act", default="gelu")),
    )  # fmt: skip


def electra(cfg: Config) -> EncoderShape:
    """Embeddings that may be narrower than the layers; GELU in the generator's head."""
    task = TaskHead(dense_in_head=True, activation="gelu")
    return bert(cfg, narrow=cfg.int("embedding_size"), head_activation="gelu", task=task, pooler=False)


def distilbert(cfg: Config) -> EncoderShape:
    """BERT without kinds of sentences, under names of its own."""
    rows = cfg.int("max_position_embeddings")
    activation = cfg.str("activation", default="gelu")
    return EncoderShape(
        hidden=cfg.int("dim"), layers=cfg.int("n_layers"), head_count=cfg.int("n_heads"), ffn=cfg.int("hidden_dim"),
        vocabulary=cfg.int("vocab_size"), positions=rows, kinds=0, activation=activation, head_activation=activation,
        dropout=cfg.float("dropout", default=0.1), attention_dropout=cfg.float("attention_dropout", default=0.1),
        narrow=cfg.int("dim"), counted=False, tied=cfg.bool("tie_word_embeddings", default=True), buffers=(8 * rows,),
        drops_attention=False, pooler=False,
        task=TaskHead(
            dense_in_head=True, activation="relu", dropout=cfg.float("seq_classif_dropout", default=0.2)
        ),
    )  # fmt: skip


def eurobert(cfg: Config) -> DecoderShape:
    """Llama that looks both ways."""
    b, m = cfg.bool("attention_bias", default=False), cfg.bool("mlp_bias", default=False)
    task = TaskHead(activation="gelu", dropout=0.0)
    return base(cfg, qkv_bias=b, output_bias=b, mlp_bias=m, head_bias=m, way=Way(causal=False), task=task)


def modernbert(cfg: Config) -> ModernShape:
    """ModernBERT; every third layer sees all tokens unless the configuration says so."""
    layers, hidden = cfg.int("num_hidden_layers"), cfg.int("hidden_size")
    every = cfg.int("global_attn_every_n_layers", default=3)
    kinds = cfg.strs("layer_types") or [SLIDING if number % every else FULL for number in range(layers)]
    window = cfg.int("local_attention", default=128) // 2
    dim, types = hidden // cfg.int("num_attention_heads"), len(set(kinds))
    return ModernShape(
        hidden=hidden, layers=layers, head_count=cfg.int("num_attention_heads"), ffn=cfg.int("intermediate_size"),
        vocabulary=cfg.int("vocab_size"), windows=tuple(window if kind == SLIDING else None for kind in kinds),
        activation=cfg.str("hidden_activation", default="gelu"),
        head_activation=cfg.str("classifier_activation", default="gelu"),
        embedding_dropout=cfg.float("embedding_dropout", default=0.0),
        attention_dropout=cfg.float("attention_dropout", default=0.0),
        mlp_dropout=cfg.float("mlp_dropout", default=0.0), attention_bias=cfg.bool("attention_bias", default=False),
        mlp_bias=cfg.bool("mlp_bias", default=False), norm_bias=cfg.bool("norm_bias", default=False),
        classifier_bias=cfg.bool("classifier_bias", default=False),
        decoder_bias=cfg.bool("decoder_bias", default=True), tied=cfg.bool("tie_word_embeddings", default=True),
        buffers=(2 * dim,) * 2 * types, task=TaskHead(activation="gelu", dropout=0.0),
    )  # fmt: skip
