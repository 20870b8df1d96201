"""How a model of several parts is put together: towers and a projector in front of a text model."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sizeup.models.anatomy.defaults import filled
from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.parts import Part, Tensors, block, linear, norm_tensors
from sizeup.models.anatomy.registry import anatomy_of, nested_anatomy
from sizeup.models.anatomy.towers import class_of, tower
from sizeup.models.config import Config
from sizeup.models.model import Block
from sizeup.models.tensors import Tensor


def text_config(cfg: Config, assumed: str = "", field: str = "text_config") -> Config:
    """The configuration of the text model: the nested one, or the fields of the outer one in older files.

    assumed: the model type of a text model that names none. The outer `tie_word_embeddings` decides, as in
    transformers; the nested `architectures` says nothing about the whole. Raises NotFound for a text model without an
    anatomy.
    """
    flat = cfg.has("hidden_size") and cfg.has("num_hidden_layers")
    nested = cfg if flat else cfg.sub(field)
    data = {name: value for name, value in nested.data.items() if name != "architectures"}
    if flat and assumed:
        data["model_type"] = assumed
    if cfg.has("tie_word_embeddings"):
        data["tie_word_embeddings"] = cfg.bool("tie_word_embeddings")
    text = Config(data, cfg.origin, nested.path)
    if anatomy_of(text.str("model_type", default=assumed)) is None:
        nested_anatomy(text, "", assumed)  # raises, and names the type
    return text


def part_config(cfg: Config, field: str, assumed: str) -> Config | None:
    """A nested configuration with its class's defaults, where the outer class has none for it; None when absent."""
    nested = cfg.optional_sub(field)
    return filled(nested, nested.str("model_type", default=assumed), nested=True) if nested else None


def composed(
    cfg: Config,
    parts: Iterable[Block],
    *,
    prefix: str,
    head: str = "lm_head",
    assumed: str = "",
    field: str = "text_config",
    text_type: str = "",
    notes: tuple[str, ...] = (),
) -> Anatomy:
    """Towers and projectors, then the text model under `prefix`, its head under the name `head`.

    assumed: the text's model type when it names none; text_type: its model type whatever it says.

    A bare `…Model` has no head, and its names have no `model.` in front.
    """
    inner = text_config(cfg, assumed, field)
    if text_type:
        inner = Config(inner.data | {"model_type": text_type}, inner.origin, inner.path)
    text = nested_anatomy(inner, prefix, assumed)
    if class_of(cfg, "").endswith("Model"):
        bare = (renamed(without_head(part), "model.", "") for part in (*parts, *text.blocks))
        blocks = tuple(part for part in bare if part.tensors)
    else:
        blocks = (*parts, *(renamed(part, "lm_head.", f"{head}.") for part in text.blocks))
    return Anatomy(blocks, text.hidden, text.vocabulary, text.context, (*notes, *text.notes))


def text_alone(cfg: Config, assumed: str = "", *, prefix: str = "model") -> Anatomy | None:
    """The text model by itself, when the class is `…ForCausalLM`; None for every other class."""
    if not class_of(cfg, "").endswith("ForCausalLM"):
        return None
    return nested_anatomy(text_config(cfg, assumed), prefix, assumed)


def renamed(part: Block, old: str, new: str) -> Block:
    """The block with `new` in place of the prefix `old`, in names and in what they are tied to."""

    def change(name: str) -> str:
        return new + name[len(old) :] if name and name.startswith(old) else name

    tensors = tuple(
        msgspec.structs.replace(tensor, name=change(tensor.name), tied_to=change(tensor.tied_to))
        for tensor in part.tensors
    )
    return msgspec.structs.replace(part, tensors=tensors)


def without_head(part: Block) -> Block:
    """The block without output projections."""
    return msgspec.structs.replace(part, tensors=tuple(tensor for tensor in part.tensors if tensor.role != "head"))


def projector(*groups: Tensors | Part, name: str = "projector") -> tuple[Block, ...]:
    """What carries the output of a tower into the text model; every tensor has the role `projector`."""
    return tower("projector", (block(name, *groups),))


def two_linears(
    name: str,
    hidden: int,
    inputs: int,
    *,
    middle: int | None = None,
    names: tuple[str, str] = ("linear_1", "linear_2"),
    bias: bool = True,
    norm: str = "",
    norm_bias: bool = True,
) -> Tensors:
    """LLaVA's projector: two projections with an activation between them; perhaps a norm over what comes in."""
    tensors = norm_tensors(f"{name}.{norm}", inputs, bias=norm_bias) if norm else ()
    tensors += linear(f"{name}.{names[0]}", middle or hidden, inputs, "projector", "up", bias=bias)
    return tensors + linear(f"{name}.{names[1]}", hidden, middle or hidden, "projector", "down", bias=bias)


def parameter(name: str, *shape: int, part: str = "") -> Tensors:
    """A tensor of a projector that belongs to no projection or norm."""
    return (Tensor(name, shape, "projector", part),)
