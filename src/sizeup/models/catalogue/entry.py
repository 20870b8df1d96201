"""The built-in catalogue: models that people run, each with its configuration and facts, each fact with its source.

People edit `models/*.toml`; `scripts/build_catalogue.py` checks them and writes `catalogue.json`, which is loaded here,
once, when first asked for.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from sizeup.models.model import Facts, Score

_FILE = Path(__file__).with_name("catalogue.json")


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One model that people run.

    config: its configuration, without what no count depends on. context: the longest sequence its makers name.
    hub_parameters: the total its Hub page shows (stored elements, not always parameters).
    base_model: the model it was made from, by tuning or pruning. source: where the facts are from.
    """

    id: str
    family: str
    config: dict[str, Any]
    source: str
    licence: str | None = None
    base_model: str | None = None
    prompt_template: str | None = None
    released: str | None = None
    context: int | None = None
    hub_parameters: int | None = None
    ollama_tag: str | None = None
    modalities: tuple[str, ...] = ("text",)
    capabilities: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()

    @property
    def facts(self) -> Facts:
        """What is known beside the tensors."""
        return Facts(
            licence=self.licence,
            base_model=self.base_model,
            prompt_template=self.prompt_template,
            released=self.released,
            languages=self.languages,
            modalities=self.modalities,
            capabilities=self.capabilities,
            ollama_tag=self.ollama_tag,
            scores=self.scores,
            source=self.source,
        )


@lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """Every model of the catalogue, in the order of the files."""
    return msgspec.json.decode(_FILE.read_bytes(), type=tuple[Entry, ...])
