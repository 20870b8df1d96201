"""Find a model of the catalogue by any name that people use: id, name without maker, Ollama tag, loose spelling."""

from __future__ import annotations

from functools import lru_cache

from sizeup.models.catalogue.entry import Entry, entries

#: Endings that people leave out: `qwen3-8b` also means the instruct model when there is no other.
_ENDINGS = ("instruct", "it", "chat", "hf")


def find(name: str) -> Entry | None:
    """The entry of that name, or None. Exact names win over loose ones; a loose name must mean one model only."""
    key = name.strip().lower()
    exact = _exact().get(key)
    if exact is not None:
        return exact
    matches = _loose().get(_squeeze(key.rpartition("/")[2]), ())
    return matches[0] if len(matches) == 1 else None


def nearest(name: str, count: int = 3) -> list[str]:
    """The ids of the catalogue nearest in spelling, best first."""
    import difflib

    key = _squeeze(name.rpartition("/")[2])
    loose = _loose()
    starting = [entry.id for spelled, found in loose.items() if key and spelled.startswith(key) for entry in found]
    close = [e.id for spelled in difflib.get_close_matches(key, loose, n=count, cutoff=0.6) for e in loose[spelled]]
    return list(dict.fromkeys([*starting, *close]))[:count]


def _squeeze(name: str) -> str:
    """A spelling without case, punctuation and blanks: `Llama-3.1 8B` → `llama31 8b` → `llama318b`."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


@lru_cache(maxsize=1)
def _exact() -> dict[str, Entry]:
    names: dict[str, Entry] = {}
    for entry in entries():
        for name in (entry.id, entry.id.rpartition("/")[2], entry.ollama_tag):
            if name:
                names.setdefault(name.lower(), entry)
    return names


@lru_cache(maxsize=1)
def _loose() -> dict[str, tuple[Entry, ...]]:
    names: dict[str, list[Entry]] = {}
    for entry in entries():
        spelled = entry.id.rpartition("/")[2].lower()
        keys = {_squeeze(spelled)}
        for ending in _ENDINGS:
            if spelled.endswith(f"-{ending}"):
                keys.add(_squeeze(spelled[: -len(ending) - 1]))
        for key in keys:
            names.setdefault(key, []).append(entry)
    return {key: tuple(found) for key, found in names.items()}
