"""Encoders that moved on from BERT: relative positions (DeBERTa), rotary ones and gated feed-forwards (ModernBERT)."""

from __future__ import annotations

import msgspec

from sizeup.models.anatomy.dense import llama
from sizeup.models.anatomy.encoders import (
    ROBERTA_CLASSIFIER,
    ROBERTA_HEAD,
    Bert,
    LanguageHead,
    bert_layer,
    bert_like,
)
from sizeup.models.anatomy.family import FULL, SLIDING, Anatomy, every, layer_kinds, sizes
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    block,
    fused_attention,
    gated_mlp,
    linear,
    norm,
    norm_tensors,
    plain_mlp,
    stack_of,
    weight,
)
from sizeup.models.anatomy.towers import (
    bidirectional,
    class_of,
    conv,
    labels_of,
    layer_norm,
    prefixed,
    projected_attention,
    table,
    two_way,
    under,
)
from sizeup.models.config import Config
from sizeup.models.mixers import Attention
from sizeup.models.model import Block


def _relative_kinds(cfg: Config) -> tuple[str, ...]:
    """Which of content-to-position (c2p) and position-to-content (p2c) attention uses: a list, or joined by `|`."""
    named = cfg.get("pos_att_type")
    if isinstance(named, str):
        return tuple(part.strip() for part in named.lower().split("|"))
    return cfg.strs("pos_att_type") or ()


def _reach(cfg: Config) -> int:
    """Half the rows of the table of relative positions."""
    named = cfg.int("max_relative_positions", min=-1, default=-1)
    return named if named > 0 else cfg.int("max_position_embeddings")


def _deberta(cfg: Config, rows: int) -> tuple[Bert, Tensors]:
    """What both DeBERTas share: the embeddings, the head, a table of relative positions and its norm."""
    s = sizes(cfg)
    twist = Bert(
        root="deberta",
        pooler="",
        positions="embeddings.position_embeddings" if cfg.bool("position_biased_input", default=True) else "",
        classifier=("pooler.dense", "classifier"),
    )
    if not cfg.bool("legacy", default=True):
        name = "lm_predictions.lm_head"
        head = LanguageHead(f"{name}.dense", f"{name}.LayerNorm", "", f"{name}.bias")
        twist = msgspec.structs.replace(twist, head=head)
    if not cfg.bool("relative_attention", default=False):
        return twist, ()
    around = table("encoder.rel_embeddings", rows, s.hidden, "relative_bias")
    if "layer_norm" in cfg.str("norm_rel_ebd", default="none").lower():
        around += norm_tensors("encoder.LayerNorm", s.hidden, bias=True)
    return twist, around


def deberta(cfg: Config) -> Anatomy:
    """BERT with queries, keys and values in one projection without bias, and biases of queries and values apart."""
    s = sizes(cfg)
    twist, around = _deberta(cfg, 2 * _reach(cfg))
    biases = tuple(t for side in "qv" for t in weight(f"attention.self.{side}_bias", (s.hidden,), "attention", side))
    relative: Tensors = ()
    if cfg.bool("relative_attention", default=False):
        kinds = _relative_kinds(cfg)
        if "c2p" in kinds:
            relative += linear("attention.self.pos_proj", s.hidden, s.hidden, "attention", "relative_bias")
        if "p2c" in kinds:
            relative += linear("attention.self.pos_q_proj", s.hidden, s.hidden, "attention", "relative_bias", bias=True)
    attention = fused_attention(
        two_way(s.heads, s.hidden),
        s.hidden,
        qkv="attention.self.in_proj",
        output="attention.output.dense",
        output_bias=True,
        extra=(*biases, *relative),
    )
    return bert_like(cfg, twist, layer=lambda _: bert_layer(cfg, s, attention=attention), around=around)


def deberta_v2(cfg: Config) -> Anatomy:
    """BERT with a table of relative positions, which has projections of its own unless `share_att_key`."""
    s = sizes(cfg)
    buckets = cfg.int("position_buckets", min=-1, default=-1)
    twist, around = _deberta(cfg, 2 * (buckets if buckets > 0 else _reach(cfg)))
    if kernel := cfg.int("conv_kernel_size", min=0, default=0):
        groups = cfg.int("conv_groups", default=1)
        around += conv("encoder.conv.conv", s.hidden, s.hidden // groups, kernel, role="state_space")
        around += norm_tensors("encoder.conv.LayerNorm", s.hidden, bias=True)
    relative: Tensors = ()
    if cfg.bool("relative_attention", default=False) and not cfg.bool("share_att_key", default=False):
        sides = {"c2p": "key", "p2c": "query"}
        for kind in (kind for kind in _relative_kinds(cfg) if kind in sides):
            relative += linear(
                f"attention.self.pos_{sides[kind]}_proj", s.hidden, s.hidden, "attention", "relative_bias", bias=True
            )
    names = ("self.query_proj", "self.key_proj", "self.value_proj", "output.dense")
    return bert_like(cfg, twist, layer=lambda _: bert_layer(cfg, s, names=names, extra=relative), around=around)


def _modernbert(cfg: Config, prefix: str, *, causal: bool, names: tuple[str, ...]) -> tuple[Anatomy, Tensors]:
    """The layers of ModernBERT, and its word table."""
    s = sizes(cfg)
    bias, mlp_bias = cfg.bool("attention_bias", default=False), cfg.bool("mlp_bias", default=False)
    norm_bias = cfg.bool("norm_bias", default=False)
    period = cfg.int("global_attn_every_n_layers", default=3)
    kinds = layer_kinds(cfg, s.layers, every(s.layers, period, FULL, SLIDING))

    def layer(kind: tuple[str, bool]) -> list[Part]:
        window = cfg.int("local_attention", default=128) if kind[0] == SLIDING else None
        mixer = Attention(s.heads, s.heads, s.head_dim, s.head_dim, window=window, causal=causal)
        return [
            fused_attention(mixer, s.hidden, qkv=f"attn.{names[0]}", output="attn.Wo", bias=bias, output_bias=bias)
            if len(names) == 1
            else projected_attention(mixer, s.hidden, name="attn", names=names, biases="qkvo" if bias else ""),
            gated_mlp(s.hidden, s.ffn, fused="Wi", names=("Wo",), bias=mlp_bias, activation="gelu"),
            norm("mlp_norm", s.hidden, bias=norm_bias),
            *([norm("attn_norm", s.hidden, bias=norm_bias)] if kind[1] else []),
        ]

    numbered = [(kind, number > 0) for number, kind in enumerate(kinds)]
    words = table(prefixed(prefix, "embeddings.tok_embeddings"), s.vocabulary, s.hidden, "tokens")
    side = "decoder" if causal else "encoder"
    blocks = (
        block("embedding", words, under(prefix, norm_tensors("embeddings.norm", s.hidden, bias=norm_bias))),
        *stack_of(prefixed(prefix, "layers"), numbered, layer, stack=side, label=lambda k: _modern_label(*k, side)),
        block(f"{side} frame", under(prefix, norm_tensors("final_norm", s.hidden, bias=norm_bias)), stack=side),
    )
    return Anatomy(blocks, s.hidden, s.vocabulary, s.context), words


def _modern_label(kind: str, normed: bool, side: str) -> str:
    return " ".join([*["first"] * (not normed), *["sliding-window"] * (kind == SLIDING), side, "layer"])


def modernbert(cfg: Config, prefix: str | None = None) -> Anatomy:
    """Rotary positions, gated feed-forwards in one matrix, windows between full layers; no norm before layer 0."""
    name = class_of(cfg, "ForMaskedLM") if prefix is None else "Model"
    bare = name.endswith("Model")
    root = prefix if prefix is not None else "" if bare else "model"
    whole, words = _modernbert(cfg, root, causal=False, names=("Wqkv",))
    return whole if bare else _modern_head(cfg, name, whole, words, "head")


def modernbert_decoder(cfg: Config) -> Anatomy:
    """ModernBERT as a causal decoder, with projections of their own for queries, keys and values."""
    name = class_of(cfg, "ForCausalLM")
    bare = name.endswith("Model")
    names = ("q_proj", "k_proj", "v_proj", "Wo")
    whole, words = _modernbert(cfg, "" if bare else "model", causal=True, names=names)
    return whole if bare else _modern_head(cfg, name, whole, words, "lm_head")


def _modern_head(cfg: Config, name: str, whole: Anatomy, words: Tensors, module: str) -> Anatomy:
    """A projection and a norm, then the word table with a bias, or a classifier."""
    module = "head" if name.endswith("Classification") else module
    head = (
        *linear(f"{module}.dense", whole.hidden, whole.hidden, "head", "transform", bias=cfg.bool("classifier_bias")),
        *norm_tensors(f"{module}.norm", whole.hidden, bias=cfg.bool("norm_bias", default=False)),
    )
    if name.endswith("Classification"):
        head += linear("classifier", labels_of(cfg), whole.hidden, "head", "classifier", bias=True)
    else:
        tied_to = words[0].name if cfg.bool("tie_word_embeddings", default=True) else ""
        head += (msgspec.structs.replace(words[0], name="decoder.weight", role="head", part="head", tied_to=tied_to),)
        if cfg.bool("decoder_bias", default=True):
            head += weight("decoder.bias", words[0].shape[:1], "head", "head")
    return msgspec.structs.replace(whole, blocks=(*whole.blocks, block("output", head)))


def nomic_bert(cfg: Config) -> Anatomy:
    """BERT with rotary positions, no biases, and a gated feed-forward (`fc11` and `fc12`)."""
    s = sizes(cfg)

    def layer(_: str) -> list[Part]:
        return [
            fused_attention(two_way(s.heads, s.hidden), s.hidden, qkv="attn.Wqkv", output="attn.out_proj"),
            gated_mlp(s.hidden, s.ffn, names=("fc12", "fc11", "fc2")),
            layer_norm("norm1", s.hidden),
            layer_norm("norm2", s.hidden),
        ]

    head = LanguageHead(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.layer_norm",
        "cls.predictions.decoder",
        "cls.predictions.bias",
    )
    twist = Bert(root="nomic_bert", head=head, pooler="", stack="encoder.layers", positions="", norm="emb_ln")
    return bert_like(cfg, twist, layer=layer)


def jina_embeddings_v3(cfg: Config) -> Anatomy:
    """XLM-RoBERTa with rotary positions and one projection for queries, keys and values."""
    s = sizes(cfg)

    def layer(_: str) -> list[Part]:
        mixer = two_way(s.heads, s.hidden)
        return [
            fused_attention(mixer, s.hidden, qkv="mixer.Wqkv", output="mixer.out_proj", bias=True, output_bias=True),
            plain_mlp(s.hidden, s.ffn),
            layer_norm("norm1", s.hidden),
            layer_norm("norm2", s.hidden),
        ]

    twist = Bert(
        root="roberta",
        head=ROBERTA_HEAD,
        stack="encoder.layers",
        positions="",
        norm="emb_ln",
        classifier=ROBERTA_CLASSIFIER,
    )
    return bert_like(cfg, twist, layer=layer)


def jina_adapters(cfg: Config, whole: Anatomy) -> Anatomy:
    """The five task adapters of jina-embeddings-v3 beside every table and projection: tasks · rank · (rows + columns).

    The published file holds them under `parametrizations`; transformers' own class leaves them out.
    """
    tasks, rank = len(cfg.list("lora_adaptations")), cfg.int("lora_rank", default=4)
    if not tasks:
        return whole
    adapted = (
        tensor
        for part in whole.blocks
        for tensor in part.tensors
        if len(tensor.shape) == 2 and tensor.role in {"embedding", "attention", "mlp", "head"} and not tensor.tied_to
        for _ in part.layers or (0,)
    )
    rows = sum(sum(tensor.shape) for tensor in adapted)
    adapters = block("task adapters", weight("parametrizations.lora", (tasks * rank, rows), "mlp", "lora"))
    return msgspec.structs.replace(whole, blocks=(*whole.blocks, adapters))


def gte(cfg: Config, root: str = "gte") -> Anatomy:
    """BERT with rotary positions and a gated feed-forward in one matrix."""
    s = sizes(cfg)

    def layer(_: str) -> list[Part]:
        up = linear("mlp.up_gate_proj", 2 * s.ffn, s.hidden, "mlp", "gate_up")
        down = linear("mlp.down_proj", s.hidden, s.ffn, "mlp", "down", bias=True)
        forward = gated_mlp(s.hidden, s.ffn, activation="gelu").feed_forward
        return [
            fused_attention(
                two_way(s.heads, s.hidden),
                s.hidden,
                qkv="attention.qkv_proj",
                output="attention.o_proj",
                bias=True,
                output_bias=True,
            ),
            Part((*up, *down), feed_forward=forward),
            layer_norm("attn_ln", s.hidden),
            layer_norm("mlp_ln", s.hidden),
        ]

    head = LanguageHead("lm_head.dense", "lm_head.norm", "lm_head.decoder", "lm_head.decoder.bias")
    return bert_like(cfg, Bert(root=root, head=head, pooled="classifier", positions=""), layer=layer)


def new(cfg: Config) -> Anatomy:
    """GTE as its authors' own class names it."""
    return gte(cfg, "new")


def eurobert(cfg: Config) -> Anatomy:
    """Llama that sees both ways."""
    whole = llama(cfg, "model")
    blocks = bidirectional(whole.blocks)
    if class_of(cfg, "ForMaskedLM").endswith("Model"):
        blocks = _without_head(blocks)
    return msgspec.structs.replace(whole, blocks=blocks)


def _without_head(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    return tuple(
        msgspec.structs.replace(
            b,
            tensors=tuple(
                msgspec.structs.replace(t, name=t.name.removeprefix("model.")) for t in b.tensors if t.role != "head"
            ),
        )
        for b in blocks
    )
