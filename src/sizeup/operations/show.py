"""What a model is: parameters by component and kind of layer, bytes at every precision, cache, context, licence.

MODEL is a catalogue name, a Hub id, a folder, a config.json, .safetensors or .gguf file, or an Ollama tag. A
hypothetical model is typed by hand: --shape "layers=12,embedding=512,heads=8,vocabulary=50000".
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sizeup.engines.llamacpp.architectures import runs
from sizeup.engines.llamacpp.names import gguf_tensors, mix_hparams
from sizeup.errors import BadInput
from sizeup.estimate.memory_of_context import bytes_per_token, cache_term
from sizeup.estimate.weights import COMMON, checkpoint_bytes
from sizeup.formats.mixes import bytes_by_mix
from sizeup.models.active import ActiveParameters, active_parameters
from sizeup.models.catalogue.find import find
from sizeup.models.config import Config
from sizeup.models.count import by_component, role_sums, size_class
from sizeup.models.load import load_model
from sizeup.models.lora import ALL_LINEAR, lora_parameters
from sizeup.models.mixers import describe
from sizeup.models.model import Block, Facts, Model
from sizeup.models.reconcile import Reconciliation, explain, stored_elements
from sizeup.models.sources.resolve import resolve
from sizeup.models.verify import Difference, verify
from sizeup.operations.built_class import model_by_transformers
from sizeup.quantity import Term

#: llama.cpp mixes that people choose from.
GGUF = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K")
#: Contexts at which the cache is shown, as far as the model goes.
CONTEXTS = (2048, 8192, 32768, 131072)


class ShowRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which model."""

    model: Annotated[str | dict[str, Any], Meta(description="A catalogue name, Hub id, path, Ollama tag.")] = ""
    shape: Annotated[
        str, Meta(description="A hypothetical model: layers=12,embedding=512,heads=8,vocabulary=50000.")
    ] = ""
    verify: Annotated[str, Meta(description="Lay the headers in this folder beside the anatomy of its config.")] = ""
    transformers: Annotated[bool, Meta(description="Build the class with transformers (a worker, no weights).")] = False
    lora: Annotated[str, Meta(description="Count adapters on these targets: q_proj,v_proj or all-linear.")] = ""
    rank: Annotated[int, Meta(description="Rank of the adapters.", ge=1)] = 16
    offline: Annotated[bool, Meta(description="Never use the network.")] = False


class Parameters(msgspec.Struct, frozen=True):
    """How many, and where.

    total: as the model's class builds them. active: those that one token passes through, embeddings included.
    definitions: active parameters under each named definition. uncertainty: relative; 0 on every exact road.
    """

    total: int
    active: int
    size_class: str
    by_role: dict[str, int]
    definitions: ActiveParameters
    uncertainty: float
    tree: Term


class LayerKind(msgspec.Struct, frozen=True):
    """One kind of layer: how many there are, what they remember, and their parameters together."""

    name: str
    stack: str
    count: int
    mixers: tuple[str, ...]
    parameters: int


class CacheFacts(msgspec.Struct, frozen=True):
    """What the model remembers, in fp16.

    bytes_per_token: what one more token costs at short contexts; bytes_by_context: the whole, windows respected.
    """

    bytes_per_token: int
    bytes_by_context: dict[str, int]


class SideBySide(msgspec.Struct, frozen=True):
    """Headers beside the anatomy: what is missing, extra, of another shape or under another name."""

    tensors: int
    exact: bool
    missing: tuple[Difference, ...]
    extra: tuple[Difference, ...]
    reshaped: tuple[Difference, ...]
    renamed: tuple[Difference, ...]


class Shown(msgspec.Struct, frozen=True):
    """All that is known about a model before it runs.

    stored: the elements of its files, a line for all that isn't a parameter. hub: how the total that its Hub page
    shows comes about. lora: trainable parameters of adapters, when asked for. verification: when asked for.
    """

    model: str
    family: str
    architecture: str
    road: str
    origin: str
    dtype: str
    scheme: str | None
    parameters: Parameters
    bytes: dict[str, int]
    cache: CacheFacts
    layers: tuple[LayerKind, ...]
    context: int | None
    facts: Facts
    notes: tuple[str, ...]
    stored: Term
    hub: Reconciliation | None = None
    lora: Term | None = None
    verification: SideBySide | None = None
    schema: str = "sizeup.show/1"

    @property
    def exit_code(self) -> int:
        """0, or 3 when a verification found a difference."""
        return 0 if self.verification is None or self.verification.exact else 3


def show(request: ShowRequest) -> Shown:
    """Read the model and count everything."""
    if request.verify:
        return _verified(request)
    reference = _reference(request)
    network = not request.offline
    if request.transformers:
        model = model_by_transformers(reference, network=network)
    else:
        model = load_model(reference, network=network)
    found = shown(model)
    if request.lora:
        targets = request.lora if request.lora == ALL_LINEAR else tuple(request.lora.split(","))
        found = msgspec.structs.replace(found, lora=lora_parameters(model, targets, request.rank))
    return found


def _verified(request: ShowRequest) -> Shown:
    """The model of a folder, with its headers laid beside the anatomy."""
    resolved = resolve(request.verify, network=False)
    if resolved.header is None or resolved.config is None:
        raise BadInput(f"{request.verify} lacks a config.json or safetensors files", hint="give a folder that has both")
    compared = verify(resolved.header, Config(resolved.config, resolved.origin))
    side = SideBySide(
        compared.tensors, compared.exact, compared.missing, compared.extra, compared.reshaped, compared.renamed
    )
    return msgspec.structs.replace(shown(load_model(request.verify)), verification=side)


def shown(model: Model) -> Shown:
    """All that is known about a model that has been read."""
    active = active_parameters(model)
    parameters = Parameters(
        total=model.parameters,
        active=active.all,
        size_class=size_class(model.parameters),
        by_role=role_sums(model),
        definitions=active,
        uncertainty=model.uncertainty,
        tree=by_component(model),
    )
    return Shown(
        model=model.name,
        family=model.family,
        architecture=model.architecture,
        road=model.road,
        origin=model.origin,
        dtype=model.dtype,
        scheme=model.scheme,
        parameters=parameters,
        bytes=_bytes_by_format(model),
        cache=_cache(model),
        layers=tuple(_layer_kind(block) for block in model.blocks if block.layers),
        context=model.context,
        facts=model.facts,
        notes=model.notes,
        stored=stored_elements(model),
        hub=_hub(model),
    )


def _hub(model: Model) -> Reconciliation | None:
    """How the total on its Hub page comes about; None when the catalogue doesn't know the page."""
    entry = find(model.name)
    if entry is None or entry.hub_parameters is None or entry.hub_parameters == model.parameters:
        return None
    return explain(model, entry.hub_parameters)


def _reference(request: ShowRequest) -> str | dict[str, Any]:
    if request.model and request.shape:
        raise BadInput("both a model and --shape are given", hint="give one of them")
    return request.shape or request.model


def _bytes_by_format(model: Model) -> dict[str, int]:
    found = {name: checkpoint_bytes(model, name) for name in COMMON}
    if runs(model):
        written = [tensor.gguf for tensor in gguf_tensors(model)]
        found |= bytes_by_mix(GGUF, written, hparams=mix_hparams(model))
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _cache(model: Model) -> CacheFacts:
    contexts = [tokens for tokens in CONTEXTS if model.context is None or tokens <= model.context]
    if model.context and model.context not in contexts:
        contexts.append(model.context)
    return CacheFacts(
        bytes_per_token(model), {str(tokens): int(cache_term(model, tokens).value) for tokens in contexts}
    )


def _layer_kind(block: Block) -> LayerKind:
    return LayerKind(block.name, block.stack, block.count, tuple(map(describe, block.mixers)), block.parameters)
