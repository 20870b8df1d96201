"""From a catalogue entry to a model."""

from __future__ import annotations

import msgspec

from sizeup.models.catalogue.entry import Entry
from sizeup.models.from_config import model_from_config
from sizeup.models.model import Model

ORIGIN = "the catalogue"


def model_from_entry(entry: Entry) -> Model:
    """The entry's configuration as a model, with the entry's facts. Raises what `model_from_config` raises."""
    model = model_from_config(entry.config, name=entry.id, origin=f"{ORIGIN} ({entry.id})")
    return msgspec.structs.replace(model, facts=entry.facts, context=entry.context or model.context, origin=ORIGIN)
