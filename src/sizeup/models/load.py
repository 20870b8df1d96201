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


def load_model(reference: str | dict[str, Any] | os.PathLike[str], *, network: bool = False) -> Model:
    """The model that a reference stands for.

    The first road that is open is taken: real headers, then the anatomy of a configuration.
    network: whether a name that isn't found here may be asked for at the Hub.
    Raises BadInput for an empty reference or an impossible shape, NotFound, BadFile, BadConfig, NetworkError.
    """
    if isinstance(reference, dict):
        return model_from_config(reference, origin="the configuration")
    text = os.fspath(reference).strip()
    if not text:
        raise BadInput("the model's name is empty", hint="give a name, a Hub id, a path or layers=…,embedding=…")
    path = Path(text).expanduser()
    if path.exists():
        return _from_path(path)
    if looks_like_shape(text):
        return model_from_shape(text)
    where = "here or at the Hub" if network else "here, and the network was not to be asked"
    raise NotFound(f"no model {text[:120]!r} {where}", hint="give a path to a config.json or a folder that holds one")


def _from_path(path: Path) -> Model:
    if path.is_dir():
        config = path / "config.json"
        if not config.is_file():
            raise NotFound(f"no config.json in {path}", hint="give a folder that holds a model")
        return model_from_config(read_config(config), name=path.resolve().name, origin=str(config))
    if path.suffix == ".json":
        name = path.resolve().parent.name if path.name == "config.json" else path.stem.replace("--", "/")
        return model_from_config(read_config(path), name=name, origin=str(path))
    raise BadFile(f"{path} isn't a model file", hint="give a config.json, a .safetensors or a .gguf file, or a folder")
