"""Models on this machine: a folder, a file, and the folders in which other programs keep what they downloaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sizeup.errors import BadFile, NotFound, SizeupError
from sizeup.models.config import MAX_CONFIG_BYTES, parse_config, read_config
from sizeup.models.sources import gguf, safetensors
from sizeup.models.sources.cache import is_commit
from sizeup.models.sources.environment import hub_caches, llama_cpp_folders, lm_studio_folders
from sizeup.models.sources.found import Facts, Found, facts_of_gguf, is_pickled, template_of
from sizeup.models.sources.gguf_choice import choose, first_parts, projectors
from sizeup.models.sources.header import Header, StoredFile
from sizeup.models.sources.reference import HubName

MAX_ENTRIES = 20_000


def read_path(path: Path, *, tag: str = "", headers: bool = True) -> Found:
    """A folder or a file. Raises NotFound, BadFile or BadConfig.

    tag: which of a folder's GGUF files is meant, as in `org/name:Q4_K_M`.
    headers: False reads a configuration alone where there is one.
    """
    if path.is_dir():
        return read_folder(path, tag=tag, headers=headers)
    if not path.exists():
        raise NotFound(f"no file {path}", hint="check the path")
    if not path.is_file():
        raise BadFile(f"{path} is not a regular file", hint="give the path of a file or a folder")
    name = path.name.lower()
    if name.endswith(".gguf"):
        return _found_gguf(path, path.parent)
    if name.endswith(safetensors.INDEX.removeprefix("model")):
        return _found_safetensors(path.parent, safetensors.read_sharded_path(path), path)
    if name.endswith(".safetensors"):
        return _found_safetensors(path.parent, safetensors.read_safetensors_path(path), path)
    if name.endswith(".json") and not name.endswith(".index.json"):
        data = read_config(path).data
        return Found(str(path), "config", str(path), _name_of(path), config=data, facts=folder_facts(path.parent))
    if is_pickled(name) or name.endswith(".index.json"):
        raise BadFile(
            f"{path} is, or lists, pickled weights, which are never opened",
            hint="give the config.json beside it, or convert the weights to safetensors",
        )
    raise BadFile(f"{path} is not a model file", hint="give a config.json, a .safetensors, a .gguf or a folder")


def read_folder(folder: Path, *, tag: str = "", headers: bool = True) -> Found:
    """A folder with a model: safetensors with or without config.json, GGUF files, or a config.json alone.

    A tag asks for a GGUF file. Raises NotFound when there is no model in it.
    """
    names = _names(folder)
    models = first_parts(names)
    weights = [name for name in names if name.endswith((".safetensors", safetensors.INDEX)) and "/" not in name]
    only_gguf = models and not weights and not any(is_pickled(name) for name in names)
    if tag or (only_gguf and (headers or "config.json" not in names)):
        return _found_gguf(folder / choose(names, tag, str(folder)), folder)
    if headers and (header := _folder_header(folder, weights)):
        return _found_safetensors(folder, header, folder)
    if "config.json" in names:
        data = read_config(folder / "config.json").data
        return Found(
            str(folder),
            "config",
            str(folder / "config.json"),
            folder.resolve().name,
            config=data,
            facts=folder_facts(folder),
        )
    if any(is_pickled(name) for name in names):
        raise BadFile(
            f"{folder} holds pickled weights only, which are never opened, and no config.json",
            hint="add its config.json, or convert the weights to safetensors",
        )
    if models:
        return _found_gguf(folder / choose(names, tag, str(folder)), folder)
    raise NotFound(f"no model in {folder}", hint="give a folder with config.json, .safetensors or .gguf files")


def find_local(name: HubName) -> Iterator[tuple[str, Path]]:
    """Where other programs may keep a Hub repository: (program, folder or file), only what exists."""
    for cache in hub_caches():
        snapshot = _snapshot(cache, name)
        if snapshot is not None:
            yield f"the Hub's cache {cache}", snapshot
    for folder in lm_studio_folders():
        path = folder / name.repository
        if _is_dir(path):
            yield f"LM Studio's models {folder}", path
    prefix = f"{name.repository.replace('/', '_')}_"
    for folder in llama_cpp_folders():
        files = [entry for entry in _entries(folder) if entry.name.startswith(prefix)]
        models = first_parts([entry.name for entry in files])
        if models:
            try:
                yield f"llama.cpp's cache {folder}", folder / choose(models, name.tag, str(folder))
            except NotFound:
                continue


def folder_facts(folder: Path) -> Facts:
    """Template, licence and languages from a folder's tokenizer_config.json and README.md; empty when unreadable."""
    template = template_of(_json(folder / "tokenizer_config.json").get("chat_template")) or _text(
        folder / "chat_template.jinja"
    )
    card = _card(_text(folder / "README.md") or "")
    pickled = [entry.stat().st_size for entry in _entries(folder) if is_pickled(entry.name) and entry.is_file()]
    return Facts(
        licence=next(iter(card.get("license_name") or card.get("license") or ()), None),
        chat_template=template,
        languages=tuple(card.get("language", ())),
        base_models=tuple(card.get("base_model", ())),
        tags=tuple(card.get("tags", ())),
        pickled_bytes=sum(pickled) if pickled else None,
    )


def _found_gguf(path: Path, folder: Path) -> Found:
    header = gguf.read_gguf_path(path)
    names = _names(folder)
    companions = tuple(StoredFile(str(folder / name), (folder / name).stat().st_size, 0) for name in projectors(names))
    name = header.metadata.get("general.name")
    return Found(
        str(path),
        "gguf",
        str(path),
        name if isinstance(name, str) and name else path.stem,
        header=header,
        facts=facts_of_gguf(header),
        companions=companions,
    )


def _found_safetensors(folder: Path, header: Header, path: Path) -> Found:
    config = folder / "config.json"
    data = read_config(config).data if config.is_file() else None
    return Found(
        str(path), "safetensors", str(path), _name_of(path), config=data, header=header, facts=folder_facts(folder)
    )


def _folder_header(folder: Path, weights: list[str]) -> Header | None:
    if safetensors.INDEX in weights:
        return safetensors.read_sharded_path(folder / safetensors.INDEX)
    shards = safetensors.model_files([name for name in weights if name.endswith(".safetensors")])
    if not shards:
        return None
    headers = [safetensors.read_safetensors_path(folder / shard) for shard in shards]
    return headers[0] if len(headers) == 1 else safetensors.merge_shards(shards, headers)


def _snapshot(cache: Path, name: HubName) -> Path | None:
    """The newest state of a revision in a folder laid out as the Hub's cache; None when it isn't there."""
    folder = cache / f"models--{name.repository.replace('/', '--')}"
    commit = name.revision
    if not is_commit(commit):
        commit = (_text(folder / "refs" / name.revision) or "").strip()
    path = folder / "snapshots" / commit
    return path if is_commit(commit) and _is_dir(path) else None


def _name_of(path: Path) -> str:
    """A model's name from its path: the folder of a config.json, else the stem."""
    if path.is_dir():
        return path.resolve().name
    plain = re.sub(r"(-\d{5}-of-\d{5})?\.safetensors$|\.safetensors\.index\.json$|\.json$", "", path.name)
    return path.resolve().parent.name if plain in {"config", "model"} else plain.replace("--", "/")


def _names(folder: Path) -> list[str]:
    """The files of a folder and of the folders in it (repositories keep split GGUF models one folder down)."""
    names = []
    for entry in _entries(folder):
        if entry.is_file():
            names.append(entry.name)
        elif entry.is_dir() and not entry.name.startswith("."):
            names += [f"{entry.name}/{file.name}" for file in _entries(entry) if file.name.lower().endswith(".gguf")]
    return names


def _entries(folder: Path) -> Iterable[Path]:
    """What lies in a folder, sorted; nothing when it isn't there. Raises BadFile for an absurd number."""
    try:
        found = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError:
        return []
    if len(found) > MAX_ENTRIES:
        raise BadFile(f"{folder} holds more than {MAX_ENTRIES:,} files", hint="give the path of the model's own folder")
    return found


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(2**20).decode("utf-8", "replace") or None
    except OSError:
        return None


def _json(path: Path) -> dict[str, Any]:
    """A JSON object beside the model; empty when it is absent or damaged, since nothing is sized by it."""
    try:
        with path.open("rb") as file:
            return parse_config(file.read(MAX_CONFIG_BYTES + 1), str(path))
    except (OSError, SizeupError):
        return {}


def _card(text: str) -> dict[str, list[str]]:
    """The simple fields of a model card's front matter: `key: value`, and `key:` followed by `- value` lines."""
    fields: dict[str, list[str]] = {}
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return fields
    key = ""
    for line in lines[1:500]:
        if line.strip() == "---":
            return fields
        if found := re.match(r"([a-z_]+):\s*(.*)$", line):
            key = found[1]
            fields[key] = [found[2].strip().strip("\"'")] if found[2].strip() else []
        elif key and (found := re.match(r"\s*-\s+([^:]+)$", line)):
            fields[key].append(found[1].strip().strip("\"'"))
    return {}
