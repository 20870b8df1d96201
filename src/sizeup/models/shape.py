"""A hypothetical model, typed by hand: `layers=12,embedding=512,heads=8,vocabulary=50000`.

    field               default                          aliases
    layers              required                         n_layers, depth
    embedding           required                         hidden, width, d_model
    heads               required
    vocabulary          required                         vocab
    kv_heads            heads                            (grouped queries when fewer)
    head_dim            embedding / heads
    gated               yes                              (gate, up and down projections; no: up and down)
    ffn                 8/3 · embedding, rounded up to a multiple of 256 when gated; 4 · embedding when plain
    experts             0                                (every layer a mixture)
    experts_per_token   2                                active_experts
    expert_ffn          ffn
    shared_experts      0
    tied                no                               (the head shares the embedding's values)
    qkv_bias            no
    context             unknown
    window              none                             (sliding window in every layer)

The layers are llama's: RMS norm before each half, rotary positions, no other biases.
"""

from __future__ import annotations

import msgspec

from sizeup.errors import BadInput
from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.parts import (
    Part,
    attention,
    block,
    gated_mlp,
    head,
    mixture,
    norm,
    plain_mlp,
    stack_of,
    weight,
)
from sizeup.models.config import MAX_DIMENSION, MAX_EXPERTS, MAX_LAYERS
from sizeup.models.mixers import Attention
from sizeup.models.model import Model
from sizeup.quantity.units import parse_tokens


class Shape(msgspec.Struct, frozen=True):
    """The sizes of a decoder; the module says what each one defaults to."""

    layers: int
    embedding: int
    heads: int
    vocabulary: int
    kv_heads: int
    head_dim: int
    ffn: int
    gated: bool = True
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int = 0
    shared_experts: int = 0
    tied: bool = False
    qkv_bias: bool = False
    context: int | None = None
    window: int | None = None


_ALIASES = {
    "n_layers": "layers", "depth": "layers",
    "hidden": "embedding", "width": "embedding", "d_model": "embedding", "embed": "embedding",
    "vocab": "vocabulary", "vocab_size": "vocabulary",
    "active_experts": "experts_per_token",
    "n_heads": "heads", "n_kv_heads": "kv_heads",
}  # fmt: skip
_REQUIRED = ("layers", "embedding", "heads", "vocabulary")
_FLAGS = frozenset({"gated", "tied", "qkv_bias"})
_MAY_BE_ZERO = frozenset({"experts", "experts_per_token", "shared_experts"})
_LIMITS = {
    "layers": MAX_LAYERS,
    "experts": MAX_EXPERTS,
    "experts_per_token": MAX_EXPERTS,
    "shared_experts": MAX_EXPERTS,
}
_WORDS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def looks_like_shape(text: str) -> bool:
    """Whether a model reference is a shape: it assigns something, and isn't a path."""
    return "=" in text and "/" not in text and "\\" not in text


def model_from_shape(text: str) -> Model:
    """The model of a shape. Raises BadInput for unknown, missing, contradictory or impossible values."""
    shape, assumed = read_shape(text)
    anatomy = decoder(shape)
    return Model(
        name=text.replace(" ", ""),
        family="shape",
        blocks=anatomy.blocks,
        hidden=shape.embedding,
        vocabulary=shape.vocabulary,
        context=shape.context,
        road="shape",
        origin="typed by hand",
        notes=(_describe(shape), *assumed),
    )


def read_shape(text: str) -> tuple[Shape, tuple[str, ...]]:
    """The shape in a text, and a sentence for each size that was assumed."""
    given = _parse(text)
    missing = [name for name in _REQUIRED if name not in given]
    if missing:
        raise BadInput(f"the shape has no {' and no '.join(missing)}: {text!r}", hint=f"add {missing[0]}=…")
    if given.get("experts_per_token") and not given.get("experts"):
        raise BadInput("experts_per_token is given without experts", hint="add experts=…")
    if given.get("expert_ffn") and not given.get("experts"):
        raise BadInput("expert_ffn is given without experts", hint="add experts=…")
    assumed: list[str] = []
    values = _with_defaults(given, assumed)
    shape = msgspec.convert(values, Shape)
    _check(shape)
    return shape, tuple(assumed)


def _parse(text: str) -> dict[str, int]:
    given: dict[str, int] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        key, assigned, value = (side.strip() for side in item.partition("="))
        name = _ALIASES.get(key.lower(), key.lower())
        if not assigned or name not in Shape.__struct_fields__:
            raise BadInput(f"the shape has an unknown entry: {item[:80]!r}", hint=_did_you_mean(name))
        if name in given:
            raise BadInput(f"the shape gives {name} twice", hint=f"remove one {name}")
        given[name] = _value(name, value)
    return given


def _value(name: str, text: str) -> int:
    if name in _FLAGS:
        if text.lower() not in _WORDS:
            raise BadInput(f"{name} is {text[:80]!r} in the shape; it must be yes or no", hint=f"write {name}=yes")
        return _WORDS[text.lower()]
    if name in {"context", "window"}:
        return parse_tokens(text)
    digits = text.replace("_", "")
    limit = _LIMITS.get(name, MAX_DIMENSION)
    low = 0 if name in _MAY_BE_ZERO else 1
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20 and low <= int(digits) <= limit):
        raise BadInput(
            f"{name} is {text[:80]!r} in the shape; it must be a whole number from {low} to {limit:,}",
            hint=f"correct {name}",
        )
    return int(digits)


def _with_defaults(given: dict[str, int], assumed: list[str]) -> dict[str, int]:
    values = dict(given)
    width, heads = values["embedding"], values["heads"]
    if "head_dim" not in values and width % heads:
        raise BadInput(f"embedding {width:,} is not a multiple of heads {heads}", hint="change one, or give head_dim=…")
    values.setdefault("kv_heads", heads)
    values.setdefault("head_dim", width // heads)
    if "ffn" not in values:
        gated = values.get("gated", True)
        values["ffn"] = gated_width(width) if gated else 4 * width
        how = "8/3 · embedding, rounded up to a multiple of 256" if gated else "4 · embedding"
        assumed.append(f"ffn {values['ffn']:,} assumed: {how}")
    if values.get("experts"):
        if not values.get("experts_per_token"):
            values["experts_per_token"] = min(2, values["experts"])
            assumed.append(f"experts_per_token {values['experts_per_token']} assumed")
        if "expert_ffn" not in values:
            values["expert_ffn"] = values["ffn"]
            assumed.append(f"expert_ffn {values['ffn']:,} assumed: as ffn")
    if "tied" not in values:
        assumed.append("a head of its own assumed: tied=yes shares the embedding's values")
    return values


def gated_width(embedding: int) -> int:
    """⌈(8/3 · embedding) / 256⌉ · 256: a gated feed-forward with the parameters of a plain one of 4 · embedding.

    Source: LLaMA (Touvron et al. 2023), section 2.2, and its reference code's multiple of 256.
    """
    return -(-(8 * embedding // 3) // 256) * 256


def _check(shape: Shape) -> None:
    if shape.heads % shape.kv_heads:
        raise BadInput(
            f"heads {shape.heads} is not a multiple of kv_heads {shape.kv_heads}", hint="change heads or kv_heads"
        )
    if shape.experts_per_token > shape.experts:
        raise BadInput(
            f"experts_per_token {shape.experts_per_token} is more than experts {shape.experts}",
            hint="change experts or experts_per_token",
        )
    if shape.shared_experts and not shape.experts:
        raise BadInput("shared_experts is given without experts", hint="add experts=…")


def decoder(shape: Shape) -> Anatomy:
    """A llama-like decoder of that shape."""
    s = shape
    mixer = Attention(s.heads, s.kv_heads, s.head_dim, s.head_dim, window=s.window)

    def feed_forward() -> Part:
        if s.experts:
            shared = (
                gated_mlp(s.embedding, s.shared_experts * s.expert_ffn, name="mlp.shared_experts", role="shared_expert")
                if s.shared_experts
                else None
            )
            return mixture(s.embedding, s.expert_ffn, s.experts, s.experts_per_token, shared=shared)
        return gated_mlp(s.embedding, s.ffn) if s.gated else plain_mlp(s.embedding, s.ffn, bias=False)

    def layer(_: str) -> list[Part]:
        return [
            attention(mixer, s.embedding, qkv_bias=s.qkv_bias),
            feed_forward(),
            norm("input_layernorm", s.embedding),
            norm("post_attention_layernorm", s.embedding),
        ]

    table = "model.embed_tokens.weight"
    blocks = (
        block("embedding", weight(table, (s.vocabulary, s.embedding), "embedding", "tokens")),
        *stack_of("model.layers", ["mixture" if s.experts else "dense"] * s.layers, layer),
        block(
            "output",
            norm("model.norm", s.embedding),
            head("lm_head", s.vocabulary, s.embedding, tied_to=table if s.tied else ""),
        ),
    )
    return Anatomy(blocks, s.embedding, s.vocabulary, s.context)


def _describe(shape: Shape) -> str:
    if shape.experts:
        forward = f"{shape.experts} gated experts of {shape.expert_ffn:,}, {shape.experts_per_token} for each token"
    else:
        forward = f"a {'gated' if shape.gated else 'plain'} feed-forward of {shape.ffn:,}"
    return f"llama-like layers: {shape.heads} heads of {shape.head_dim} on {shape.kv_heads} kv heads, {forward}"


def _did_you_mean(name: str) -> str:
    from difflib import get_close_matches

    fields = Shape.__struct_fields__
    near = get_close_matches(name[:80], [*fields, *_ALIASES], n=1)
    return f"did you mean {near[0]}=…?" if near else f"known entries: {', '.join(fields)}"
