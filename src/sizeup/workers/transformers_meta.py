"""Worker: the class that transformers builds for a configuration, on the meta device, and what its checkpoint holds.

    job      {"config": config.json, "class": name (default: the configuration's architectures)}
    answer   {"event": "result", "class_name", "version", "config" (every default filled in), "tensors" {name: shape},
              "buffers" [name], "ties" {name: name}, "parameters"}

Nothing is allocated, nothing is downloaded, no code of a repository ever runs: only classes of transformers itself.
Names are those that `save_pretrained` writes: transformers 5 builds merged experts and renamed modules, and its
conversion mapping, run in reverse, gives the names on disk.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizeup.workers.protocol import Refused, Say, answer

#: Mappings that are searched for a model type's class, the most specific first.
MAPPINGS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_MAPPING_NAMES",
)


def work(job: dict[str, Any], say: Say) -> None:
    """Build the class and describe its checkpoint."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    warnings.simplefilter("ignore")
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    given = job.get("config")
    if not isinstance(given, dict):
        raise Refused("config", "the job has no config")
    config = configuration(given)
    model = built(config, str(job.get("class") or next(iter(given.get("architectures") or []), "")))
    say("result", version=transformers.__version__, config=config.to_dict(), **describe(model))


def configuration(given: dict[str, Any]) -> Any:
    """The configuration object. Raises Refused for a model type that transformers doesn't have, or bad values."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = given.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise Refused("unknown", f"transformers has no model type {str(model_type)[:80]!r}")
    plain = {
        key: _plain(value)
        for key, value in given.items()
        if key not in {"auto_map", "quantization_config", "quantization", "compression_config"}
    }
    try:
        return CONFIG_MAPPING[model_type].from_dict(plain)
    except Exception as error:
        raise Refused("config", f"transformers refuses the configuration: {error}"[:1000]) from None


def _plain(value: Any) -> Any:
    """A JSON value, with the numbers that transformers writes as `{"__float__": "Infinity"}` as numbers."""
    if isinstance(value, dict):
        special = value.get("__float__")
        return float(special) if isinstance(special, str) else {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def built(config: Any, class_name: str = "") -> Any:
    """The model on the meta device: of the named class, or of the first mapping that has the model type."""
    import torch

    model_class = find_class(config.model_type, class_name)
    with torch.device("meta"), contextlib.redirect_stderr(None):
        return model_class(part_for(model_class, config))


def find_class(model_type: str, class_name: str = "") -> Any:
    """A class of transformers: by its name, else by model type."""
    import transformers
    from transformers.models.auto import modeling_auto

    named = getattr(transformers, class_name, None) if class_name.isidentifier() else None
    if isinstance(named, type) and issubclass(named, transformers.PreTrainedModel):
        return named
    for mapping in MAPPINGS:
        found = getattr(modeling_auto, mapping, {}).get(model_type)
        if found:
            return getattr(transformers, found if isinstance(found, str) else found[0])
    raise Refused("unknown", f"transformers has no class for model type {model_type!r}")


def part_for(model_class: Any, config: Any) -> Any:
    """The text part of a composite configuration, for a class that takes only that (as `from_config` does)."""
    wanted = getattr(model_class, "config_class", None)
    if wanted is not None and not isinstance(config, wanted):
        text = config.get_text_config()
        if isinstance(text, wanted):
            return text
    return config


def describe(model: Any) -> dict[str, Any]:
    """The tensors that `save_pretrained` would write for a model, its persistent buffers and its ties."""
    state = model.state_dict(keep_vars=True)
    parameters = {id(parameter) for parameter in model.parameters()}
    ties = {name: source for name, source in (model.all_tied_weights_keys or {}).items() if name in state}
    first_by_identity: dict[int, str] = {}
    for name, tensor in state.items():
        first = first_by_identity.setdefault(id(tensor), name)
        if first != name and name not in ties and ties.get(first) != name:
            ties[name] = first
    stored = {name: tensor for name, tensor in state.items() if name not in ties}
    buffers = {name: tensor for name, tensor in stored.items() if id(tensor) not in parameters}
    tensors = checkpoint_names(model, stored)
    return {
        "class_name": type(model).__name__,
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "buffers": sorted(checkpoint_names(model, buffers)),
        "ties": {
            _checkpoint_name(model, name, state[name]): _checkpoint_name(model, source, state[source])
            for name, source in ties.items()
            if source in state
        },
        "parameters": sum(tensor.numel() for name, tensor in stored.items() if name not in buffers),
    }


def checkpoint_names(model: Any, state: dict[str, Any]) -> dict[str, Any]:
    """A state under the names on disk: the conversion mapping of transformers 5 in reverse."""
    from transformers.core_model_loading import revert_weight_conversion

    reverted: dict[str, Any] = revert_weight_conversion(model, {name: t.detach() for name, t in state.items()})
    return reverted


def _checkpoint_name(model: Any, name: str, tensor: Any) -> str:
    return next(iter(checkpoint_names(model, {name: tensor})))


if __name__ == "__main__":
    sys.exit(answer(work))
