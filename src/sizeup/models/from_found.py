"""From what a source found to a model: the best road that the findings allow."""

from __future__ import annotations

import msgspec

from sizeup.errors import NotFound
from sizeup.models.from_config import model_from_config
from sizeup.models.model import Facts, Model
from sizeup.models.prompt_template import template_family
from sizeup.models.sources.found import Facts as SourceFacts
from sizeup.models.sources.found import Found


def model_from_found(found: Found) -> Model:
    """Real headers when there are any, else the configuration's anatomy. Raises NotFound when there is neither."""
    if found.header is not None and found.header.kind == "gguf":
        from sizeup.models.from_gguf import model_from_gguf

        model = model_from_gguf(found.header, found.name, found.origin)
    elif found.header is not None:
        from sizeup.models.from_safetensors import model_from_safetensors

        model = model_from_safetensors(found.header, found.config, found.name)
    elif found.config is not None:
        model = model_from_config(found.config, found.name, found.origin)
    else:
        raise NotFound(f"{found.origin} holds neither a configuration nor weights", hint="give another model")
    facts = merged_facts(model.facts, found.facts)
    return msgspec.structs.replace(model, origin=found.origin, facts=facts)


def merged_facts(own: Facts, source: SourceFacts) -> Facts:
    """A model's facts with what its source says; the source wins, since people correct model cards."""
    template = template_family(source.chat_template) if source.chat_template else None
    return msgspec.structs.replace(
        own,
        licence=source.licence or own.licence,
        base_model=next(iter(source.base_models), None) or own.base_model,
        prompt_template=template or own.prompt_template,
        released=own.released or source.created,
        languages=source.languages or own.languages,
    )
