"""Which architecture a configuration names, and which known ones are nearest to a name that isn't known."""

from __future__ import annotations

from sizeup.errors import BadConfig
from sizeup.models.anatomy.registry import anatomy_of, known_types
from sizeup.models.config import Config

_CLASS_ENDINGS = ("LMHeadModel", "Model", "PreTrainedModel", "Transformer")


def model_type_of(cfg: Config) -> str:
    """The configuration's `model_type`, or the one its class in `architectures` belongs to.

    Raises BadConfig when the configuration names neither.
    """
    model_type = cfg.optional_str("model_type")
    if model_type:
        return model_type
    classes = cfg.strs("architectures")
    if not classes and cfg.has("ssm_cfg"):
        return "mamba_ssm"
    if not classes:
        raise BadConfig(
            f"{cfg.origin} has neither model_type nor architectures",
            hint='add "model_type" (for instance "llama") to the configuration',
        )
    return _type_of_class(classes[0])


def _type_of_class(name: str) -> str:
    """`Qwen2MoeForCausalLM` → `qwen2_moe`; an unknown class gives its stem in lower case."""
    stem = name.partition("For")[0]
    for ending in _CLASS_ENDINGS:
        stem = stem.removesuffix(ending)
    stem = stem.lower()
    return next((known for known in known_types() if _letters(known) == stem), stem)


def nearest_types(model_type: str, count: int = 3) -> list[str]:
    """The known model types most like this one, best first: same words first, then similar spelling."""
    from difflib import get_close_matches

    known = known_types()
    wanted = _letters(model_type)
    by_letters = {_letters(other): other for other in known}
    family = wanted.rstrip("0123456789")
    same = [other for letters, other in by_letters.items() if len(family) > 2 and letters.startswith(family)]
    close = get_close_matches(wanted[:80], list(by_letters), n=count, cutoff=0.5)
    return list(dict.fromkeys([*(by_letters[letters] for letters in close), *same]))[:count]


def has_anatomy(model_type: str) -> bool:
    """Whether an anatomy describes this model type."""
    return anatomy_of(model_type) is not None


def _letters(model_type: str) -> str:
    return model_type.lower().replace("_", "").replace("-", "").replace(".", "")
