"""BERT and the encoders that differ from it by a named twist; each with the head that its class has.

`architectures` decides: `…Model` stands alone and has a pooler, `…ForMaskedLM` (assumed when nothing is said) and
`…ForCausalLM` have a language head over the tied word table, `…ForSequenceClassification` and the like a classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sizeup.models.anatomy.family import Anatomy, Sizes, sizes
from sizeup.models.anatomy.parts import (
    Part,
    Tensors,
    block,
    gated_mlp,
    linear,
    norm_tensors,
    plain_mlp,
    stack_of,
    weight,
)
from sizeup.models.anatomy.towers import (
    class_of,
    conv,
    crossing,
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
from sizeup.models.tensors import Tensor

BERT_PROJECTIONS = ("self.query", "self.key", "self.value", "output.dense")
POOLED = ("classifier",)
ROBERTA_CLASSIFIER = ("classifier.dense", "classifier.out_proj")


class LanguageHead(msgspec.Struct, frozen=True):
    """Names of a language head: a projection and a norm before the word table, and its bias.

    Without a name there is no such module (no `decoder`: the word table itself is used). A bias that isn't
    `decoder.bias` is tied to that.
    """

    dense: str
    norm: str
    decoder: str
    bias: str


CLS_HEAD = LanguageHead(
    "cls.predictions.transform.dense",
    "cls.predictions.transform.LayerNorm",
    "cls.predictions.decoder",
    "cls.predictions.bias",
)
ROBERTA_HEAD = LanguageHead("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias")
ELECTRA_HEAD = LanguageHead(
    "generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head", "generator_lm_head.bias"
)


class Bert(msgspec.Struct, frozen=True):
    """What a family changes about BERT.

    root: the encoder's module. head: its language head. pooler: '' for none; pooled: the classes that have it, which
    are the bare encoder and classifiers (`usual`), all (`always`) or classifiers alone (`classifier`). stack: where the
    layers are. words, positions, types, norm: of the embeddings; '' for none. offset: rows of the position table before
    position 0. width: of the embedding table, projected by `projection` when it isn't the hidden size. classifier: its
    projections; the only one stands over the pooler. after: a norm after the layers.
    """

    root: str = "bert"
    head: LanguageHead = CLS_HEAD
    pooler: str = "pooler.dense"
    pooled: str = "usual"
    stack: str = "encoder.layer"
    words: str = "embeddings.word_embeddings"
    positions: str = "embeddings.position_embeddings"
    types: str = "embeddings.token_type_embeddings"
    norm: str = "embeddings.LayerNorm"
    offset: int = 0
    width: int | None = None
    projection: str = ""
    classifier: tuple[str, ...] = POOLED
    after: str = ""


def bert_layer(
    cfg: Config,
    s: Sizes,
    *,
    names: Sequence[str] = BERT_PROJECTIONS,
    extra: Tensors = (),
    norms: Sequence[str] = ("attention.output.LayerNorm", "output.LayerNorm"),
    window: int | None = None,
    attention: Part | None = None,
) -> list[Part]:
    """Attention and a plain feed-forward with a norm each; cross-attention when the configuration adds it."""
    causal = cfg.bool("is_decoder", default=False)
    mixer = Attention(s.heads, s.heads, s.head_dim, s.head_dim, window=window, causal=causal)
    parts = [attention or projected_attention(mixer, s.hidden, name="attention", names=names, extra=extra)]
    if cfg.bool("add_cross_attention", default=False):
        cross = crossing(s.heads, s.hidden, head_dim=s.head_dim)
        source = cfg.optional_int("encoder_hidden_size")
        parts += [
            projected_attention(cross, s.hidden, name="crossattention", names=names, source=source),
            layer_norm("crossattention.output.LayerNorm", s.hidden),
        ]
    return [
        *parts,
        plain_mlp(s.hidden, s.ffn, name="", names=("intermediate.dense", "output.dense")),
        *(layer_norm(name, s.hidden) for name in norms),
    ]


def bert_like(
    cfg: Config,
    twist: Bert,
    *,
    s: Sizes | None = None,
    layer: Callable[[str], Sequence[Part]] | None = None,
    kinds: Sequence[str] = (),
    embeddings: Tensors = (),
    around: Tensors = (),
    prefix: str | None = None,
    notes: tuple[str, ...] = (),
) -> Anatomy:
    """BERT with a twist and the head of its class.

    layer, kinds: the parts of a layer and the kinds of all layers. embeddings, around: further tensors of the
    embeddings and around the layers, named from the encoder on. prefix: for a bare encoder inside another model.
    """
    s = s or sizes(cfg)
    name = class_of(cfg, "ForMaskedLM") if prefix is None else "Model"
    bare = name.endswith(("Model", "Encoder")) and not name.endswith("LMHeadModel")
    root = prefix if prefix is not None else "" if bare else twist.root
    width = twist.width or s.hidden
    words = table(prefixed(root, twist.words), s.vocabulary, width, "tokens")
    pooler: Tensors = ()
    if twist.pooler and _pools(name, twist, bare=bare):
        pooler = linear(prefixed(root, twist.pooler), s.hidden, s.hidden, "head", "pooler", bias=True)
    blocks = (
        block("embedding", words, under(root, (*_embeddings(cfg, s, twist, width), *embeddings))),
        *stack_of(
            prefixed(root, twist.stack),
            kinds or [""] * s.layers,
            layer or (lambda _: bert_layer(cfg, s)),
            stack="encoder",
            label=lambda kind: f"{kind} encoder layer".strip(),
        ),
        block("encoder frame", under(root, (*_after(s, twist), *around)), stack="encoder"),
        block("output", pooler, () if bare else _head(cfg, name, s, twist, words[0], width)),
    )
    return Anatomy(tuple(b for b in blocks if b.tensors), s.hidden, s.vocabulary, s.context, notes)


def _pools(name: str, twist: Bert, *, bare: bool) -> bool:
    if bare:
        return twist.pooled != "classifier"
    over = name.endswith(("ForSequenceClassification", "ForPreTraining")) and twist.classifier == POOLED
    return over or twist.pooled == "always"


def _embeddings(cfg: Config, s: Sizes, twist: Bert, width: int) -> Tensors:
    tensors: Tensors = ()
    if twist.positions and s.context:
        tensors += table(twist.positions, s.context + twist.offset, width)
    if twist.types and (types := cfg.int("type_vocab_size", min=0, default=0)):
        tensors += table(twist.types, types, width, "token_types")
    if twist.norm:
        tensors += norm_tensors(twist.norm, width, bias=True)
    if twist.projection and width != s.hidden:
        tensors += linear(twist.projection, s.hidden, width, "embedding", "projection", bias=True)
    return tensors


def _after(s: Sizes, twist: Bert) -> Tensors:
    return norm_tensors(twist.after, s.hidden, bias=True) if twist.after else ()


def _head(cfg: Config, name: str, s: Sizes, twist: Bert, words: Tensor, width: int) -> Tensors:
    """The head of the class: over the vocabulary, over labels, or the two ends of an answer."""
    if name.endswith("ForSequenceClassification"):
        *inner, last = twist.classifier
        dense = (linear(module, s.hidden, s.hidden, "head", "transform", bias=True) for module in inner)
        return (*(tensor for tensors in dense for tensor in tensors), *_classifier(last, labels_of(cfg), s))
    if name.endswith("ForTokenClassification"):
        return _classifier("classifier", labels_of(cfg), s)
    if name.endswith("ForQuestionAnswering"):
        return _classifier("qa_outputs", 2, s)
    head = language_head(twist.head, words, s.hidden, width, tied=cfg.bool("tie_word_embeddings", default=True))
    pairs = linear("cls.seq_relationship", 2, s.hidden, "head", "classifier", bias=True)
    return (*head, *(pairs if name.endswith("ForPreTraining") and twist.head is CLS_HEAD else ()))


def _classifier(name: str, labels: int, s: Sizes) -> Tensors:
    return linear(name, labels, s.hidden, "head", "classifier", bias=True)


def language_head(names: LanguageHead, words: Tensor, hidden: int, width: int, *, tied: bool = True) -> Tensors:
    """A projection from hidden to the embedding's width, a norm, and the word table again with a bias."""
    vocabulary = words.shape[0]
    tensors: Tensors = ()
    if names.dense:
        tensors += linear(names.dense, width, hidden, "head", "transform", bias=True)
        tensors += norm_tensors(names.norm, width, bias=True)
    tensors += weight(names.bias, (vocabulary,), "head", "head")
    if not names.decoder:
        return tensors
    tied_to = words.name if tied else ""
    tensors += (Tensor(f"{names.decoder}.weight", words.shape, "head", "head", tied_to=tied_to),)
    if names.bias != f"{names.decoder}.bias":
        again = names.bias if tied else ""
        tensors += (Tensor(f"{names.decoder}.bias", (vocabulary,), "head", "head", tied_to=again),)
    return tensors


def bert(cfg: Config, prefix: str | None = None) -> Anatomy:
    """Learned positions and token types, a norm after each half, a pooler over the first token.

    With a gated feed-forward it is jina-embeddings-v2, which is published under this model type.
    """
    if cfg.get("feed_forward_type") in GATED:
        return jina_bert(cfg)
    return bert_like(cfg, Bert(), prefix=prefix)


GATED = ("glu", "geglu", "reglu", "swiglu")


def jina_bert(cfg: Config) -> Anatomy:
    """BERT with ALiBi positions, gate and up in one matrix. The file has the pooler and no language head."""
    s = sizes(cfg)
    tensors = (
        *linear("mlp.gated_layers", 2 * s.ffn, s.hidden, "mlp", "gate_up"),
        *linear("mlp.wo", s.hidden, s.ffn, "mlp", "down", bias=True),
    )
    forward = gated_mlp(s.hidden, s.ffn, activation="gelu").feed_forward

    def layer(_: str) -> list[Part]:
        return [
            projected_attention(two_way(s.heads, s.hidden), s.hidden, name="attention", names=BERT_PROJECTIONS),
            Part(tensors, feed_forward=forward),
            layer_norm("attention.output.LayerNorm", s.hidden),
            layer_norm("mlp.layernorm", s.hidden),
        ]

    bare = Config(cfg.data | {"architectures": ["JinaBertModel"]}, cfg.origin, cfg.path)
    return bert_like(bare, Bert(positions=""), layer=layer)


def ernie(cfg: Config) -> Anatomy:
    """BERT; with `use_task_id`, a table of tasks beside it."""
    tasks: Tensors = ()
    if cfg.bool("use_task_id", default=False):
        tasks = table("embeddings.task_type_embeddings", cfg.int("task_type_vocab_size"), sizes(cfg).hidden, "tasks")
    return bert_like(cfg, Bert(root="ernie"), embeddings=tasks)


def megatron_bert(cfg: Config) -> Anatomy:
    """BERT with norms before the halves and after the last layer instead of after each."""
    s = sizes(cfg)
    norms = ("attention.ln", "ln")
    return bert_like(cfg, Bert(norm="", after="encoder.ln"), layer=lambda _: bert_layer(cfg, s, norms=norms))


def big_bird(cfg: Config) -> Anatomy:
    """BERT with block-sparse attention; its pooler is there under every head."""
    return bert_like(cfg, Bert(pooler="pooler", pooled="always", classifier=ROBERTA_CLASSIFIER))


def mra(cfg: Config) -> Anatomy:
    """BERT with attention at several resolutions, and two rows before position 0 (also YOSO, Nyströmformer)."""
    ids = weight("embeddings.position_ids", (1, sizes(cfg).context or 1), "buffer", "positions")
    return bert_like(cfg, Bert(root="mra", pooler="", offset=2), embeddings=ids)


def yoso(cfg: Config) -> Anatomy:
    """BERT with sampled attention, and two rows before position 0."""
    return bert_like(cfg, Bert(root="yoso", pooler="", offset=2))


def nystromformer(cfg: Config) -> Anatomy:
    """BERT with attention over landmarks and a convolution over values."""
    s = sizes(cfg)
    kernel = cfg.optional_int("conv_kernel_size")
    over = conv("attention.self.conv", s.heads, 1, kernel, 1, role="attention", bias=False) if kernel else ()
    return bert_like(
        cfg, Bert(root="nystromformer", pooler="", offset=2), layer=lambda _: bert_layer(cfg, s, extra=over)
    )


def layoutlm(cfg: Config) -> Anatomy:
    """BERT with four tables of places on the page."""
    s, rows = sizes(cfg), cfg.int("max_2d_position_embeddings")
    places = (table(f"embeddings.{axis}_position_embeddings", rows, s.hidden) for axis in "xyhw")
    return bert_like(cfg, Bert(root="layoutlm", pooled="always"), embeddings=tuple(t for axis in places for t in axis))


def roformer(cfg: Config) -> Anatomy:
    """BERT with rotary positions, stored as a table of angles."""
    s = sizes(cfg)
    twist = Bert(
        root="roformer",
        pooler="",
        positions="",
        width=cfg.int("embedding_size", default=s.hidden),
        projection="embeddings_project",
        classifier=ROBERTA_CLASSIFIER,
    )
    return bert_like(cfg, twist, around=table("encoder.embed_positions", s.context or 1, s.head_dim))


def bert_generation(cfg: Config) -> Anatomy:
    """BERT as a generator: no token types, no pooler, the word table as its only head."""
    head = LanguageHead("", "", "lm_head.decoder", "lm_head.bias")
    return bert_like(cfg, Bert(head=head, pooler="", types=""))


def electra(cfg: Config) -> Anatomy:
    """BERT with a narrower embedding; the discriminator (`ForPreTraining`) judges each token."""
    s = sizes(cfg)
    twist = Bert(
        root="electra",
        head=ELECTRA_HEAD,
        pooler="",
        width=cfg.int("embedding_size", default=s.hidden),
        projection="embeddings_project",
        classifier=ROBERTA_CLASSIFIER,
    )
    if class_of(cfg, "").endswith("ForPreTraining"):
        whole = bert_like(cfg, twist, prefix="electra")
        judge = (
            *linear("discriminator_predictions.dense", s.hidden, s.hidden, "head", "transform", bias=True),
            *linear("discriminator_predictions.dense_prediction", 1, s.hidden, "head", "classifier", bias=True),
        )
        return msgspec.structs.replace(whole, blocks=(*whole.blocks, block("output", judge)))
    return bert_like(cfg, twist)


def rembert(cfg: Config) -> Anatomy:
    """BERT with a narrow embedding and a wide head of its own."""
    s, wide = sizes(cfg), cfg.int("output_embedding_size")
    twist = Bert(
        root="rembert", width=cfg.int("input_embedding_size"), projection="encoder.embedding_hidden_mapping_in"
    )
    if class_of(cfg, "ForMaskedLM").endswith(("Model", "Classification", "Answering", "Choice")):
        return bert_like(cfg, twist)
    whole = bert_like(cfg, twist, prefix="rembert")
    head = (
        *linear("cls.predictions.dense", wide, s.hidden, "head", "transform", bias=True),
        *norm_tensors("cls.predictions.LayerNorm", wide, bias=True),
        *linear("cls.predictions.decoder", s.vocabulary, wide, "head", "head", bias=True),
    )
    return msgspec.structs.replace(whole, blocks=(*whole.blocks[:-1], block("output", head)))


def albert(cfg: Config) -> Anatomy:
    """BERT whose layers share their parameters, within a few groups; a narrow embedding."""
    s = sizes(cfg)
    groups, inner = cfg.int("num_hidden_groups", max=s.layers), cfg.int("inner_group_num", max=1000)

    def group(_: str) -> list[Part]:
        names = ("attention.query", "attention.key", "attention.value", "attention.dense")
        return [
            part
            for number in range(inner)
            for part in (
                projected_attention(two_way(s.heads, s.hidden), s.hidden, name=f"albert_layers.{number}", names=names),
                layer_norm(f"albert_layers.{number}.attention.LayerNorm", s.hidden),
                plain_mlp(s.hidden, s.ffn, name=f"albert_layers.{number}", names=("ffn", "ffn_output")),
                layer_norm(f"albert_layers.{number}.full_layer_layer_norm", s.hidden),
            )
        ]

    twist = Bert(
        root="albert",
        head=LanguageHead("predictions.dense", "predictions.LayerNorm", "predictions.decoder", "predictions.bias"),
        pooler="pooler",
        stack="encoder.albert_layer_groups",
        width=cfg.int("embedding_size"),
        projection="encoder.embedding_hidden_mapping_in",
    )
    shared = f"{s.layers} layers share the parameters of {groups}: work and caches are those of {s.layers}"
    return bert_like(cfg, twist, layer=group, kinds=[""] * groups, notes=(shared,))


def distilbert(cfg: Config) -> Anatomy:
    """BERT without token types and pooler, under shorter names."""
    named = {"hidden_size": cfg.int("dim"), "intermediate_size": cfg.int("hidden_dim")}
    s = sizes(Config(cfg.data | named, cfg.origin, cfg.path))

    def layer(_: str) -> list[Part]:
        names = ("q_lin", "k_lin", "v_lin", "out_lin")
        return [
            projected_attention(two_way(s.heads, s.hidden), s.hidden, name="attention", names=names),
            layer_norm("sa_layer_norm", s.hidden),
            plain_mlp(s.hidden, s.ffn, name="ffn", names=("lin1", "lin2")),
            layer_norm("output_layer_norm", s.hidden),
        ]

    head = LanguageHead("vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias")
    twist = Bert(
        root="distilbert",
        head=head,
        pooler="",
        stack="transformer.layer",
        types="",
        classifier=("pre_classifier", "classifier"),
    )
    return bert_like(cfg, twist, s=s, layer=layer)
