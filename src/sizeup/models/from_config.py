"""From a `config.json` to a model: its anatomy, its storage format, its quantization."""

from __future__ import annotations

from typing import Any

from sizeup.errors import BadInput, NotFound
from sizeup.formats import lookup
from sizeup.formats.checkpoint_configs import scheme_from_config
from sizeup.models.anatomy.family import Anatomy
from sizeup.models.anatomy.registry import anatomy_of
from sizeup.models.config import Config
from sizeup.models.generic import generic_anatomy, text_part, uncertainty_of
from sizeup.models.model import Model
from sizeup.models.model_type import model_type_of, nearest_types
from sizeup.models.quantized import quantized_blocks

ASSUMED_DTYPE = "bf16"
ASSUMPTION = f"the configuration names no storage format: {ASSUMED_DTYPE} assumed"
EXACT_ROADS = "exact roads: the model's safetensors or GGUF header, or the transformers worker"


def model_from_config(config: dict[str, Any] | Config, name: str = "", origin: str = "") -> Model:
    """The model that a configuration describes.

    name: how people call it; the configuration's `_name_or_path` or its model type otherwise.
    Raises BadConfig for missing or impossible fields, NotFound for an architecture that isn't known and whose sizes
    don't make a decoder.
    """
    cfg = config if isinstance(config, Config) else Config(config, origin or "the configuration")
    family = model_type_of(cfg)
    exact = _described(cfg, family)
    anatomy = exact or _estimate(cfg, family)
    dtype = storage_dtype(cfg)
    notes = () if dtype else (ASSUMPTION,)
    scheme = scheme_from_config(cfg.data)
    if scheme and not scheme.exact:
        notes = (*notes, f"{scheme.method} files are modelled by bits and groups only")
    return Model(
        name=name or cfg.optional_str("_name_or_path") or family,
        family=family,
        blocks=quantized_blocks(anatomy.blocks, scheme, anatomy.hidden) if scheme else anatomy.blocks,
        hidden=anatomy.hidden,
        vocabulary=anatomy.vocabulary,
        context=anatomy.context,
        road="anatomy" if exact else "generic",
        dtype=dtype or ASSUMED_DTYPE,
        scheme=scheme.name if scheme else None,
        architecture=(cfg.strs("architectures") or ("",))[0],
        origin=origin or cfg.origin,
        uncertainty=0.0 if exact else uncertainty_of(cfg),
        notes=(*anatomy.notes, *notes),
    )


def _described(cfg: Config, family: str) -> Anatomy | None:
    """The anatomy; None when the model type, or that of a part inside it, has none."""
    describe = anatomy_of(family)
    try:
        return describe(cfg) if describe else None
    except NotFound:
        return None


def storage_dtype(cfg: Config) -> str | None:
    """The format its tensors are stored in, in lower case (`bf16`); None when it names none that is known."""
    for part in (cfg, text_part(cfg)):
        named = part.optional_str("dtype", "torch_dtype")
        if named and named != "auto":
            try:
                return lookup(named).name.lower()
            except BadInput:
                raise part.bad("torch_dtype", named, "a number format such as bfloat16") from None
    return None


def _estimate(cfg: Config, family: str) -> Anatomy:
    near = nearest_types(family)
    known = f"nearest known: {', '.join(near)}" if near else "no known architecture has a similar name"
    anatomy = generic_anatomy(cfg)
    if anatomy is None:
        raise NotFound(
            f"no anatomy for model type {family[:80]!r} in {cfg.origin}, and its sizes don't make a decoder ({known})",
            hint=f"{EXACT_ROADS}; docs/adding-an-architecture.md says how to add one",
        )
    notes = [
        f"model type {family[:80]!r} has no anatomy: generic estimate of a decoder of these sizes; {known}",
        EXACT_ROADS,
    ]
    if text_part(cfg) is not cfg:
        notes.append("only the text decoder is estimated: towers and projectors aren't counted")
    return Anatomy(anatomy.blocks, anatomy.hidden, anatomy.vocabulary, anatomy.context, (*anatomy.notes, *notes))
