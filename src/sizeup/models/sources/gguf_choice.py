"""Which GGUF file of several is meant: llama.cpp's rule for `org/name:TAG`, and its default without a tag.

Source: find_best_model and gguf_filename_is_model in common/download.cpp, llama.cpp 0c1e570.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sizeup.errors import NotFound

DEFAULT_TAGS = ("Q4_K_M", "Q8_0")
_COMPANIONS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")


def is_model(name: str) -> bool:
    """Whether a file name is that of a model, and not of a projector, a draft head or an importance matrix."""
    file = name.rpartition("/")[2].lower()
    return file.endswith(".gguf") and not any(word in file for word in _COMPANIONS)


def first_parts(names: Sequence[str]) -> list[str]:
    """The models among the names, each split one by its first part."""
    return sorted(name for name in names if is_model(name) and not re.search(r"-(?!00001)\d{5}-of-\d{5}\.gguf$", name))


def choose(names: Sequence[str], tag: str, origin: str) -> str:
    """The file that a tag means; without a tag Q4_K_M, else Q8_0, else the first.

    Raises NotFound, naming the tags that are there.
    """
    models = first_parts(names)
    for wanted in [tag] if tag and tag.lower() != "latest" else DEFAULT_TAGS:
        pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(wanted)}[./-]", re.IGNORECASE)
        matches = [name for name in models if pattern.search(name)]
        if matches:
            return min(matches, key=lambda name: (len(name.rpartition("/")[2]), name))
    if models and (not tag or tag.lower() == "latest"):
        return models[0]
    raise NotFound(f"{origin} has no GGUF file {tag}".rstrip(), hint=_hint(models))


def projectors(names: Sequence[str]) -> list[str]:
    """The vision or audio projectors among the names."""
    return sorted(name for name in names if name.lower().endswith(".gguf") and "mmproj" in name.lower())


def _hint(models: Sequence[str]) -> str:
    if not models:
        return "give a repository with .gguf files, or leave the tag out"
    tags = sorted({tag_of(name) for name in models} - {""})
    return f"it has {', '.join(tags[:30])}" if tags else f"it has {', '.join(models[:10])}"


def tag_of(name: str) -> str:
    """The quantization that a file name ends with, as a hint for people: the header knows better."""
    stem = re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", name.rpartition("/")[2], flags=re.IGNORECASE)
    found = re.search(r"(?:UD-)?(?:I?Q\d|TQ\d|BF16|F16|F32|MXFP4|NVFP4)[A-Za-z0-9_]*$", stem, re.IGNORECASE)
    return found[0] if found else ""
