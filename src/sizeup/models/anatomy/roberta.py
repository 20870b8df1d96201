"""RoBERTa and the encoders that differ from it by a named twist: BERT with a head of its own shape."""

from __future__ import annotations

from sizeup.models.anatomy.encoders import ROBERTA_CLASSIFIER, ROBERTA_HEAD, Bert, bert_layer, bert_like
from sizeup.models.anatomy.family import Anatomy, sizes
from sizeup.models.anatomy.modern_encoders import jina_adapters, jina_embeddings_v3
from sizeup.models.anatomy.parts import Part, linear, weight
from sizeup.models.config import Config


def roberta(cfg: Config, prefix: str | None = None) -> Anatomy:
    """BERT with a language head of its own shape and a classifier of two projections (also XLM-RoBERTa, CamemBERT).

    With rotary positions it is jina-embeddings-v3, which is published under this model type.
    """
    if prefix is None and cfg.get("position_embedding_type") == "rotary":
        return jina_adapters(cfg, jina_embeddings_v3(cfg))
    return bert_like(cfg, Bert(root="roberta", head=ROBERTA_HEAD, classifier=ROBERTA_CLASSIFIER), prefix=prefix)


def data2vec_text(cfg: Config) -> Anatomy:
    """RoBERTa under another name."""
    return bert_like(cfg, Bert(root="data2vec_text", head=ROBERTA_HEAD, classifier=ROBERTA_CLASSIFIER))


def roberta_prelayernorm(cfg: Config) -> Anatomy:
    """RoBERTa with norms before the halves and after the last layer."""
    s = sizes(cfg)
    twist = Bert(root="roberta_prelayernorm", head=ROBERTA_HEAD, classifier=ROBERTA_CLASSIFIER, after="LayerNorm")
    norms = ("attention.LayerNorm", "intermediate.LayerNorm")
    return bert_like(cfg, twist, layer=lambda _: bert_layer(cfg, s, norms=norms))


def xlm_roberta_xl(cfg: Config) -> Anatomy:
    """RoBERTa with norms before the halves and after the last layer, none over embeddings."""
    s = sizes(cfg)
    twist = Bert(root="roberta", head=ROBERTA_HEAD, classifier=ROBERTA_CLASSIFIER, norm="", after="encoder.LayerNorm")
    norms = ("attention.self_attn_layer_norm", "LayerNorm")
    return bert_like(cfg, twist, layer=lambda _: bert_layer(cfg, s, norms=norms))


def xmod(cfg: Config) -> Anatomy:
    """RoBERTa with a small adapter for each language in every layer."""
    s = sizes(cfg)
    width = s.hidden // cfg.int("adapter_reduction_factor", default=2)
    adapters = tuple(
        tensor
        for language in cfg.strs("languages") or ("en_XX",)
        for name, rows, columns, part in (("dense1", width, s.hidden, "up"), ("dense2", s.hidden, width, "down"))
        for tensor in linear(f"output.adapter_modules.{language}.{name}", rows, columns, "mlp", part, bias=True)
    )
    twist = Bert(root="roberta", head=ROBERTA_HEAD, classifier=ROBERTA_CLASSIFIER)
    return bert_like(cfg, twist, layer=lambda _: [*bert_layer(cfg, s), Part(adapters)])


def longformer(cfg: Config) -> Anatomy:
    """RoBERTa with sliding windows, and projections of their own for the tokens that see everything."""
    s = sizes(cfg)
    windows = cfg.get("attention_window")
    window = max(cfg.ints("attention_window") or (512,)) if isinstance(windows, list) else cfg.int("attention_window")
    beside = tuple(
        tensor
        for part in ("query", "key", "value")
        for tensor in linear(f"attention.self.{part}_global", s.hidden, s.hidden, "attention", part[0], bias=True)
    )
    twist = Bert(root="longformer", head=ROBERTA_HEAD, classifier=ROBERTA_CLASSIFIER)
    return bert_like(cfg, twist, layer=lambda _: bert_layer(cfg, s, extra=beside, window=window))


def mpnet(cfg: Config) -> Anatomy:
    """RoBERTa without token types, with relative positions as a bias that all layers share."""
    s = sizes(cfg)
    names = ("attn.q", "attn.k", "attn.v", "attn.o")
    norms = ("attention.LayerNorm", "output.LayerNorm")
    buckets = cfg.int("relative_attention_num_buckets")
    bias = weight("encoder.relative_attention_bias.weight", (buckets, s.heads), "attention", "relative_bias")
    twist = Bert(root="mpnet", head=ROBERTA_HEAD, types="", classifier=ROBERTA_CLASSIFIER)
    return bert_like(cfg, twist, layer=lambda _: bert_layer(cfg, s, names=names, norms=norms), around=bias)
