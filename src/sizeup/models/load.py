"""From any reference to a model: a configuration, a path, a shape, a catalogue name, a Hub id, an Ollama tag."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sizeup.errors import BadFile, BadInput, NotFound
from sizeup.models.config import read_config
from sizeup.models.from_config import model_from_config
from sizeup.models.model import Model
from sizeup.models.shape import looks_like_shape, model_from_shape

Reference = str | dict[str, Any] | os.PathLike[str]


def load_model(reference: Reference = "", *, shape: str = "", network: bool = False) -> Model:
    """The model that a reference stands for.

    The first road that is open is taken: real headers, then the anatomy of a configuration.
    shape: a hypothetical model, instead of a reference. network: whether a name that isn't found here may be asked
    for at the Hub. Raises BadInput for an empty reference or an impossible shape, NotFound, BadFile, BadConfig,
    NetworkError.
    """
    if shape:
        if reference:
            raise BadInput("a model and a shape are given", hint="give one of them")
        return model_from_shape(shape)
    if isinstance(reference, dict):
        return model_from_config(reference, origin="the configuration")
    text = os.fspath(reference).strip()
    if not text:
        raise BadInput("no model is given", hint="give a name, a Hub id, a path or --shape layers=…,embedding=…")
    path = Path(text).expanduser()
    if _exists(path):
        return _from_path(path)
    if looks_like_shape(text):
        return model_from_shape(text)
    return _from_name(text, network=network)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _from_path(path: Path) -> Model:
    if path.is_dir():
        config = path / "config.json"
        if not config.is_file():
            raise NotFound(f"no config.json in {path}", hint="give a folder that holds a model")
        return model_from_config(read_config(config), name=path.resolve().name, origin=str(config))
    if path.suffix == ".json":
        name = path.resolve().parent.name if path.name == "config.json" else path.stem.replace("--", "/")
        return model_from_config(read_config(path), name=name, origin=str(path))
    if path.suffix == ".gguf":
        from sizeup.models.from_gguf import model_from_gguf
        from sizeup.models.sources.gguf import read_gguf_path

        return model_from_gguf(read_gguf_path(path, data_required=False), origin=str(path))
    raise BadFile(f"{path} isn't a model file", hint="give a config.json, a .safetensors or a .gguf file, or a folder")


def _from_name(name: str, *, network: bool) -> Model:
    import msgspec

    from sizeup.models.catalogue import find

    entry = find.find(name)
    if entry is not None:
        model = model_from_config(entry.config, name=entry.id, origin="the catalogue")
        return msgspec.structs.replace(model, facts=entry.facts, context=entry.context or model.context)
    near = find.nearest(name)
    where = "here or at the Hub" if network else "here, and the network was not to be asked"
    hint = f"did you mean {' or '.join(near)}?" if near else "give a Hub id, or a path to a config.json or its folder"
    raise NotFound(f"no model {name[:120]!r} {where}", hint=hint)
